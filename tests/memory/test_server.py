"""A memory server without Ray: what it holds, what it refuses, what it saves."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from diet_ray.memory.coordinator import start_state
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import (
    MemoryServer,
    StaleServerError,
    durable_steps,
    read_rows,
    step_uri,
    write_rows,
)
from diet_ray.memory.update import Learned, RowGradients, sum_shards

ROWS, FIELDS, DIM, TASKS = 10, 3, 2, 2


def synthetic_rows(seed: int = 0) -> SyntheticRows:
    draw = np.random.default_rng(seed)
    return SyntheticRows(
        embeddings=draw.normal(size=(ROWS, FIELDS, DIM)).astype(np.float32),
        labels=draw.normal(size=(ROWS, TASKS)).astype(np.float32),
        stages=np.ones(ROWS, dtype=np.int32),
        source_rows=np.arange(ROWS),
        anchors=np.ones((ROWS, FIELDS), dtype=np.int32),
    )


def gradients(rows: list[int], seed: int) -> RowGradients:
    draw = np.random.default_rng(seed)
    return RowGradients(
        np.array(rows, dtype=np.int64),
        draw.normal(size=(len(rows), FIELDS, DIM)).astype(np.float32),
        draw.normal(size=(len(rows), TASKS)).astype(np.float32),
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    start_state(str(tmp_path), synthetic_rows())
    return str(tmp_path)


def test_a_server_gives_the_rows_of_its_range(folder: str) -> None:
    rows = synthetic_rows()
    embeddings, labels = MemoryServer(folder, 4, 9).pull(0, np.array([4, 7, 8]))
    assert (embeddings == rows.embeddings[[4, 7, 8]]).all()
    assert (labels == rows.labels[[4, 7, 8]]).all()


def test_a_step_applies_the_sum_of_its_shards(folder: str) -> None:
    server, expected = MemoryServer(folder, 0, ROWS), Learned.start(synthetic_rows().embeddings)
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
    expected.adam(summed.rows, summed.embeddings * 0.25, 0.1)
    assert (server.pull(1, np.arange(ROWS))[0] == expected.values).all()


def test_a_repeated_push_replaces_the_first(folder: str) -> None:
    once, twice = MemoryServer(folder, 0, ROWS), MemoryServer(folder, 0, ROWS)
    twice.push(0, 0, gradients([2, 3, 4], 7))
    for server in (once, twice):
        server.push(0, 0, gradients([1, 5], 1))
        server.squared_norms(0, 1, 1.0)
        server.commit(0, 1.0, 0.1, 0.1)
    everything = np.arange(ROWS)
    for one, two in zip(once.pull(1, everything), twice.pull(1, everything), strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("step", [1, 7])
def test_another_step_is_refused(folder: str, step: int) -> None:
    server = MemoryServer(folder, 0, ROWS)
    for call in (
        lambda: server.pull(step, np.array([0])),
        lambda: server.push(step, 0, gradients([0], 0)),
        lambda: server.squared_norms(step, 1, 1.0),
        lambda: server.commit(step, 1.0, 0.1, 0.1),
        lambda: server.save(step),
    ):
        with pytest.raises(StaleServerError, match=f"step {step}, this server is at 0"):
            call()


def test_what_an_earlier_step_left_behind_is_refused_after_a_commit(folder: str) -> None:
    server = MemoryServer(folder, 0, ROWS)
    server.push(0, 0, gradients([1], 1))
    server.squared_norms(0, 1, 1.0)
    server.commit(0, 1.0, 0.1, 0.1)
    with pytest.raises(StaleServerError):
        server.push(0, 1, gradients([1], 2))
    with pytest.raises(StaleServerError, match="0 of 1 shards"):
        server.squared_norms(1, 1, 1.0)


def test_a_commit_waits_for_every_shard(folder: str) -> None:
    """A server that was restarted at the very step of a commit has lost what was pushed."""
    server = MemoryServer(folder, 0, ROWS)
    server.push(0, 1, gradients([1], 1))
    with pytest.raises(StaleServerError, match="1 of 2 shards"):
        server.squared_norms(0, 2, 1.0)
    with pytest.raises(StaleServerError, match="not summed"):
        server.commit(0, 1.0, 0.1, 0.1)


def test_a_server_without_a_touched_row_keeps_step(folder: str) -> None:
    server = MemoryServer(folder, 0, 5)
    server.push(0, 0, gradients([], 1))
    assert len(server.squared_norms(0, 1, 1.0)) == 0
    server.commit(0, 1.0, 0.1, 0.1)
    assert (server.pull(1, np.arange(5))[0] == synthetic_rows().embeddings[:5]).all()


def test_saved_ranges_are_read_in_any_other_ranges(folder: str) -> None:
    learned = {
        "embeddings": Learned.start(synthetic_rows(3).embeddings),
        "labels": Learned.start(synthetic_rows(3).labels),
    }
    learned["embeddings"].adam(np.array([2, 8]), gradients([2, 8], 1).embeddings, 0.1)
    cuts = [0, 3, 4, ROWS]
    names = []
    for low, high in itertools.pairwise(cuts):
        part = {
            key: Learned(
                whole.values[low:high],
                whole.first_moment[low:high],
                whole.second_moment[low:high],
                whole.steps[low:high],
            )
            for key, whole in learned.items()
        }
        names.append(write_rows(folder, 5, low, part))
    (Path(step_uri(folder, 5)) / "manifest.json").write_text(
        '{"files": [' + ", ".join(f'"{name}"' for name in names) + "]}"
    )
    for first in range(ROWS):
        for end in range(first + 1, ROWS + 1):
            found = read_rows(folder, 5, first, end)
            for key, whole in learned.items():
                for array in ("values", "first_moment", "second_moment", "steps"):
                    expected = getattr(whole, array)[first:end]
                    assert (getattr(found[key], array) == expected).all(), (key, array)


def test_only_a_step_with_a_manifest_is_durable(folder: str) -> None:
    server = MemoryServer(folder, 0, ROWS)
    server.save(0)
    server.push(0, 0, gradients([1], 1))
    server.squared_norms(0, 1, 1.0)
    server.commit(0, 1.0, 0.1, 0.1)
    server.save(1)
    assert durable_steps(folder) == [0]
    restarted = MemoryServer(folder, 0, ROWS)
    assert (restarted.pull(0, np.arange(ROWS))[1] == synthetic_rows().labels).all()


def test_restoring_forgets_what_was_pushed(folder: str) -> None:
    server = MemoryServer(folder, 0, ROWS)
    server.push(0, 0, gradients([1], 1))
    server.restore(0)
    with pytest.raises(StaleServerError, match="0 of 1 shards"):
        server.squared_norms(0, 1, 1.0)
