"""The training epoch: its gradients over stripes, its steps, its loss; and prediction."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.functional import row_losses
from diet_ray.models.registry import fresh_network
from diet_ray.training import model as model_module
from diet_ray.training.model import Recommender, predict, train_epoch
from tests.made import made_rows, small_config

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
    found = train_epoch(model, batches(75, 20), 0.02, after_batch=counted.append)
    assert found == pytest.approx(loss_sum / 75, rel=1e-12)
    assert counted == [20, 20, 20, 15]
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
