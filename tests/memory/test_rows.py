"""Synthetic rows with and without deltas, against one dense delta per row."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.memory.rows import SyntheticRows, unmoved
from diet_ray.models.embedding import EmbeddingTable
from tests.sets import assert_same, random_rows

FIELDS, WIDTH, TASKS = 3, 4, 2
LIKE_LABELS = ("anchors", "labels", "taught", "stages", "source_rows", "moved")


@st.composite
def rows(draw: st.DrawFn) -> SyntheticRows:
    """Any number of them, any share of which has a delta."""
    count, moved, seed = draw(st.integers(0, 9)), draw(st.floats(0, 1)), draw(st.integers(0, 99))
    return random_rows(count, (FIELDS, WIDTH, TASKS), moved, seed)


def delta_by_row(found: SyntheticRows) -> list[np.ndarray | None]:
    """Every row's delta, if it has one."""
    waiting = iter(found.deltas)
    return [next(waiting) if moved else None for moved in found.moved]


def same_deltas(found: list[np.ndarray | None], expected: list[np.ndarray | None]) -> bool:
    if [one is None for one in found] != [one is None for one in expected]:
        return False
    pairs = zip(found, expected, strict=True)
    return all(one is None or np.array_equal(one, other) for one, other in pairs)


def a_table() -> EmbeddingTable:
    sizes = {f"field_{f}": 100 for f in range(FIELDS)}
    return EmbeddingTable(sizes, WIDTH, std=0.5, seed=3)


@given(rows(), st.data())
def test_taken_rows_keep_what_is_theirs(found: SyntheticRows, data: st.DataObject) -> None:
    """By positions in any order, repeated ones too; by a mask; by a slice."""
    count = len(found)
    positions = st.lists(st.integers(0, count - 1), max_size=12) if count else st.just([])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    ends = st.integers(0, count)
    index = data.draw(
        st.one_of(
            positions.map(lambda chosen: np.array(chosen, dtype=np.int64)),
            st.just(mask),
            st.builds(slice, ends, ends),
        )
    )
    taken, chosen = found.take(index), np.arange(count)[index]
    assert len(taken) == len(chosen)
    for name in LIKE_LABELS:
        assert np.array_equal(getattr(taken, name), getattr(found, name)[chosen]), name
    assert taken.deltas.shape == (taken.moved.sum(), FIELDS, WIDTH)
    whole = delta_by_row(found)
    assert same_deltas(delta_by_row(taken), [whole[row] for row in chosen])


@given(st.lists(rows(), min_size=1, max_size=4))
def test_joined_rows_are_those_of_the_parts(parts: list[SyntheticRows]) -> None:
    whole = SyntheticRows.concatenate(parts)
    expected = [delta for part in parts for delta in delta_by_row(part)]
    assert same_deltas(delta_by_row(whole), expected)
    first = 0
    for part in parts:
        assert_same(whole.take(slice(first, first + len(part))), part)
        first += len(part)
    assert len(whole) == first


@given(rows())
def test_a_row_without_a_delta_lies_at_its_anchor(found: SyntheticRows) -> None:
    table = a_table()
    dense, embeddings = found.dense_deltas(), found.embeddings(table)
    assert dense.shape == embeddings.shape == (len(found), FIELDS, WIDTH)
    assert dense.dtype == embeddings.dtype == np.float32
    for row, delta in enumerate(delta_by_row(found)):
        anchor = table(torch.from_numpy(found.anchors[row].astype(np.int64))[None])[0]
        expected = anchor.detach().numpy() + (0 if delta is None else delta)
        assert np.array_equal(embeddings[row], expected)
        assert np.array_equal(dense[row], np.zeros_like(dense[row]) if delta is None else delta)


def test_embedding_rows_leaves_the_table_alone() -> None:
    table, found = a_table(), random_rows(6, (FIELDS, WIDTH, TASKS), moved=1)
    before = table.weight.detach().clone()
    found.embeddings(table)[:] = 0
    assert torch.equal(table.weight, before)


def test_every_row_can_be_given_a_delta() -> None:
    found, deltas = random_rows(5), np.ones((5, FIELDS, WIDTH), dtype=np.float32)
    given_all = found.with_deltas(deltas)
    assert given_all.moved.all()
    assert np.array_equal(given_all.dense_deltas(), deltas)
    assert np.array_equal(given_all.labels, found.labels)


def test_rows_that_learned_nothing_need_no_room_for_it() -> None:
    empty = unmoved((FIELDS, WIDTH), 1_000)
    assert not empty["moved"].any()
    assert empty["deltas"].nbytes == 0
    assert empty["deltas"].shape == (0, FIELDS, WIDTH)
