"""What one meta-worker computes, against plain loops in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray import seeds
from diet_ray.distill.start import synthesise
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.worker import (
    MetaWorker,
    RealRows,
    RoundTask,
    ServedRows,
    Source,
    StoredRows,
)
from diet_ray.logs.blocks import Rows, read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.functional import FlatNetwork, flatten_parameters, row_losses
from diet_ray.models.registry import fresh_network
from diet_ray.training.reference import load_reference, reference_uri
from tests.distill.prepared import (
    LocalMemory,
    Prepared,
    embedded,
    network_of,
    row_gradients,
    run_config,
)
from tests.networks import small_network

STAGE, REAL, SYNTHETIC = 2, 60, 24


def real_rows(prepared: Prepared) -> Rows:
    return read_block(prepared.blocks, prepared.blocks.historical[STAGE - 1]).take(slice(0, REAL))


def synthetic_rows(prepared: Prepared) -> SyntheticRows:
    reference = load_reference(reference_uri(run_config(prepared.folder), STAGE))
    return synthesise(real_rows(prepared).take(slice(0, SYNTHETIC)), reference)


def sources(prepared: Prepared, folder: Path) -> dict[str, tuple[Source, int]]:
    rows = synthetic_rows(prepared)
    memory = LocalMemory(folder, rows)
    return {
        "real": (RealRows(real_rows(prepared)), REAL),
        "stored": (StoredRows(rows.embeddings, rows.labels), SYNTHETIC),
        "served": (ServedRows(memory, 0), SYNTHETIC),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("kind", ["real", "stored", "served"])
def test_gradients_and_alignments_are_those_of_single_rows(
    prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    config = run_config(prepared.folder)
    source, count = sources(prepared, tmp_path)[kind]
    reference = load_reference(reference_uri(config, STAGE))
    if kind == "real":
        embeddings, labels = embedded(reference, real_rows(prepared))
    else:
        rows = synthetic_rows(prepared)
        embeddings, labels = torch.tensor(rows.embeddings), torch.tensor(rows.labels).sigmoid()
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


@pytest.mark.parametrize("kind", ["real", "stored", "served"])
def test_synthetic_rows_are_trained_on_and_real_ones_judge(
    prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    """With two branches the training loss is another than the plain one."""
    inner = {"networks": [small_network("finalnet").model_dump()], "start": "fresh"}
    config = run_config(prepared.folder, distill={"inner": inner})
    source, count = sources(prepared, tmp_path)[kind]
    reference = load_reference(reference_uri(config, STAGE))
    dense = fresh_network(small_network("finalnet"), reference.models, 3, 2, 1)
    theta = flatten_parameters(dense)
    worker = MetaWorker(config)
    found = worker.summed_gradient(STAGE, source, theta.numpy(), 0, count)
    direction = found.astype(np.float32)
    along = worker.alignments(STAGE, source, theta.numpy(), direction, 0, count)

    embeddings, labels = source.slice(0, count, reference)
    dense.requires_grad_(True)
    losses = row_losses(dense(embeddings), labels) if kind == "real" else dense(embeddings, labels)
    single = [torch.autograd.grad(loss, dense.parameters(), retain_graph=True) for loss in losses]
    rows = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in single]).numpy()
    expected = rows.sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    slow = rows @ direction
    np.testing.assert_allclose(along, slow, rtol=0, atol=1e-5 * np.abs(slow).max())


def round_task(prepared: Prepared, memory: LocalMemory, active: np.ndarray) -> RoundTask:
    return RoundTask(STAGE, 0, real_rows(prepared), active, memory)  # type: ignore[arg-type]


def test_a_shard_is_the_meta_gradient_of_its_own_draw(prepared: Prepared, tmp_path: Path) -> None:
    config = run_config(prepared.folder)
    rows = synthetic_rows(prepared)
    memory, active = LocalMemory(tmp_path, rows), np.arange(1, SYNTHETIC, 2)
    loss = MetaWorker(config).meta_gradient(round_task(prepared, memory, active), 0, 1)
    found = memory.server._shards[1]

    path = ("meta", STAGE, 0, 0, 1)
    inner, draw = config.distill.inner, seeds.numpy_generator(config.seed, *path)
    steps = int(draw.integers(inner.window, inner.steps + 1))
    chosen = np.sort(draw.choice(REAL, config.distill.target_batch, replace=False))
    reference = load_reference(reference_uri(config, STAGE))
    expected = meta_gradient(
        FlatNetwork(reference.dense),
        torch.tensor(inner_start(config, STAGE, 0, 0, 1)),
        torch.tensor(rows.embeddings[active]),
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
    table = load_reference(reference_uri(config, STAGE)).table
    unit = table.standard_deviation()
    for step in range(40):
        losses.append(worker.meta_gradient(task, step, 0))
        memory.server.squared_norms(step, 1, unit)
        memory.server.commit(step, 1.0, outer.embedding_step * unit, outer.label_step)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.01
