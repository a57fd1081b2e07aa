import operator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.sources.expression import Task, labels, parse_task
from diet_ray.logs.sources.source import LogsError

COLUMNS = ["rating", "behavior", "is_click", "play time"]
PYTHON = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("is_click", Task("is_click")),
        ("rating >= 4", Task("rating", ">=", (4.0,))),
        ("rating>=-4.5e1", Task("rating", ">=", (-45.0,))),
        ("behavior == 'buy it'", Task("behavior", "==", ("buy it",))),
        ("behavior != buy", Task("behavior", "!=", ("buy",))),
        ("play time < 3", Task("play time", "<", (3.0,))),
        ("behavior in [cart, 'a,b', \"c\"]", Task("behavior", "in", ("cart", "a,b", "c"))),
        ("rating in [4,5]", Task("rating", "in", (4.0, 5.0))),
    ],
)
def test_parses(text: str, task: Task) -> None:
    assert parse_task("k", text, COLUMNS) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratng >= 4", "no column 'ratng'; did you mean 'rating'"),
        ("ratng", "did you mean 'rating'"),
        ("rating >= 4 or 1", "'or 1' is left over"),
        ("rating >= ", "is not a value"),
        ("rating >= __import__('os')", "left over"),
        ("rating in 4", "needs a list"),
        ("rating in [4, five]", "numbers and text"),
        ("behavior > 'buy'", "no order"),
        ("rating == 4x", "left over|not a value"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(LogsError, match=message) as error:
        parse_task("like", text, COLUMNS)
    assert "logs.table.tasks.like" in str(error.value)


@given(
    st.sampled_from(sorted(PYTHON)),
    st.integers(-3, 3),
    st.lists(st.one_of(st.none(), st.integers(-3, 3)), min_size=1),
    st.booleans(),
)
def test_agrees_with_python(symbol: str, limit: int, values: list, as_strings: bool) -> None:
    task = parse_task("k", f"rating {symbol} {limit}", COLUMNS)
    shown = [None if v is None else str(v) for v in values] if as_strings else values
    column = pa.chunked_array([pa.array(shown, pa.string() if as_strings else pa.int64())])
    expected = [None if v is None else float(PYTHON[symbol](v, limit)) for v in values]
    assert labels(task, column).to_pylist() == expected


def test_membership_and_text() -> None:
    column = pa.chunked_array([["buy", "cart", None, "pv"]])
    within = parse_task("k", "behavior in [buy, cart]", COLUMNS)
    assert labels(within, column).to_pylist() == [1.0, 1.0, None, 0.0]
    same = parse_task("k", "behavior == buy", COLUMNS)
    assert labels(same, column).to_pylist() == [1.0, 0.0, None, 0.0]
