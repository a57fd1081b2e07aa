"""The proxy's inner loop against a candidate's warm-up, and so against torch's optimisers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.config import InnerConfig, MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.distill.inner_loop import (
    State,
    initial_state,
    inner_batches,
    inner_loss,
    update,
    update_adjoint,
)
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.training.model import adam
from diet_ray.training.soft_rows import SoftRows, soft_epoch
from tests.networks import SMALL_NETWORKS, assert_starved, small_network, starve

SGD = InnerConfig(optimizer="sgd", learning_rate=0.1)
ADAM = InnerConfig(optimizer="adam", learning_rate=1e-3)
MODELS = ModelsConfig(
    embedding_dim=4,
    mmoe=MMoEConfig(experts=2, expert_units=[6], gate_units=[5], tower_units=[6]),
)
ROWS, BATCH, EPOCHS = 64, 16, 50


def starved_network(name: str) -> DenseNetwork:
    """In float64."""
    dense = fresh_network(small_network(name), MODELS, 3, 2, seed=3).double()
    starve(dense)
    return dense


def synthetic_rows() -> SoftRows:
    draw = torch.Generator().manual_seed(0)
    embeddings, labels = (
        torch.randn(ROWS, *shape, generator=draw, dtype=torch.float64) for shape in ((3, 4), (2,))
    )
    return SoftRows(embeddings, labels)


def inner_loop(dense: DenseNetwork, rows: SoftRows, inner: InnerConfig) -> list[State]:
    """The states after each step."""
    network, state, states = FlatNetwork(dense), initial_state(flatten_parameters(dense), inner), []
    steps = EPOCHS * ROWS // BATCH
    for step, batch in enumerate(inner_batches(ROWS, BATCH, steps, order())):
        theta = state[0].detach().requires_grad_(True)
        loss = inner_loss(network, theta, rows.inputs[batch], rows.labels[batch])
        gradient = torch.autograd.grad(loss, theta)[0]
        update(state, gradient, step, inner)
        states.append(tuple(x.clone() for x in state))
    return states


def order() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_the_inner_loop_is_a_candidates_warm_up(name: str, optimizer: str) -> None:
    """Epoch after epoch, in float64, also where a parameter's gradient is tiny or zero."""
    inner = {"sgd": SGD, "adam": ADAM}[optimizer]
    rows, candidate = synthetic_rows(), starved_network(name)
    states = inner_loop(starved_network(name), rows, inner)
    if optimizer == "adam":
        assert_starved(states[-1][2])
        torchs: torch.optim.Optimizer = adam(candidate, inner.learning_rate)
        assert type(torchs) is torch.optim.Adam
    else:
        torchs = torch.optim.SGD(candidate.parameters(), lr=inner.learning_rate)
    start, draw = flatten_parameters(candidate), order()
    for state in states[ROWS // BATCH - 1 :: ROWS // BATCH]:
        soft_epoch(candidate, torchs, rows, BATCH, draw)
        theta = flatten_parameters(candidate)
        assert (state[0] - theta).norm() <= 1e-14 * (theta - start).norm()


WEIGHTS = (1 / ADAM.learning_rate, 1.0, 1.0)  # of theta and both moments after a step
STEP = 6


def stepped(arguments: list[Tensor]) -> float:
    """What a step of Adam puts out, weighted and added up, from theta, both moments, gradient."""
    *state, gradient = (argument.clone() for argument in arguments)
    update(tuple(state), gradient, STEP, ADAM)
    return sum(weight * float(part.sum()) for weight, part in zip(WEIGHTS, state, strict=True))


def slopes(arguments: list[Tensor]) -> list[Tensor]:
    """The derivatives of `stepped`, by each argument."""
    adjoint = tuple(torch.full_like(arguments[0], weight) for weight in WEIGHTS)
    *state, gradient = arguments
    through = update_adjoint(adjoint, tuple(state), gradient, STEP, ADAM)
    return [*adjoint, through]


@pytest.mark.parametrize("moment", [1e-22, 1e-18, 1e-16, 1e-14, 1e-4])
def test_adam_follows_finite_differences_however_small_its_moments(moment: float) -> None:
    size = moment**0.5
    values = [0.0, 0.4 * size, moment, 0.7 * size]
    inputs = [torch.tensor([x], dtype=torch.float64) for x in values]
    found = slopes(inputs)
    for number, value in enumerate(values):
        width, ends = 1e-5 * (value or 1.0), []
        for sign in (1, -1):
            moved = [x.clone() for x in inputs]
            moved[number] += sign * width
            ends.append(stepped(moved))
        slope = (ends[0] - ends[1]) / (2 * width)
        assert float(found[number]) == pytest.approx(slope, rel=1e-6)


def test_adam_has_a_derivative_where_there_was_never_a_gradient() -> None:
    for slope in slopes([torch.zeros(3) for _ in range(4)]):
        assert slope.isfinite().all()


def test_the_adjoint_leaves_state_and_gradient_as_they_are() -> None:
    inputs = [torch.rand(3) for _ in range(4)]
    before = [x.clone() for x in inputs]
    slopes(inputs)
    assert all(x.equal(old) for x, old in zip(inputs, before, strict=True))


def test_a_state_starts_without_moments_and_on_a_copy() -> None:
    theta = torch.ones(4)
    assert len(initial_state(theta, SGD)) == 1
    state = initial_state(theta, ADAM)
    assert state[0].equal(theta)
    assert state[0].data_ptr() != theta.data_ptr()
    assert [float(moment.abs().sum()) for moment in state[1:]] == [0, 0]


def test_the_loss_is_cross_entropy_with_soft_labels() -> None:
    models = ModelsConfig(
        embedding_dim=2, mmoe=MMoEConfig(experts=2, expert_units=[4], gate_units=[], tower_units=[])
    )
    network = NetworkConfig(name="dcn", parameters={"dnn_hidden_units": [4]})
    dense = fresh_network(network, models, 3, 2, seed=0)
    embeddings, labels = torch.randn(5, 3, 2), torch.randn(5, 2)
    found = inner_loss(FlatNetwork(dense), flatten_parameters(dense), embeddings, labels)
    expected = binary_cross_entropy_with_logits(dense(embeddings), labels.sigmoid())
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
