"""A server's rows against a dense twin: every row with a delta and moments of its own."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.state import Changes, RowState
from diet_ray.memory.update import Learned, RowGradients
from tests.sets import assert_same, random_rows

ROWS, FIELDS, WIDTH, TASKS = 10, 3, 2, 2
EMBEDDING_STEP, LABEL_STEP = 0.1, 0.2


def start_rows(count: int = ROWS) -> SyntheticRows:
    """Some of them with a delta from an earlier stage."""
    return random_rows(count, (FIELDS, WIDTH, TASKS))


def gradients(rows: list[int], seed: int) -> RowGradients:
    draw = np.random.default_rng(seed)
    return RowGradients(
        np.array(rows, dtype=np.int64),
        draw.normal(size=(len(rows), FIELDS, WIDTH)).astype(np.float32),
        draw.normal(size=(len(rows), TASKS)).astype(np.float32),
    )


touches = st.lists(st.sets(st.integers(0, ROWS - 1)).map(sorted), max_size=6)


class Dense:
    """The twin: all of the memory, whether it learns or not."""

    def __init__(self, start: SyntheticRows) -> None:
        self.start = start
        self.labels, self.deltas = Learned.start(start.labels), Learned.start(start.dense_deltas())
        self.touched = np.zeros(len(start), dtype=bool)

    def adam(self, found: RowGradients) -> None:
        self.touched[found.rows] = True
        self.labels.adam(found.rows, found.labels, LABEL_STEP)
        self.deltas.adam(found.rows, found.embeddings, EMBEDDING_STEP)


def assert_is(state: RowState, twin: Dense) -> None:
    rows = state.take(slice(None))
    assert rows.labels.tobytes() == twin.labels.values.tobytes()
    assert rows.dense_deltas().tobytes() == twin.deltas.values.tobytes()
    assert (rows.moved == twin.start.moved | twin.touched).all()
    for name in ("anchors", "taught", "stages", "source_rows"):
        assert np.array_equal(getattr(rows, name), getattr(twin.start, name))
    assert state.touched == twin.touched.sum()


def learned_of(twin: Dense, rows: np.ndarray) -> Changes:
    return Changes(rows, twin.labels.take(rows), twin.deltas.take(rows))


def assert_changes(found: Changes, expected: Changes) -> None:
    assert np.array_equal(found.rows, expected.rows)
    for name in ("labels", "deltas"):
        for f in fields(Learned):
            one, other = (getattr(getattr(c, name), f.name) for c in (found, expected))
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes(), (name, f.name)


@settings(deadline=None)
@given(touches, st.sets(st.integers(0, ROWS - 1)).map(sorted))
def test_any_touches_are_those_of_the_twin(steps: list[list[int]], asked: list[int]) -> None:
    state, twin = RowState(start_rows(), learns_deltas=True), Dense(start_rows())
    assert_is(state, twin)
    for number, rows in enumerate(steps):
        found = gradients(rows, number)
        state.adam(found, EMBEDDING_STEP, LABEL_STEP)
        twin.adam(found)
        assert_is(state, twin)
    chosen = np.array(asked, dtype=np.int64)
    assert_same(state.take(chosen), state.take(slice(None)).take(chosen))


@settings(deadline=None)
@given(touches, st.integers(0, 6), st.booleans())
def test_changes_bring_another_state_to_the_same_bits(
    steps: list[list[int]], saved: int, whole: bool
) -> None:
    """Those since the last durable step on top of what was saved there, or all of them alone."""
    state, twin = RowState(start_rows(), learns_deltas=True), Dense(start_rows())
    other, since = RowState(start_rows(), learns_deltas=True), set()
    for number, rows in enumerate(steps):
        if number == saved:
            other.apply(state.changes(whole=False))
            state.saved()
            since = set()
        found = gradients(rows, number)
        state.adam(found, EMBEDDING_STEP, LABEL_STEP)
        twin.adam(found)
        since |= set(rows)
    changes = state.changes(whole=whole)
    expected = np.flatnonzero(twin.touched) if whole else np.array(sorted(since), dtype=np.int64)
    assert_changes(changes, learned_of(twin, expected))
    if whole:
        other = RowState(start_rows(), learns_deltas=True)
    other.apply(changes)
    assert_is(other, twin)
    for one in (state, other):  # moments and counts came along too
        one.adam(gradients([0, ROWS - 1], 99), EMBEDDING_STEP, LABEL_STEP)
    assert_same(other.take(slice(None)), state.take(slice(None)))


def test_what_was_applied_is_saved_already() -> None:
    state, other = (RowState(start_rows(), learns_deltas=True) for _ in range(2))
    state.adam(gradients([3, 4], 0), EMBEDDING_STEP, LABEL_STEP)
    other.apply(state.changes(whole=False))
    assert len(other.changes(whole=False).rows) == 0
    assert other.changes(whole=True).rows.tolist() == [3, 4]
    other.adam(gradients([4, 9], 1), EMBEDDING_STEP, LABEL_STEP)
    assert other.changes(whole=False).rows.tolist() == [4, 9]


def test_labels_alone_may_learn() -> None:
    """Then no row gets a delta, and one that has one keeps it."""
    start = start_rows()
    state, twin = RowState(start, learns_deltas=False), Dense(start)
    for step in range(3):
        found = gradients([step, 5], step)
        twin.adam(found)
        state.adam(RowGradients(found.rows, None, found.labels), EMBEDDING_STEP, LABEL_STEP)
    rows = state.take(slice(None))
    assert rows.labels.tobytes() == twin.labels.values.tobytes()
    assert np.array_equal(rows.moved, start.moved)
    assert np.array_equal(rows.deltas, start.deltas)
    changes = state.changes(whole=True)
    assert changes.deltas is None
    other = RowState(start, learns_deltas=False)
    other.apply(changes)
    assert_same(other.take(slice(None)), rows)


def test_the_start_and_what_was_taken_stay_as_they_are() -> None:
    start, expected = start_rows(), start_rows()
    state = RowState(start, learns_deltas=True)
    state.adam(gradients([0, 1], 0), EMBEDDING_STEP, LABEL_STEP)
    taken, changes = state.take(np.array([0, 1, 2])), state.changes(whole=True)
    before = [taken.labels.copy(), taken.deltas.copy(), changes.labels.values.copy()]
    state.adam(gradients([0, 1], 1), EMBEDDING_STEP, LABEL_STEP)
    for array, kept in zip(
        (taken.labels, taken.deltas, changes.labels.values), before, strict=True
    ):
        assert np.array_equal(array, kept)
    assert_same(start, expected)


@pytest.mark.parametrize("touched", [100, 400])
def test_room_grows_with_the_rows_that_learn_alone(touched: int) -> None:
    """At most twice what they need (room doubles), whatever the memory's size."""
    count, shape = 20_000, (10, 16, TASKS)
    state, draw = RowState(random_rows(count, shape, moved=0), True), np.random.default_rng(0)
    found = RowGradients(
        np.arange(0),
        draw.normal(size=(1, *shape[:2])).astype(np.float32),
        draw.normal(size=(1, TASKS)).astype(np.float32),
    )
    tracemalloc.start()
    for row in range(touched):
        state.adam(replace(found, rows=np.array([row * 7])), EMBEDDING_STEP, LABEL_STEP)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    numbers = shape[0] * shape[1] + TASKS
    of_a_row = 3 * numbers * np.dtype(np.float32).itemsize  # values and two moments
    assert touched * of_a_row < held < 2.1 * touched * of_a_row
    assert state.touched == touched
