import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.config import LogsConfig
from diet_ray.logs.sources.source import LogsError
from diet_ray.logs.sources.synthetic import FIELDS, LAST_BIRTH, OLD_STOCK, TASKS, Synthetic

INTERVALS = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}


def synthetic(seed: int = 0, **shape: object) -> Synthetic:
    logs = LogsConfig.model_validate(
        {"source": "synthetic", "intervals": INTERVALS, "synthetic": shape}
    )
    return Synthetic(logs, seed)


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return synthetic().rows(np.arange(120_000)).to_pandas()


@settings(max_examples=25)
@given(st.integers(0, 3), st.lists(st.integers(0, 9_999), min_size=1, max_size=40))
def test_a_row_does_not_depend_on_its_company(seed: int, numbers: list[int]) -> None:
    source = synthetic(seed, rows=10_000, users=50, items=60)
    together = source.rows(np.array(numbers)).to_pylist()
    alone = [source.rows(np.array([number])).to_pylist()[0] for number in numbers[:3]]
    assert together[:3] == alone


def test_parts_are_the_log_whatever_their_size() -> None:
    logs = [synthetic(rows=1_000, rows_per_part=size) for size in (1_000, 301)]
    tables = [
        pd.concat(b.rows.to_pandas() for p in log.parts() for b in log.read(p, None))
        for log in logs
    ]
    pd.testing.assert_frame_equal(*(t.reset_index(drop=True) for t in tables))
    assert len(tables[0]) == 1_000


def test_label_rates(log: pd.DataFrame) -> None:
    rates = log[list(TASKS)].mean()
    assert rates["click"] == pytest.approx(0.4, abs=0.06)
    assert rates["long_view"] == pytest.approx(0.2, abs=0.05)
    assert rates["like"] == pytest.approx(0.03, abs=0.02)


def test_times_are_even_from_the_start(log: pd.DataFrame) -> None:
    gaps = log.time_ms.diff().dropna()
    assert log.time_ms.iloc[0] == pd.Timestamp("2024-01-01", tz="UTC").value // 10**6
    assert gaps.min() >= 5039
    assert gaps.max() <= 5041


def test_no_item_is_shown_before_its_birth(log: pd.DataFrame) -> None:
    age = log.index / len(log)
    born = OLD_STOCK + (1 - OLD_STOCK) * np.minimum(age / LAST_BIRTH, 1)
    items = log.item_id.astype(int)
    assert (items < np.maximum(born * 1_500, 1)).all()
    assert items.iloc[:5_000].max() < 950
    assert items.iloc[-5_000:].max() > 1_400


def test_popularity_is_skewed_and_moves(log: pd.DataFrame) -> None:
    early, late = (part.item_id.value_counts() for part in (log[:30_000], log[-30_000:]))
    assert early.iloc[:150].sum() > 0.3 * 30_000
    assert len(set(early.index[:20]) & set(late.index[:20])) < 15


def test_each_item_has_one_category_and_author(log: pd.DataFrame) -> None:
    assert (log.groupby("item_id")[["category", "author_id"]].nunique() == 1).all(axis=None)
    assert (log.groupby("user_id").user_group.nunique() == 1).all()


def test_crosses_of_user_and_item_tell_more_than_either(log: pd.DataFrame) -> None:
    """Mean click rates of (group, category) cells spread far beyond what their margins explain."""
    cells = log.pivot_table(index="user_group", columns="category", values="click", aggfunc="mean")
    margins = (
        cells.mean(axis=1).to_numpy()[:, None]
        + cells.mean(axis=0).to_numpy()
        - cells.mean(axis=None)
    )
    assert (cells - margins).std(axis=None) > 0.05


def test_taste_turns_with_drift() -> None:
    users, items = np.arange(200), np.arange(200)
    for drift, expected in ((0.0, 1.0), (np.pi, -1.0)):
        source = synthetic(drift=drift)
        before, after = (source._affinities(users, items, np.full(200, age)) for age in (0.0, 1.0))
        assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] == pytest.approx(expected)


def test_unknown_field_names_the_nearest() -> None:
    logs = LogsConfig.model_validate(
        {"source": "synthetic", "intervals": INTERVALS, "fields": ["item"]}
    )
    with pytest.raises(LogsError, match="did you mean 'item_id'"):
        Synthetic(logs, 0)
    assert len(FIELDS) == 7
