"""The proxy's inner loop against torch's optimisers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.config import InnerConfig, MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.distill.inner_loop import initial_state, inner_batches, inner_loss, update
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import fresh_network

SGD = InnerConfig(optimizer="sgd", learning_rate=0.1)
ADAM = InnerConfig(optimizer="adam", learning_rate=0.01)


def quadratic_gradient(theta: Tensor) -> Tensor:
    return torch.linspace(0.1, 3, len(theta), dtype=theta.dtype) * (theta - 1)


@pytest.mark.parametrize(
    ("inner", "optimizer"),
    [(SGD, torch.optim.SGD), (ADAM, torch.optim.Adam)],
    ids=["sgd", "adam"],
)
def test_twenty_steps_are_those_of_torch(
    inner: InnerConfig, optimizer: type[torch.optim.Optimizer]
) -> None:
    draw = torch.Generator().manual_seed(0)
    start = 2 + torch.rand(50, generator=draw, dtype=torch.float64)  # away from the minimum at 1
    state = initial_state(start, inner)
    theirs = start.clone()
    torch_optimizer = optimizer([theirs], lr=inner.learning_rate)  # type: ignore[call-arg]
    for step in range(20):
        state = update(state, quadratic_gradient(state[0]), step, inner)
        theirs.grad = quadratic_gradient(theirs)
        torch_optimizer.step()
        assert (state[0] - theirs).abs().max() < 1e-6
    assert (state[0] - start).abs().max() > 0.1


def test_adam_has_a_derivative_where_the_gradient_is_zero() -> None:
    theta, gradient = torch.zeros(3), torch.zeros(3, requires_grad=True)
    updated = update(initial_state(theta, ADAM), gradient, 0, ADAM)[0]
    assert torch.autograd.grad(updated.sum(), gradient)[0].isfinite().all()


def test_a_state_starts_without_moments() -> None:
    theta = torch.ones(4)
    assert len(initial_state(theta, SGD)) == 1
    state = initial_state(theta, ADAM)
    assert state[0] is theta
    assert [float(moment.abs().sum()) for moment in state[1:]] == [0, 0]


def test_the_loss_is_weighted_cross_entropy_with_soft_labels() -> None:
    models = ModelsConfig(
        embedding_dim=2, mmoe=MMoEConfig(experts=2, expert_units=[4], gate_units=[], tower_units=[])
    )
    network = NetworkConfig(name="dcn", parameters={"dnn_hidden_units": [4]})
    dense = fresh_network(network, models, 3, 2, seed=0)
    embeddings, labels, weights = torch.randn(5, 3, 2), torch.randn(5, 2), torch.rand(5)
    found = inner_loss(FlatNetwork(dense), flatten_parameters(dense), embeddings, labels, weights)
    by_row = binary_cross_entropy_with_logits(
        dense(embeddings), labels.sigmoid(), reduction="none"
    ).mean(dim=1)
    expected = (by_row * weights).sum() / 5
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@settings(max_examples=50)
@given(rows=st.integers(1, 40), batch=st.integers(1, 50), steps=st.integers(1, 60))
def test_batches_are_epochs_of_permutations(rows: int, batch: int, steps: int) -> None:
    batches = inner_batches(rows, batch, steps, torch.Generator().manual_seed(rows))
    assert len(batches) == steps
    per_epoch = -(-rows // batch)
    for first in range(0, steps - per_epoch + 1, per_epoch):
        epoch = torch.cat(batches[first : first + per_epoch])
        assert sorted(epoch.tolist()) == list(range(rows))
    again = inner_batches(rows, batch, steps, torch.Generator().manual_seed(rows))
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]


def test_epochs_differ() -> None:
    batches = inner_batches(32, 32, 3, torch.Generator().manual_seed(0))
    assert len({tuple(batch.tolist()) for batch in batches}) == 3
