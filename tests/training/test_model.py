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
from diet_ray.seeds import torch_seeded
from diet_ray.training import model as model_module
from diet_ray.training.metrics import measure
from diet_ray.training.model import Epoch, Recommender, predict, train_epoch
from diet_ray.training.workers import Workers
from tests.made import made_rows, small_config
from tests.networks import SMALL_NETWORKS, small_network
from tests.training.in_threads import together

SIZES = {"a": 9, "b": 8, "c": 7}
TASKS = 2
RATE = 0.02
EPSILONS = 1e-4 * RATE
"""How far a row may be from where dense Adam has it: `table_adam.py` says where epsilon differs."""


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


def plainly_trained(model: Recommender, trained_on: list[Rows]) -> float:
    """torch's Adam over everything, whole batches; returns the mean loss before each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    loss_sum = 0.0
    for batch in trained_on:
        optimizer.zero_grad()
        loss = mean_loss(model, batch)
        loss.backward()
        optimizer.step()
        loss_sum += float(loss.detach()) * len(batch)
    return loss_sum / sum(map(len, trained_on))


def tensors(model: Recommender) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def test_an_epoch_equals_a_plain_loop() -> None:
    model, plain, counted = recommender(), recommender(), []
    expected = plainly_trained(plain, batches(75, 20))
    found = train_epoch(
        model, batches(75, 20), RATE, after_batch=lambda rows, loss: counted.append((rows, loss))
    )
    assert found == pytest.approx(expected, rel=1e-7)
    assert [rows for rows, _ in counted] == [20, 20, 20, 15]
    assert sum(rows * loss for rows, loss in counted) == pytest.approx(75 * found, rel=1e-12)
    for own, other in zip(tensors(model), tensors(plain), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=EPSILONS)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_add_up_to_it(parts: int) -> None:
    """The last batch has fewer rows than 8 parts."""
    plain, model = recommender(), recommender()
    plainly_trained(plain, batches(65, 20))
    epoch = Epoch(model, RATE, parts)
    for batch in batches(65, 20):
        epoch.step(batch)
    epoch.finish()
    for own, other in zip(tensors(model), tensors(plain), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=EPSILONS)


@pytest.mark.parametrize("count", [2, 4])
def test_the_number_of_workers_changes_no_bit(count: int) -> None:
    start = recommender().float()

    def trained(workers: Workers) -> tuple[list[Tensor], float]:
        model = copy.deepcopy(start)
        epoch = Epoch(model, RATE, 4, workers)
        for batch in (replace(b, labels=b.labels.astype(np.float32)) for b in batches(65, 20)):
            epoch.step(batch)
        loss = epoch.finish()
        return tensors(model), loss

    alone, loss = trained(Workers())
    for found, their_loss in together(count, trained):
        assert their_loss == loss
        assert all(torch.equal(*pair) for pair in zip(found, alone, strict=True))


def test_an_epoch_draws_its_own_noise() -> None:
    """Dropout's draws depend on the stated seed alone, and torch's own generator is left alone."""
    trained = []
    for global_seed in (1, 2):
        with torch_seeded(0, "the model"):
            model = Recommender(EmbeddingTable(SIZES, 4, 1.0, seed=1), Noisy()).double()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        epoch = Epoch(model, RATE, 2, noise=(5, "noise"))
        for batch in batches(60, 20):
            epoch.step(batch)
        epoch.finish()
        assert torch.equal(torch.get_rng_state(), before)
        trained.append(tensors(model))
    assert all(torch.equal(*pair) for pair in zip(*trained, strict=True))


def test_an_epoch_lowers_the_loss() -> None:
    model, data = recommender(), batches(600, 20)
    first = train_epoch(model, data, RATE)
    assert train_epoch(model, data, RATE) < first - 0.03


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
    train_epoch(model, batches(60, 20), RATE)
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
    gradients = torch.autograd.grad(loss.mean(), list(model.dense.parameters()))
    Epoch(model, RATE).step(batch)
    for parameter, true in zip(model.dense.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, true, rtol=1e-10, atol=1e-13)
