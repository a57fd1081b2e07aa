import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.fragments import plan_block
from diet_ray.logs.staging import BINS, Window

COUNTS = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 30), min_size=1, max_size=40)


@given(COUNTS, st.integers(1, 50), st.integers(1, 10**12))
def test_plans_cover_the_block_once(
    counts: dict[int, int], fragment_rows: int, length: int
) -> None:
    histogram = np.zeros(BINS, np.int64)
    for number, count in counts.items():
        histogram[number] = count
    window = Window("b", 1_000, 1_000 + length)
    plans = plan_block(window, histogram, fragment_rows, first_row_id=7)
    assert plans[0].start == window.start
    assert plans[-1].end == window.end
    assert sum(p.rows for p in plans) == sum(counts.values())
    assert all(p.rows <= fragment_rows or p.rows in counts.values() for p in plans)
    assert all(p.rows > 0 for p in plans)
    for before, after in itertools.pairwise(plans):
        assert before.end == after.start
        assert before.first_row_id + before.rows == after.first_row_id


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**6), min_size=1))
def test_bin_starts_agree_with_bins(length: int, offsets: list[int]) -> None:
    window = Window("b", 5, 5 + length)
    times = 5 + np.array(offsets) % length
    for time, number in zip(times, window.bins(times), strict=True):
        assert window.bin_start(number) <= time < window.bin_start(number + 1)
