import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import LogsConfig
from diet_ray.logs.fragments import FEWEST_FRAGMENTS, fragment_limit, plan_block
from diet_ray.logs.staging import BINS, Window

COUNTS = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 30), min_size=1, max_size=40)


@given(COUNTS, st.integers(1, 50), st.integers(1, 10**12))
def test_plans_cover_the_block_once(counts: dict[int, int], most: int, length: int) -> None:
    histogram = np.zeros(BINS, np.int64)
    for number, count in counts.items():
        histogram[number] = count
    window = Window("b", 1_000, 1_000 + length)
    plans = plan_block(window, histogram, most, first_row_id=7)
    assert plans[0].start == window.start
    assert plans[-1].end == window.end
    assert sum(p.rows for p in plans) == sum(counts.values())
    assert all(p.rows <= most or p.rows in counts.values() for p in plans)
    assert all(p.rows > 0 for p in plans)
    for before, after in itertools.pairwise(plans):
        assert before.end == after.start
        assert before.first_row_id + before.rows == after.first_row_id


@pytest.mark.parametrize(
    ("rows", "most"),
    [
        (1, 100),  # a block smaller than a row group
        (100 * FEWEST_FRAGMENTS, 100),
        (100 * FEWEST_FRAGMENTS + 1, 101),  # a row group each is too few for all
        (300 * FEWEST_FRAGMENTS, 300),
        (10**9, 400),
    ],
)
def test_a_block_has_many_fragments_but_none_smaller_than_a_row_group(rows: int, most: int) -> None:
    logs = LogsConfig.model_construct(fragment_rows=400, row_group_rows=100)
    assert fragment_limit(logs, rows) == most


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**6), min_size=1))
def test_bin_starts_agree_with_bins(length: int, offsets: list[int]) -> None:
    window = Window("b", 5, 5 + length)
    times = 5 + np.array(offsets) % length
    for time, number in zip(times, window.bins(times), strict=True):
        assert window.bin_start(number) <= time < window.bin_start(number + 1)
