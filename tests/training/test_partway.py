"""What is kept within a block: when it is written, whose it is, and that nothing is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray import storage
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training import partway as module
from diet_ray.training.model import Epoch, Recommender
from diet_ray.training.partway import Partway
from tests.made import made_rows, small_config

SIZES = {"a": 9, "b": 8}
ROWS, BATCH = 160, 16
AT_ONCE, NEVER = 1e-9, 60.0  # minutes
MADE_FROM = {"seed": 1}
STATE = "partway.safetensors"


def fresh() -> tuple[Recommender, Epoch]:
    config = small_config("unused")
    table = EmbeddingTable(SIZES, config.models.embedding_dim, 0.1, seed=1)
    model = Recommender(
        table, fresh_network(config.reference.network, config.models, len(SIZES), 2, 1)
    )
    return model, Epoch(model, 0.02, parts=2)


def train(epoch: Epoch, first: int, end: int) -> None:
    rows = made_rows(ROWS, SIZES, 2, seed=0)
    for start in range(first, end, BATCH):
        epoch.step(rows.take(slice(start, start + BATCH)))


def test_an_epoch_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model, epoch = fresh()
    train(epoch, 0, ROWS)
    loss = epoch.finish()
    _, killed = fresh()
    train(killed, 0, ROWS // 2)
    Partway(str(tmp_path), MADE_FROM, AT_ONCE).save_if_due(killed)

    other, resumed = fresh()
    Partway(str(tmp_path), MADE_FROM, AT_ONCE).resume(resumed)
    assert resumed.rows == ROWS // 2
    train(resumed, resumed.rows, ROWS)
    assert resumed.finish() == loss
    for found, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_nothing_is_written_before_its_time(tmp_path: Path) -> None:
    _, epoch = fresh()
    train(epoch, 0, BATCH)
    Partway(str(tmp_path), MADE_FROM, NEVER).save_if_due(epoch)
    assert not list(tmp_path.iterdir())


def test_it_is_written_once_for_a_node_of_the_training_that_will_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.0)
    leaving: set[str] = set()
    monkeypatch.setattr(module, "leaving_nodes", lambda: frozenset(leaving))
    _, epoch = fresh()
    train(epoch, 0, BATCH)
    partway, path = Partway(str(tmp_path), MADE_FROM, NEVER, frozenset("ab")), tmp_path / STATE

    def written() -> bool:
        partway.save_if_due(epoch)
        found = path.exists()
        path.unlink(missing_ok=True)
        return found

    assert not written()
    leaving.add("another")
    assert not written()
    leaving.add("a")
    assert written()
    assert not written()
    leaving.add("b")
    assert written()
    assert not written()


def test_looks_for_nodes_that_leave_are_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "leaving_nodes", lambda: pytest.fail("asked"))
    _, epoch = fresh()
    Partway(str(tmp_path), MADE_FROM, NEVER, frozenset("a")).save_if_due(epoch)


def test_anothers_state_is_not_taken_up(tmp_path: Path) -> None:
    _, epoch = fresh()
    train(epoch, 0, BATCH)
    Partway(str(tmp_path), {"seed": 2}, AT_ONCE).save_if_due(epoch)
    _, own = fresh()
    before = {name: array.copy() for name, array in own.state().items()}
    Partway(str(tmp_path), MADE_FROM, AT_ONCE).resume(own)
    assert own.rows == 0
    assert all(np.array_equal(array, before[name]) for name, array in own.state().items())


def test_a_damaged_state_is_named_and_a_done_one_removed(tmp_path: Path) -> None:
    _, epoch = fresh()
    train(epoch, 0, BATCH)
    partway = Partway(str(tmp_path), MADE_FROM, AT_ONCE)
    partway.save_if_due(epoch)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(storage.StorageError, match=r"partway\.safetensors: damaged tensors"):
        partway.resume(epoch)
    partway.remove()
    partway.save_if_due(epoch)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(storage.StorageError, match=r"partway\.safetensors: damaged tensors, which"):
        partway.resume(epoch)
    partway.remove()
    assert not path.exists()
