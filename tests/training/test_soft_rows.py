"""The epoch on rows with soft labels, against the same training written out row by row."""

from __future__ import annotations

import pytest
import torch

from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.training.model import adam
from diet_ray.training.soft_rows import SoftRows, soft_epoch
from tests.made import small_config
from tests.networks import small_network
from tests.training import by_hand

MODELS = small_config("unused").models
ROWS, FIELDS, TASKS, BATCH, LEARNING_RATE = 37, 3, 2, 8, 0.01


def soft_rows() -> SoftRows:
    """float64, the last batch smaller."""
    draw = torch.Generator().manual_seed(4)
    shape = ROWS, FIELDS, MODELS.embedding_dim
    return SoftRows(
        inputs=torch.randn(shape, generator=draw, dtype=torch.float64),
        labels=torch.randn(ROWS, TASKS, generator=draw, dtype=torch.float64) * 2,
    )


def dense_network(name: str = "dcn") -> DenseNetwork:
    network = fresh_network(small_network(name), MODELS, FIELDS, TASKS, 3, "soft rows")
    return network.double()


def trained(rows: SoftRows, name: str = "dcn", seed: int = 1) -> DenseNetwork:
    dense = dense_network(name)
    generator = torch.Generator().manual_seed(seed)
    soft_epoch(dense, adam(dense, LEARNING_RATE), rows, BATCH, generator)
    return dense


def same(first: DenseNetwork, second: DenseNetwork) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", ["dcn", "wukong"])
def test_an_epoch_is_one_step_per_batch(name: str) -> None:
    rows, dense, expected = soft_rows(), dense_network(name), dense_network(name)
    optimizer = adam(dense, LEARNING_RATE)
    plain = torch.optim.Adam(expected.parameters(), lr=LEARNING_RATE)
    for epoch in range(2):  # the optimiser's state lives on from epoch to epoch
        generators = [torch.Generator().manual_seed(epoch) for _ in range(2)]
        soft_epoch(dense, optimizer, rows, BATCH, generators[0])
        steps = by_hand.train(
            by_hand.logits_of_embedding(expected),
            plain,
            rows.inputs,
            torch.sigmoid(rows.labels),
            by_hand.shuffled(ROWS, BATCH, generators[1]),
        )
        assert [rows for rows, _ in steps] == [8, 8, 8, 8, 5]
    for found, wanted in zip(dense.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)
    assert not same(dense, dense_network(name))


def test_the_order_is_the_generators() -> None:
    rows = soft_rows()
    first = trained(rows)
    torch.rand(3)  # the global generator has no say
    assert same(first, trained(rows))
    assert not same(first, trained(rows, seed=2))
