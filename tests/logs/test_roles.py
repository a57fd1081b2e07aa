from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from diet_ray.logs.roles import Roles, find_roles

ROWS = 1_000
START = 1_700_000_000  # seconds
DRAW = np.random.default_rng(3)
USERS = DRAW.integers(0, 50, ROWS)


def table(**columns: Any) -> pa.Table:
    """A log of one time, one user and one label, with these columns more (None: without)."""
    base = {
        "user_id": USERS,
        "click": DRAW.integers(0, 2, ROWS),
        "ts": START + np.arange(ROWS) * 600,
    }
    kept = {name: column for name, column in {**base, **columns}.items() if column is not None}
    return pa.Table.from_pandas(pd.DataFrame(kept), preserve_index=False)


def as_csv(rows: pa.Table) -> pa.Table:
    """As a CSV file's sample holds it: everything is text."""
    return pa.table({name: rows[name].cast(pa.string()) for name in rows.column_names})


def roles(rows: pa.Table, whole: bool = True) -> Roles:
    return find_roles(rows, whole, "UTC")


def test_a_plain_log() -> None:
    for rows in (table(), as_csv(table())):
        found = roles(rows)
        assert found.time is not None
        assert (found.time.name, found.time.unit) == ("ts", "s")
        assert found.time.ms[1].as_py() == (START + 600) * 1000
        assert list(found.fields) == ["user_id"]
        assert found.tasks == {"click": "click"}
        assert found.rates["click"] == pytest.approx(np.mean(rows["click"].cast("int64")))
        assert found.left_out == {"ts": "the time of the interaction"}
        assert found.feedback == ["click"]


TIMES = pd.to_datetime(START + np.arange(ROWS) * 600, unit="s")


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ((START + np.arange(ROWS)) * 1_000, "ms"),
        ((START + np.arange(ROWS)) * 1_000_000, "us"),
        ((START + np.arange(ROWS)) * 1_000_000_000, "ns"),
        ((START + np.arange(ROWS) + 0.25), "s"),
        (TIMES, "ms"),
        (TIMES.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S"),
        (TIMES.strftime("%Y-%m-%dT%H:%M:%SZ"), "%Y-%m-%dT%H:%M:%S%z"),
        (TIMES.strftime("%Y-%m-%d %H:%M:%S.%f"), "%Y-%m-%d %H:%M:%S.%f"),
        (TIMES.strftime("%Y-%m-%d %H:%M:%S UTC"), "%Y-%m-%d %H:%M:%S UTC"),
        (TIMES.strftime("%Y/%m/%d %H:%M"), "%Y/%m/%d %H:%M"),
        (TIMES.strftime("%Y-%m-%d"), "%Y-%m-%d"),
        (TIMES.strftime("%Y%m%d").astype(int), "%Y%m%d"),
        (TIMES.strftime("%Y%m%d%H%M%S"), "%Y%m%d%H%M%S"),
        (TIMES.strftime("%y%m%d%H").astype(int), "%y%m%d%H"),
    ],
)
def test_units_of_time(column: Any, unit: str) -> None:
    found = roles(table(ts=column)).time
    assert found is not None
    assert (found.name, found.unit) == ("ts", unit)


def test_seconds_since_the_logs_own_beginning() -> None:
    counted = roles(table(ts=None, timestamp=np.arange(ROWS) * 60)).time
    assert counted is not None
    assert (counted.name, counted.unit, counted.sure) == ("timestamp", "s", False)
    both = roles(table(timestamp=np.arange(ROWS) * 60)).time
    assert both is not None
    assert both.name == "ts"


def test_the_interactions_own_and_finest_time_is_taken() -> None:
    others = {
        "date": TIMES.strftime("%Y%m%d").astype(int),
        "release_date": TIMES.strftime("%Y-%m-%d %H:%M:%S"),
        "phone": 10**9 + DRAW.integers(0, 9 * 10**8, ROWS),
    }
    found = roles(table(**others))
    assert found.time is not None
    assert found.time.name == "ts"
    assert found.left_out["date"] == found.left_out["release_date"] == "another time"
    assert roles(table(ts=None, click=None)).time is None


@pytest.mark.parametrize(
    ("column", "tasks"),
    [
        ({"liked": DRAW.random(ROWS) < 0.3}, {"liked": "liked"}),
        ({"liked": np.where(DRAW.random(ROWS) < 0.3, "Y", "N")}, {"liked": "liked == 'Y'"}),
        ({"rating": DRAW.integers(1, 6, ROWS)}, {"like": "rating >= 4"}),
        ({"overall": DRAW.choice([1.0, 3.0, 5.0], ROWS)}, {"like": "overall >= 5"}),
        ({"stars": DRAW.integers(1, 11, ROWS) / 2}, {"like": "stars >= 4"}),
        ({"rating": DRAW.integers(1, 11, ROWS)}, {"like": "rating >= 8"}),
        (
            {"behavior": DRAW.choice(["pv", "buy"], ROWS)},
            {"pv": "behavior == 'pv'", "buy": "behavior == 'buy'"},
        ),
        (
            {"action": DRAW.integers(1, 3, ROWS)},
            {"action_1": "action == 1", "action_2": "action == 2"},
        ),
        ({"rating": DRAW.integers(1, 6, ROWS), "like": ["x"] * ROWS}, {"like_1": "rating >= 4"}),
        ({"time_ms": DRAW.integers(0, 2, ROWS)}, {"time_ms_1": "time_ms"}),
        ({"is_member": USERS % 2}, {}),
        ({"liked": [None, *[0.0, 1.0] * 499, None]}, {}),
        ({"liked": np.zeros(ROWS, int)}, {}),
    ],
)
def test_tasks(column: dict[str, Any], tasks: dict[str, str]) -> None:
    found = roles(table(click=None, **column))
    assert {name: found.tasks[name] for name in sorted(found.tasks)} == dict(sorted(tasks.items()))
    assert not set(found.labels) & set(found.fields)
    assert found.labels <= set(found.feedback)


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("constant", ["x"] * ROWS, "constant"),
        ("row", np.arange(ROWS), "a value of its own"),
        ("play_time_ms", DRAW.integers(0, 99, ROWS), "known only after"),
        ("duration", DRAW.integers(0, 99, ROWS), "known only after"),
        ("rating", [None] * 10 + [3, 4, 5] * 330, "feedback, by its name"),
        ("price", DRAW.random(ROWS).round(3), "a measurement"),
        ("title", [f"the {i} best of all the things" for i in USERS * 20 + 7], None),
        ("review", [f"well, it is {i} as good" for i in DRAW.integers(0, 600, ROWS)], "free text"),
        ("week", np.arange(ROWS) // 50, "of the later rows hold a value"),
        ("a/b", USERS, "a name that blocks cannot use"),
        ("row_id", USERS, "a name that blocks cannot use"),
        ("tags", [[1, 2]] * ROWS, "type list"),
        ("digest", [b"\xff\xfe"] * ROWS, "type binary"),
        ("genre", DRAW.choice(["a", "b"], ROWS), None),
        ("missing_now_and_then", [None, "b"] * (ROWS // 2), None),
        ("half_stars", DRAW.integers(0, 9, ROWS) / 2, "feedback"),
    ],
)
def test_fields_and_what_is_left_out(name: str, column: Any, reason: str | None) -> None:
    found = roles(table(**{name: column}))
    if reason is None:
        assert name in found.fields
    elif name in found.labels:
        assert reason == "feedback"
    else:
        assert reason in found.left_out[name]
    assert (name in found.fields) == (reason is None)


def test_of_a_sample_it_is_not_said_that_a_users_id_does_not_come_back() -> None:
    rows = table(item_id=np.arange(ROWS), row=np.arange(ROWS))
    assert list(roles(rows, whole=False).fields) == ["user_id", "item_id"]
    assert list(roles(rows, whole=True).fields) == ["user_id"]


def test_an_id_that_does_not_come_back_stays_with_a_word_about_it() -> None:
    found = roles(table(item_id=np.arange(ROWS) // 10))
    assert found.fields["item_id"] == (
        "100 values; 100% of the later rows hold a value that the earlier ones lack"
    )
