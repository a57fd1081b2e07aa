"""Durable steps: chains of changes, read back in any ranges; what no kept step needs goes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray import storage
from diet_ray.memory.durable import (
    KEPT,
    DurableStep,
    durable_steps,
    publish_step,
    read_changes,
    read_step,
    write_changes,
)
from diet_ray.memory.state import RowState
from diet_ray.memory.update import RowGradients
from tests.sets import assert_same, random_rows

ROWS, FIELDS, WIDTH, TASKS = 10, 2, 3, 2
SHAPE = FIELDS, WIDTH, TASKS
CUTS = [0, 3, 4, ROWS]  # of three servers


def start_of(first: int, end: int) -> RowState:
    return RowState(random_rows(ROWS, SHAPE).take(slice(first, end)), learns_deltas=True)


def gradients(rows: np.ndarray, seed: int) -> RowGradients:
    draw = np.random.default_rng(seed)
    return RowGradients(
        rows,
        draw.normal(size=(len(rows), FIELDS, WIDTH)).astype(np.float32),
        draw.normal(size=(len(rows), TASKS)).astype(np.float32),
    )


class Servers:
    """What several servers do, and one that holds everything, side by side."""

    def __init__(self, folder: str, cuts: list[int]) -> None:
        self.folder, self.ranges = folder, list(itertools.pairwise(cuts))
        self.states = [start_of(*both) for both in self.ranges]
        self.one = start_of(0, ROWS)
        self.step, self.files = 0, dict[str, str]()
        publish_step(folder, DurableStep(0, {}))

    def learn(self, rows: list[int]) -> None:
        self.step += 1
        found = gradients(np.array(rows, dtype=np.int64), self.step)
        self.one.adam(found, 0.1, 0.2)
        for state, (first, end) in zip(self.states, self.ranges, strict=True):
            low, high = np.searchsorted(found.rows, (first, end))
            own = found.take(slice(low, high))
            state.adam(RowGradients(own.rows - first, own.embeddings, own.labels), 0.1, 0.2)

    def save(self, *, whole: bool) -> None:
        self.files = {} if whole else dict(self.files)
        for state, (first, end) in zip(self.states, self.ranges, strict=True):
            changes = state.changes(whole=whole)
            self.files |= write_changes(self.folder, self.step, first, end, changes)
            state.saved()
        publish_step(self.folder, DurableStep(self.step, self.files))


def read_back(folder: str, step: int, first: int, end: int) -> RowState:
    state = start_of(first, end)
    for name, sha256 in sorted(read_step(folder, step).files.items()):
        changes = read_changes(folder, name, sha256, first, end)
        if changes is not None:
            state.apply(changes)
    return state


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, ROWS - 1)).map(sorted), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_any_chain_is_read_back_in_any_ranges(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[int], bool]]
) -> None:
    folder = str(tmp_path_factory.mktemp("chain"))
    servers = Servers(folder, CUTS)
    for rows, everything in steps:
        servers.learn(rows)
        servers.save(whole=everything)
    for first, end in itertools.combinations(range(ROWS + 1), 2):
        state = read_back(folder, servers.step, first, end)
        assert_same(state.take(slice(None)), servers.one.take(slice(first, end)))
    whole = read_back(folder, servers.step, 0, ROWS)
    for one in (whole, servers.one):  # moments and counts came along
        one.adam(gradients(np.arange(ROWS), 99), 0.1, 0.2)
    assert_same(whole.take(slice(None)), servers.one.take(slice(None)))


def names_in(folder: str) -> set[str]:
    return {path.name for path in Path(folder).glob("*.safetensors")}


def test_the_last_steps_are_kept_with_every_file_that_they_need(tmp_path: Path) -> None:
    """A chain keeps its first file for as long as a kept step begins there."""
    servers = Servers(str(tmp_path), [0, ROWS])
    held = {0: servers.one.take(slice(None))}
    for step in range(1, 8):
        servers.learn([step, ROWS - 1])
        held[step] = servers.one.take(slice(None))
        servers.save(whole=step == 4)
        kept = durable_steps(str(tmp_path))
        assert kept == list(range(step + 1))[-KEPT:]
        assert names_in(str(tmp_path)) == {
            name for one in kept for name in read_step(str(tmp_path), one).files
        }
        for one in kept:
            found = read_back(str(tmp_path), one, 0, ROWS)
            assert_same(found.take(slice(None)), held[one])
    by_step = {step: len(read_step(str(tmp_path), step).files) for step in (6, 7)}
    assert by_step == {6: 3, 7: 4}, "steps 4, 5, 6 and 7: the whole save began a new chain"


def test_files_of_a_step_that_never_became_durable_go(tmp_path: Path) -> None:
    servers = Servers(str(tmp_path), CUTS)
    servers.learn([1, 5])
    write_changes(str(tmp_path), 1, 0, 3, servers.states[0].changes(whole=False))
    assert durable_steps(str(tmp_path)) == [0]
    assert len(read_step(str(tmp_path), 0).files) == 0
    servers.learn([2])
    servers.save(whole=False)
    assert {name.split("-")[1] for name in names_in(str(tmp_path))} == {"000002"}


def test_a_range_without_changes_has_no_file(tmp_path: Path) -> None:
    servers = Servers(str(tmp_path), CUTS)
    servers.learn([3])
    servers.save(whole=False)
    assert names_in(str(tmp_path)) == {"changes-000001-000000000003-000000000004.safetensors"}
    ((name, sha256),) = read_step(str(tmp_path), 1).files.items()
    for first, end in ((0, 3), (4, ROWS)):
        assert read_changes(str(tmp_path), name, sha256, first, end) is None


def test_a_durable_step_costs_what_changed(tmp_path: Path) -> None:
    """Whatever the memory's size."""
    sizes = []
    for count in (100, 10_000):
        state = RowState(random_rows(count, SHAPE), learns_deltas=True)
        state.adam(gradients(np.array([7, 70]), 0), 0.1, 0.2)
        (name,) = write_changes(str(tmp_path), count, 0, count, state.changes(whole=False))
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] == sizes[1]


def test_labels_alone_are_saved_alone(tmp_path: Path) -> None:
    state, other = (RowState(random_rows(ROWS, SHAPE), learns_deltas=False) for _ in range(2))
    found = gradients(np.array([2]), 0)
    state.adam(RowGradients(found.rows, None, found.labels), 0.1, 0.2)
    written = write_changes(str(tmp_path), 1, 0, ROWS, state.changes(whole=True))
    ((name, sha256),) = written.items()
    changes = read_changes(str(tmp_path), name, sha256, 0, ROWS)
    assert changes is not None
    assert changes.deltas is None
    other.apply(changes)
    assert_same(other.take(slice(None)), state.take(slice(None)))


@pytest.mark.parametrize("norms", [(), (0.1 + 0.2, 1e-300)])
def test_a_step_tells_what_it_was_told(tmp_path: Path, norms: tuple[float, ...]) -> None:
    found = DurableStep(4, {}, norms, dropped=3)
    publish_step(str(tmp_path), found)
    assert read_step(str(tmp_path), 4) == found
    assert durable_steps(str(tmp_path)) == [4]
    assert durable_steps(str(tmp_path / "none")) == []


def flipped(path: Path, at: float) -> None:
    """One bit of a file, at that share of its bytes."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["step=000001.json", "changes-*.safetensors"])
def test_a_flipped_bit_is_refused_with_the_remedy(tmp_path: Path, name: str, at: float) -> None:
    servers = Servers(str(tmp_path), [0, ROWS])
    servers.learn([1, 5, 7])
    servers.save(whole=False)
    (path,) = tmp_path.glob(name)
    flipped(path, at)
    with pytest.raises(storage.StorageError, match=rf"{path.name}: .*remove the folder {tmp_path}"):
        read_back(str(tmp_path), 1, 0, ROWS)


def test_changed_numbers_of_a_step_are_refused(tmp_path: Path) -> None:
    publish_step(str(tmp_path), DurableStep(4, {}, (0.25,)))
    path = tmp_path / "step=000004.json"
    path.write_text(path.read_text().replace("0.25", "0.35"))
    with pytest.raises(storage.StorageError, match="not what its seal vouches for"):
        read_step(str(tmp_path), 4)
