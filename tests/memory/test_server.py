"""A memory server without Ray: what it holds, what it refuses, what it saves and writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diet_ray.memory.coordinator import start_steps
from diet_ray.memory.durable import DurableStep, durable_steps, publish_step
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import MemoryServer, StaleServerError
from diet_ray.memory.update import Learned, RowGradients, sum_shards
from tests.sets import assert_same, files_of, random_rows

ROWS, FIELDS, DIM, TASKS, PER_FILE = 10, 3, 2, 2, 4
NAMES = ("a", "b", "c")
EVERYTHING = np.arange(ROWS)


def synthetic_rows() -> SyntheticRows:
    return random_rows(ROWS, (FIELDS, DIM, TASKS))


def gradients(rows: list[int], seed: int) -> RowGradients:
    draw = np.random.default_rng(seed)
    return RowGradients(
        np.array(rows, dtype=np.int64),
        draw.normal(size=(len(rows), FIELDS, DIM)).astype(np.float32),
        draw.normal(size=(len(rows), TASKS)).astype(np.float32),
    )


@pytest.fixture
def files(tmp_path: Path) -> RowFiles:
    """A start of three files: rows 0..4, 4..8 and 8..10."""
    start_steps(str(tmp_path / "memory"))
    return files_of(str(tmp_path / "start"), synthetic_rows(), NAMES, PER_FILE)


def server_of(
    files: RowFiles, numbers: range = range(3), learns_deltas: bool = True, step: int = 0
) -> MemoryServer:
    """A server that was just started, at a durable step."""
    found = MemoryServer(folder_of(files), files, numbers, learns_deltas)
    found.restore(step)
    return found


def folder_of(files: RowFiles) -> str:
    return str(Path(files.uri).parent / "memory")


def advance(server: MemoryServer, step: int, found: RowGradients) -> None:
    server.push(step, 0, found)
    server.squared_norms(step, 1, 1.0)
    server.commit(step, 1.0, 0.1, 0.1)


def test_a_server_gives_the_rows_of_its_files(files: RowFiles) -> None:
    chosen = np.array([4, 7, 8])
    assert_same(server_of(files, range(1, 3)).pull(0, chosen), synthetic_rows().take(chosen))


def test_a_step_applies_the_sum_of_its_shards(files: RowFiles) -> None:
    server, start = server_of(files), synthetic_rows()
    labels, deltas = Learned.start(start.labels), Learned.start(start.dense_deltas())
    shards = {0: gradients([1, 5], 1), 1: gradients([5, 9], 2)}
    for shard in (1, 0):
        server.push(0, shard, shards[shard])
    norms = server.squared_norms(0, 2, unit=0.5)
    summed = sum_shards(shards)
    slow = [
        (0.5 * e.ravel()) @ (0.5 * e.ravel()) + y @ y
        for e, y in zip(summed.embeddings, summed.labels, strict=True)
    ]
    np.testing.assert_allclose(norms, slow, rtol=1e-14)
    server.commit(0, 0.25, embedding_step=0.1, label_step=0.2)
    deltas.adam(summed.rows, summed.embeddings * 0.25, 0.1)
    labels.adam(summed.rows, summed.labels * 0.25, 0.2)
    found = server.pull(1, EVERYTHING)
    assert (found.dense_deltas() == deltas.values).all()
    assert (found.labels == labels.values).all()
    assert np.array_equal(found.anchors, start.anchors)


def test_a_server_of_labels_alone_gives_no_row_a_delta(files: RowFiles) -> None:
    server, start, found = (
        server_of(files, learns_deltas=False),
        synthetic_rows(),
        gradients([1], 1),
    )
    advance(server, 0, RowGradients(found.rows, None, found.labels))
    rows = server.pull(1, EVERYTHING)
    assert np.array_equal(rows.moved, start.moved)
    assert np.array_equal(rows.deltas, start.deltas)
    assert np.flatnonzero((rows.labels != start.labels).any(axis=1)).tolist() == [1]


def test_a_repeated_push_replaces_the_first(files: RowFiles) -> None:
    once, twice = server_of(files), server_of(files)
    twice.push(0, 0, gradients([2, 3, 4], 7))
    for server in (once, twice):
        advance(server, 0, gradients([1, 5], 1))
    assert_same(twice.pull(1, EVERYTHING), once.pull(1, EVERYTHING))


@pytest.mark.parametrize("step", [1, 7])
def test_another_step_is_refused(files: RowFiles, step: int) -> None:
    server = server_of(files)
    for call in (
        lambda: server.pull(step, np.array([0])),
        lambda: server.push(step, 0, gradients([0], 0)),
        lambda: server.squared_norms(step, 1, 1.0),
        lambda: server.commit(step, 1.0, 0.1, 0.1),
        lambda: server.save(step, whole=False),
        lambda: server.write(step, files),
        lambda: server.holds(step, synthetic_rows().anchors),
    ):
        with pytest.raises(StaleServerError, match=f"step {step}, this server is at 0"):
            call()


def test_a_server_that_was_just_started_knows_no_step(files: RowFiles) -> None:
    server = MemoryServer(folder_of(files), files, range(3), learns_deltas=True)
    with pytest.raises(StaleServerError, match="asked about step 0, this server is at None"):
        server.pull(0, np.array([0]))


def test_what_an_earlier_step_left_behind_is_refused_after_a_commit(files: RowFiles) -> None:
    server = server_of(files)
    advance(server, 0, gradients([1], 1))
    with pytest.raises(StaleServerError):
        server.push(0, 1, gradients([1], 2))
    with pytest.raises(StaleServerError, match="0 of 1 shards"):
        server.squared_norms(1, 1, 1.0)


def test_a_commit_waits_for_every_shard(files: RowFiles) -> None:
    """A server that was restarted at the very step of a commit has lost what was pushed."""
    server = server_of(files)
    server.push(0, 1, gradients([1], 1))
    with pytest.raises(StaleServerError, match="1 of 2 shards"):
        server.squared_norms(0, 2, 1.0)
    with pytest.raises(StaleServerError, match="not summed"):
        server.commit(0, 1.0, 0.1, 0.1)


def test_a_server_without_a_touched_row_keeps_step(files: RowFiles) -> None:
    server = server_of(files, range(1))
    server.push(0, 0, gradients([], 1))
    assert len(server.squared_norms(0, 1, 1.0)) == 0
    server.commit(0, 1.0, 0.1, 0.1)
    assert server.save(1, whole=False).files == {}
    first = synthetic_rows().take(slice(0, PER_FILE))
    assert_same(server.pull(1, np.arange(PER_FILE)), first)


def test_a_save_holds_what_changed_since_the_last(files: RowFiles) -> None:
    server = server_of(files)
    counts = []
    for step, (rows, whole) in enumerate([([1, 2], False), ([2, 9], False), ([5], True)]):
        advance(server, step, gradients(rows, step))
        saved = server.save(step + 1, whole=whole)
        counts.append((saved.rows, saved.touched))
    assert counts == [(2, 2), (2, 3), (4, 4)]


def test_a_restored_server_goes_on_where_the_saved_one_was(files: RowFiles) -> None:
    """Whichever files it holds; a chain of two saves."""
    server, saved = server_of(files), dict[str, str]()
    for step, rows in enumerate([[1, 6], [6, 9]]):
        advance(server, step, gradients(rows, step))
        saved |= server.save(step + 1, whole=False).files
        publish_step(folder_of(files), DurableStep(step + 1, dict(saved)))
    others = [server_of(files, numbers, step=2) for numbers in (range(2), range(2, 3))]
    advance(server, 2, gradients([0, 6, 9], 5))
    found = []
    for other, (first, end) in zip(others, ((0, 8), (8, ROWS)), strict=True):
        all_rows = gradients([0, 6, 9], 5)
        advance(other, 2, all_rows.take(slice(*np.searchsorted(all_rows.rows, (first, end)))))
        found.append(other.pull(3, np.arange(first, end)))
    assert_same(SyntheticRows.concatenate(found), server.pull(3, EVERYTHING))


def test_only_a_step_with_a_manifest_is_durable(files: RowFiles) -> None:
    server = server_of(files)
    advance(server, 0, gradients([1], 1))
    server.save(1, whole=False)
    assert durable_steps(folder_of(files)) == [0]
    assert_same(server_of(files).pull(0, EVERYTHING), synthetic_rows())


def test_restoring_forgets_what_was_learned_and_pushed(files: RowFiles) -> None:
    server = server_of(files)
    advance(server, 0, gradients([1], 1))
    server.push(1, 0, gradients([1], 1))
    server.restore(0)
    with pytest.raises(StaleServerError, match="0 of 1 shards"):
        server.squared_norms(0, 1, 1.0)
    assert_same(server.pull(0, EVERYTHING), synthetic_rows())


def test_servers_write_the_files_that_one_would(files: RowFiles, tmp_path: Path) -> None:
    all_of_it = gradients([0, 3, 4, 8], 3)
    target = replace(files, uri=str(tmp_path / "end"), delta_type="float16", checksums=())
    whole = server_of(files)
    advance(whole, 0, all_of_it)
    expected = whole.write(1, target)
    assert sorted(expected) == [0, 1, 2]

    found: dict[int, str] = {}
    for numbers in (range(2, 3), range(2)):
        server = server_of(files, numbers)
        ends = files.bounds(numbers[0])[0], files.bounds(numbers[-1])[1]
        own = all_of_it.take(slice(*np.searchsorted(all_of_it.rows, ends)))
        advance(server, 0, own)
        found |= server.write(1, replace(target, uri=str(tmp_path / "parts")))
    assert found == expected
    written = replace(target, checksums=tuple(expected[number] for number in range(3)))
    rows = whole.pull(1, EVERYTHING)
    halves = replace(rows, deltas=rows.deltas.astype(np.float16).astype(np.float32))
    assert_same(written.slice(0, ROWS), halves)


def test_a_server_tells_which_ids_its_anchors_have(files: RowFiles) -> None:
    """By field: an id of one field says nothing of another's."""
    anchors = synthetic_rows().anchors[4:8]
    asked = np.random.default_rng(1).integers(0, 100, (200, FIELDS))
    asked[:4] = anchors[:, [1, 2, 0]]
    found = server_of(files, range(1, 2)).holds(0, asked)
    expected = [
        [number in anchors[:, field] for field, number in enumerate(row)] for row in asked.tolist()
    ]
    assert found.tolist() == expected
    assert found.any()
