"""What one meta-worker computes, against plain loops in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diet_ray import seeds
from diet_ray.config import RunConfig
from diet_ray.distill import sources
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.distill.positions import Positions
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.sources import BlockRows, CarriedRows, ServedRows, Source
from diet_ray.distill.start import StageModels, carried_over, synthesise
from diet_ray.distill.worker import MetaWorker, RoundTask, Targets, shard_draw, unique_rows
from diet_ray.logs.blocks import Rows, read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.functional import FlatNetwork, flatten_parameters, row_losses
from diet_ray.models.registry import fresh_network
from tests.distill.prepared import (
    LocalMemory,
    Prepared,
    embedded,
    network_of,
    phi,
    row_gradients,
    run_config,
)
from tests.networks import small_network
from tests.sets import files_of

STAGE, REAL, SYNTHETIC = 2, 60, 24


def real_rows(prepared: Prepared) -> Rows:
    """From the border between two fragments."""
    block = read_block(prepared.blocks, prepared.blocks.historical[STAGE - 1])
    return block.take(slice(200 - REAL // 2, 200 + REAL // 2))


def synthetic_rows(prepared: Prepared) -> SyntheticRows:
    """Every third row has learned a delta."""
    reference = phi(run_config(prepared.folder), STAGE)
    rows = synthesise(real_rows(prepared).take(slice(0, SYNTHETIC)), reference)
    moved = np.arange(SYNTHETIC) % 3 == 0
    draw, shape = np.random.default_rng(4), (int(moved.sum()), *rows.deltas.shape[1:])
    return replace(rows, moved=moved, deltas=draw.normal(0, 0.02, shape).astype(np.float32))


def source_of(prepared: Prepared, folder: Path, kind: str) -> tuple[Source, int]:
    if kind == "real":
        block = prepared.blocks.historical[STAGE - 1]
        return BlockRows(prepared.blocks, block, real_rows(prepared).row_ids), REAL
    rows = synthetic_rows(prepared)
    if kind == "carried":
        files = files_of(str(folder), rows, prepared.blocks.fields, rows_per_file=10)
        return CarriedRows(files), SYNTHETIC
    return ServedRows(LocalMemory(folder, rows), 0), SYNTHETIC  # type: ignore[arg-type]


def expected_rows(config: RunConfig, prepared: Prepared, kind: str) -> tuple[Tensor, Tensor]:
    """Embeddings and labels in [0, 1] of a source's rows."""
    reference = phi(config, STAGE)
    if kind == "real":
        return embedded(reference, real_rows(prepared))
    rows = synthetic_rows(prepared)
    if kind == "carried":
        rows = carried_over(rows, StageModels(config, STAGE, lambda t: phi(config, t)))
    return torch.tensor(rows.embeddings(reference.table)), torch.tensor(rows.labels).sigmoid()


@pytest.mark.parametrize("kind", ["real", "carried", "served"])
def test_gradients_and_alignments_are_those_of_single_rows(
    prepared: Prepared, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(prepared.folder)
    monkeypatch.setattr(sources, "BATCH_ROWS", 7)
    source, count = source_of(prepared, tmp_path, kind)
    reference = phi(config, STAGE)
    embeddings, labels = expected_rows(config, prepared, kind)
    theta = inner_start(config, STAGE, 0)
    single = row_gradients(network_of(reference), theta, embeddings, labels)

    worker, cut = MetaWorker(config), count // 3
    parts = [
        worker.summed_gradient(STAGE, source, theta, first, end)
        for first, end in ((0, cut), (cut, count))
    ]
    expected = single.sum(axis=0)
    np.testing.assert_allclose(sum(parts), expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    direction = np.random.default_rng(0).normal(size=theta.shape).astype(np.float32)
    found = np.concatenate(
        [
            worker.alignments(STAGE, source, theta, direction, first, end)
            for first, end in ((0, cut), (cut, count))
        ]
    )
    slow = single @ direction.astype(np.float64)
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-5 * np.abs(slow).max())


@pytest.mark.parametrize("kind", ["real", "carried", "served"])
def test_synthetic_rows_are_trained_on_and_real_ones_judge(
    prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    """With two branches the training loss is another than the plain one."""
    inner = {"networks": [small_network("finalnet").model_dump()], "start": "fresh"}
    config = run_config(prepared.folder, distill={"inner": inner})
    source, count = source_of(prepared, tmp_path, kind)
    reference = phi(config, STAGE)
    dense = fresh_network(small_network("finalnet"), reference.models, 3, 2, 1)
    theta = flatten_parameters(dense)
    worker = MetaWorker(config)
    found = worker.summed_gradient(STAGE, source, theta.numpy(), 0, count)
    direction = found.astype(np.float32)
    along = worker.alignments(STAGE, source, theta.numpy(), direction, 0, count)

    embeddings, labels = expected_rows(config, prepared, kind)
    dense.requires_grad_(True)
    losses = row_losses(dense(embeddings), labels) if kind == "real" else dense(embeddings, labels)
    single = [torch.autograd.grad(loss, dense.parameters(), retain_graph=True) for loss in losses]
    rows = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in single]).numpy()
    expected = rows.sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    slow = rows @ direction
    np.testing.assert_allclose(along, slow, rtol=0, atol=1e-5 * np.abs(slow).max())


def round_task(prepared: Prepared, memory: LocalMemory, active: Positions) -> RoundTask:
    """Every hard target is at hand, not only those that shards draw."""
    rows = real_rows(prepared)
    targets = Targets(REAL, np.arange(REAL), rows.ids.astype(np.int32), rows.labels.astype("u1"))
    return RoundTask(STAGE, 0, targets, active, memory)  # type: ignore[arg-type]


def test_a_shard_is_the_meta_gradient_of_its_own_draw(prepared: Prepared, tmp_path: Path) -> None:
    config = run_config(prepared.folder)
    rows = synthetic_rows(prepared)
    memory, active = LocalMemory(tmp_path, rows), np.arange(1, SYNTHETIC, 2)
    loss = MetaWorker(config).meta_gradient(round_task(prepared, memory, active), 0, 1)
    found = memory.server._shards[1]

    path, inner = ("meta", STAGE, 0, 0, 1), config.distill.inner
    draw = seeds.numpy_generator(config.seed, *path)
    steps = int(draw.integers(inner.window, inner.steps + 1))
    chosen = np.sort(draw.choice(REAL, config.distill.target_batch, replace=False))
    assert shard_draw(config, REAL, *path[1:])[0] == steps
    reference = phi(config, STAGE)
    expected = meta_gradient(
        FlatNetwork(reference.dense),
        torch.tensor(inner_start(config, STAGE, 0, 0, 1)),
        torch.tensor(rows.embeddings(reference.table)[active]),
        torch.tensor(rows.labels[active]),
        inner_batches(
            len(active),
            inner.batch_size,
            steps,
            seeds.torch_generator(config.seed, *path, "batches"),
        ),
        *embedded(reference, real_rows(prepared).take(chosen)),
        inner,
    )
    assert loss == expected.outer_loss
    assert found.rows.tolist() == active[expected.touched.numpy()].tolist()
    assert found.embeddings.tobytes() == expected.embeddings[expected.touched].numpy().tobytes()
    assert found.labels.tobytes() == expected.labels[expected.touched].numpy().tobytes()


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30))
def test_only_the_rows_of_the_batches_are_pulled(rows: int, batch_size: int, steps: int) -> None:
    batches = inner_batches(rows, batch_size, steps, torch.Generator().manual_seed(rows))
    used, places = unique_rows(batches)
    assert used.tolist() == sorted({int(row) for batch in batches for row in batch})
    for place, batch in zip(places, batches, strict=True):
        assert used[place.numpy()].tolist() == batch.tolist()


def test_labels_alone_are_learned_as_with_embeddings(prepared: Prepared, tmp_path: Path) -> None:
    """And no gradient of an embedding is pushed."""
    memory = LocalMemory(tmp_path, synthetic_rows(prepared))
    task, found = round_task(prepared, memory, range(SYNTHETIC)), []
    for embedding_step in (0.02, 0.0):
        outer = {"embedding_step": embedding_step}
        worker = MetaWorker(run_config(prepared.folder, distill={"outer": outer}))
        worker.meta_gradient(task, 0, 0)
        found.append(memory.server._shards[0])
    assert found[0].embeddings is not None
    assert found[1].embeddings is None
    assert found[1].rows.tolist() == found[0].rows.tolist()
    assert found[1].labels.tobytes() == found[0].labels.tobytes()


def test_shards_train_the_networks_by_turns(prepared: Prepared, tmp_path: Path) -> None:
    """Each as if its network were the only one."""
    names, memory = ("wukong", "finalmlp"), LocalMemory(tmp_path, synthetic_rows(prepared))
    task = round_task(prepared, memory, np.arange(SYNTHETIC))

    def shards(*names: str) -> list[tuple[float, bytes]]:
        networks = [small_network(name).model_dump() for name in names]
        inner = {"networks": networks, "start": "fresh"}
        worker, found = MetaWorker(run_config(prepared.folder, distill={"inner": inner})), []
        for shard in range(3):
            loss = worker.meta_gradient(task, 0, shard)
            found.append((loss, memory.server._shards[shard].embeddings.tobytes()))
        return found

    first, second = (shards(name) for name in names)
    assert shards(*names) == [first[0], second[1], first[2]]
    assert not set(first) & set(second)


def test_a_shard_repeated_by_another_worker_is_the_same_bits(
    prepared: Prepared, tmp_path: Path
) -> None:
    config, memory = (
        run_config(prepared.folder),
        LocalMemory(tmp_path, synthetic_rows(prepared)),
    )
    task, found = round_task(prepared, memory, np.arange(SYNTHETIC)), []
    for shard in (0, 1, 0):
        loss = MetaWorker(config).meta_gradient(task, 0, shard)
        pushed = memory.server._shards[shard]
        found.append((loss, pushed.embeddings.tobytes(), pushed.labels.tobytes()))
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_the_outer_loss_falls(prepared: Prepared, tmp_path: Path) -> None:
    """Over 40 steps of one round, from the previous reference, averaged over ten."""
    config = run_config(
        prepared.folder, distill={"target_batch": REAL, "inner": {"learning_rate": 0.02}}
    )
    memory, worker = LocalMemory(tmp_path, synthetic_rows(prepared)), MetaWorker(config)
    task, outer, losses = (
        round_task(prepared, memory, np.arange(SYNTHETIC)),
        config.distill.outer,
        [],
    )
    unit = phi(config, STAGE).table.standard_deviation()
    for step in range(40):
        losses.append(worker.meta_gradient(task, step, 0))
        memory.server.squared_norms(step, 1, unit)
        memory.server.commit(step, 1.0, outer.embedding_step * unit, outer.label_step)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.01
