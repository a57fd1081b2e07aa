"""The training epoch: its gradients over stripes, its steps, its loss; and prediction."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from diet_ray.config import MMoEConfig, ModelsConfig
from diet_ray.logs.blocks import Rows
from diet_ray.logs.sources.synthetic import Synthetic
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.functional import row_losses
from diet_ray.models.registry import fresh_network
from diet_ray.training import model as model_module
from diet_ray.training.metrics import measure
from diet_ray.training.model import Recommender, predict, train_epoch
from tests.made import made_rows, small_config
from tests.networks import SMALL_NETWORKS, small_network

SIZES = {"a": 9, "b": 8, "c": 7}
TASKS = 2


def recommender() -> Recommender:
    config = small_config("unused")
    table = EmbeddingTable(SIZES, config.models.embedding_dim, 0.1, seed=1)
    dense = fresh_network(config.reference.network, config.models, len(SIZES), TASKS, 1)
    return Recommender(table, dense).double()


def rows(count: int) -> Rows:
    """Labels in float64: with float32 ones torch rounds the gradient to float32."""
    made = made_rows(count, SIZES, TASKS, seed=0)
    return replace(made, labels=made.labels.astype(np.float64))


def batches(count: int, size: int) -> list[Rows]:
    whole = rows(count)
    return [whole.take(slice(start, start + size)) for start in range(0, count, size)]


def mean_loss(model: Recommender, batch: Rows) -> Tensor:
    return row_losses(model(torch.from_numpy(batch.ids)), torch.from_numpy(batch.labels)).mean()


def gradients(model: Recommender, batch: Rows, rank: int = 0, workers: int = 1) -> list[Tensor]:
    """What one worker's backward pass leaves behind."""
    own = copy.deepcopy(model)
    train_epoch(own, [batch], 0.01, rank=rank, world_size=workers)
    return [p.grad for p in own.parameters() if p.grad is not None]


@pytest.mark.parametrize(("count", "workers"), [(32, 1), (32, 2), (33, 2), (31, 4), (2, 3)])
def test_the_workers_mean_gradient_is_that_of_the_whole_batch(count: int, workers: int) -> None:
    model, batch = recommender(), rows(count)
    parts = [gradients(model, batch, rank, workers) for rank in range(workers)]
    means = [torch.stack(stripes).mean(dim=0) for stripes in zip(*parts, strict=True)]
    expected = torch.autograd.grad(mean_loss(model, batch), list(model.parameters()))
    for found, true in zip(means, expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-12, atol=1e-14)


def test_an_epoch_equals_a_plain_loop() -> None:
    model, plain, counted = recommender(), recommender(), []
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.02)
    loss_sum = 0.0
    for batch in batches(75, 20):
        optimizer.zero_grad()
        loss = mean_loss(plain, batch)
        loss.backward()
        optimizer.step()
        loss_sum += float(loss.detach()) * len(batch)
    found = train_epoch(
        model, batches(75, 20), 0.02, after_batch=lambda rows, loss: counted.append((rows, loss))
    )
    assert found == pytest.approx(loss_sum / 75, rel=1e-12)
    assert [rows for rows, _ in counted] == [20, 20, 20, 15]
    assert sum(rows * loss for rows, loss in counted) == pytest.approx(loss_sum, rel=1e-12)
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


def test_what_is_frozen_stays() -> None:
    model = recommender()
    model.table.requires_grad_(False)
    before = model.table.weight.clone()
    train_epoch(model, batches(40, 20), 0.02)
    assert torch.equal(model.table.weight, before)


def test_an_epoch_lowers_the_loss() -> None:
    model, data = recommender(), batches(600, 20)
    first = train_epoch(model, data, 0.02)
    assert train_epoch(model, data, 0.02) < first - 0.03


def test_prediction_is_the_same_in_any_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = recommender(), rows(50).ids
    whole = predict(model, ids)
    monkeypatch.setattr(model_module, "PREDICTION_BATCH", 7)
    np.testing.assert_allclose(predict(model, ids), whole, rtol=1e-12)
    assert whole.shape == (50, TASKS)


class Noisy(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K), with statistics of the rows and with dropout."""

    def __init__(self) -> None:
        super().__init__()
        width = len(SIZES) * 4
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.5)
        self.linear = nn.Linear(width, TASKS)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.linear(self.dropout(self.norm(embeddings.flatten(1))))
        return logits if labels is None else row_losses(logits, labels)


def test_a_prediction_depends_on_its_row_alone() -> None:
    """Statistics are those of the training, nothing is dropped, and training goes on after it."""
    model = Recommender(EmbeddingTable(SIZES, 4, 1.0, seed=1), Noisy()).double()
    train_epoch(model, batches(60, 20), 0.02)
    before, ids = copy.deepcopy(model.state_dict()), rows(50).ids
    network = model.dense
    normed = model.table(torch.from_numpy(ids)).flatten(1) - network.norm.running_mean
    normed = normed / (network.norm.running_var + network.norm.eps).sqrt() * network.norm.weight
    expected = network.linear(normed + network.norm.bias).detach().numpy()
    np.testing.assert_allclose(predict(model, ids), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(predict(model, ids[7:8]), expected[7:8], rtol=1e-12, atol=1e-12)
    assert model.training
    assert network.dropout.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.fixture(scope="module")
def synthetic_log() -> Rows:
    """A still log of few users and items, its values numbered as they come."""
    shape = {"rows": 20_000, "users": 200, "items": 100, "drift": 0}
    source = Synthetic(small_config("unused", logs={"synthetic": shape}).logs, seed=0)
    columns = source.rows(np.arange(20_000)).to_pandas()
    ids = np.stack([pd.factorize(columns[name])[0] + 1 for name in source.fields], axis=1)
    labels = columns[["click", "long_view"]].to_numpy(np.float32).copy()
    return Rows(np.arange(len(ids)), ids.astype(np.int64), labels)


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_every_network_learns_the_synthetic_log(name: str, synthetic_log: Rows) -> None:
    """One epoch, judged on the last fifth of the rows."""
    units = {"experts": 2, "expert_units": [8], "gate_units": [8], "tower_units": [8]}
    models = ModelsConfig(embedding_dim=4, mmoe=MMoEConfig(**units))
    highest = synthetic_log.ids.max(axis=0)
    sizes = {f"field_{f}": int(last) + 1 for f, last in enumerate(highest)}
    table = EmbeddingTable(sizes, models.embedding_dim, 0.3, seed=1)
    model = Recommender(table, fresh_network(small_network(name), models, len(sizes), TASKS, 1))
    starts = range(0, 16_000, 64)
    train_epoch(model, (synthetic_log.take(slice(s, s + 64)) for s in starts), 0.01)
    unseen = synthetic_log.take(slice(16_000, None))
    assert measure(predict(model, unseen.ids), unseen.labels, ("a", "b")).auc > 0.64


def test_an_epoch_trains_on_the_training_loss() -> None:
    """FinalNet's branches learn the mean prediction too."""
    models = small_config("unused").models
    dense = fresh_network(small_network("finalnet"), models, len(SIZES), TASKS, 1)
    table = EmbeddingTable(SIZES, models.embedding_dim, 0.1, seed=1)
    model, batch = Recommender(table, dense).double(), rows(30)
    labels = torch.from_numpy(batch.labels)
    branches = model.dense.branch_logits(model.table(torch.from_numpy(batch.ids)))
    mean = torch.stack(branches).mean(dim=0)
    loss = row_losses(mean, labels)
    for branch in branches:
        loss = loss + row_losses(branch, mean.sigmoid().detach())
    expected = torch.autograd.grad(loss.mean(), list(model.parameters()))
    for found, true in zip(gradients(model, batch), expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-13)
