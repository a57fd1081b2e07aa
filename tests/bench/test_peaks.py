"""Peaks of this process, of a child, of Ray's workers."""

from __future__ import annotations

import os

import numpy as np
import pytest
import ray

from diet_ray.bench.peaks import in_child, rise, watched

HELD = 200_000_000
SLACK = 0.1 * HELD


def touch(size: int) -> int:
    """Holds so many bytes for a moment."""
    return int(np.ones(size, dtype=np.uint8)[-1])


def fail() -> None:
    raise ValueError("of the child's own")


def test_a_rise_is_what_was_held() -> None:
    result, peak = rise(lambda: touch(HELD))
    assert result == 1
    assert peak == pytest.approx(HELD, abs=SLACK)


def test_a_later_rise_does_not_remember_an_earlier_one() -> None:
    rise(lambda: touch(HELD))
    assert rise(lambda: touch(1_000))[1] < SLACK


def test_a_child_is_another_process() -> None:
    assert in_child(os.getpid) != os.getpid()


def test_a_childs_error_is_raised() -> None:
    with pytest.raises(ValueError, match="of the child's own"):
        in_child(fail)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_workers_are_watched_apart_from_the_driver() -> None:
    with watched() as peaks:
        assert ray.get(ray.remote(touch).remote(HELD)) == 1
    assert peaks.largest_worker > HELD
    assert peaks.driver > 0
    assert os.getpid() not in peaks.workers
