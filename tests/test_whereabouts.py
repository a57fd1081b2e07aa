"""Where a process says it is, in blocks within blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from diet_ray import whereabouts
from diet_ray.whereabouts import Whereabouts


@pytest.fixture(autouse=True)
def _nowhere() -> Iterator[None]:
    with whereabouts.at(run=None, stage=None, round=None, step=None):
        yield


def test_a_block_adds_to_the_one_around_it_and_leaves_no_trace() -> None:
    with whereabouts.at(run="mine"):
        with whereabouts.at(stage=2, round=0):
            whereabouts.enter(step=7)
            assert whereabouts.here() == Whereabouts("mine", 2, 0, 7)
        assert whereabouts.here() == Whereabouts("mine")
    assert whereabouts.here() == Whereabouts()


def test_a_block_that_fails_is_left_too() -> None:
    with pytest.raises(ValueError, match="half way"), whereabouts.at(stage=1):
        raise ValueError("half way")
    assert whereabouts.here().stage is None


def test_a_process_is_at_one_place_whichever_thread_asks() -> None:
    found = []
    with whereabouts.at(run="mine"):
        thread = threading.Thread(target=lambda: found.append(whereabouts.here().run))
        thread.start()
        thread.join()
    assert found == ["mine"]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="stages"), whereabouts.at(stages=1):
        pass
