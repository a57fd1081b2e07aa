"""A dense network as a function of one vector; its first and second derivatives in both modes.

The forward-mode and double-backward rules of every layer that a network uses are what alignment
and the meta-gradient stand on, so each registered network is checked against differences. Reverse
over forward mode is used nowhere: torch's layer norm gets it wrong (pytorch issue 196700).
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jvp, vmap

from diet_ray.config import MMoEConfig, ModelsConfig
from diet_ray.models.functional import FlatNetwork, flatten_parameters, row_losses, taught_losses
from diet_ray.models.registry import DenseNetwork, fresh_network
from tests.networks import SMALL_NETWORKS, small_network

FIELDS, TASKS, DIM = 3, 2, 4
MODELS = ModelsConfig(
    embedding_dim=DIM, mmoe=MMoEConfig(experts=2, expert_units=[6], gate_units=[4], tower_units=[4])
)
every_network = pytest.mark.parametrize("name", SMALL_NETWORKS)


def network(name: str) -> DenseNetwork:
    return fresh_network(small_network(name), MODELS, FIELDS, TASKS, 4).double()


def rows(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(count, FIELDS, DIM, dtype=torch.float64, generator=generator)
    return embeddings, torch.rand(count, TASKS, dtype=torch.float64, generator=generator)


def direction_like(values: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(values.shape, dtype=torch.float64, generator=generator)


@every_network
def test_flat_call_equals_the_networks_own(name: str) -> None:
    dense, (embeddings, _) = network(name), rows()
    expected = dense(embeddings).detach()
    flat, theta = FlatNetwork(dense), flatten_parameters(dense)
    assert theta.shape == (flat.parameter_count,)
    assert torch.equal(flat(theta, embeddings), expected)


@every_network
def test_theta_alone_decides(name: str) -> None:
    dense, (embeddings, _) = network(name), rows()
    theta = flatten_parameters(dense) + 0.1
    flat = FlatNetwork(dense)
    assert not torch.equal(flat(theta, embeddings), dense(embeddings))
    start = 0
    for parameter in dense.parameters():
        values = theta[start : start + parameter.numel()]
        parameter.copy_(values.view(parameter.shape))
        start += parameter.numel()
    assert torch.equal(flat(theta, embeddings), dense(embeddings))


@every_network
def test_theta_holds_the_parameters_in_named_order(name: str) -> None:
    dense = network(name)
    flat = FlatNetwork(dense)
    assert flat.names == [key for key, _ in dense.named_parameters()]
    parts = flatten_parameters(dense).split(flat.sizes)
    for part, shape, parameter in zip(parts, flat.shapes, dense.parameters(), strict=True):
        assert torch.equal(part.view(shape), parameter)


def test_the_flat_copy_is_detached_and_its_own() -> None:
    dense = network("dcn")
    theta = flatten_parameters(dense)
    before = theta.clone()
    with torch.no_grad():
        next(dense.parameters()).add_(1)
    assert torch.equal(theta, before)
    assert not theta.requires_grad


def cross_entropy(logit: float, label: float) -> float:
    return math.log1p(math.exp(logit)) - label * logit


@given(
    st.lists(
        st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=5,
    )
)
def test_row_losses_are_the_mean_cross_entropy_over_tasks(
    values: list[tuple[float, float, float, float]],
) -> None:
    table = torch.tensor(values, dtype=torch.float64)
    expected = [(cross_entropy(a, p) + cross_entropy(b, q)) / 2 for a, b, p, q in values]
    assert row_losses(table[:, :2], table[:, 2:]).tolist() == pytest.approx(
        expected, rel=1e-12, abs=1e-12
    )


def logits_and_teacher() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits, teacher = torch.randn(2, 6, TASKS, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), teacher.requires_grad_()


def test_the_teacher_is_a_constant_to_the_gradient() -> None:
    logits, teacher = logits_and_teacher()
    losses = taught_losses(logits, teacher)
    torch.testing.assert_close(losses, row_losses(logits, teacher.sigmoid()))
    found = torch.autograd.grad(losses.sum(), (logits, teacher), allow_unused=True)
    expected = torch.autograd.grad(row_losses(logits, teacher.detach().sigmoid()).sum(), logits)
    assert found[1] is None
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-14)
    tangents = direction_like(logits)
    along = jvp(taught_losses, (logits.detach(), teacher.detach()), (tangents, tangents))[1]
    torch.testing.assert_close(along, (expected[0] * tangents).sum(dim=1), rtol=1e-12, atol=1e-14)


def test_several_models_are_taught_at_once_as_one_by_one() -> None:
    generator = torch.Generator().manual_seed(5)
    logits, teacher = torch.randn(2, 4, 6, TASKS, dtype=torch.float64, generator=generator)

    def summed(mine: Tensor, towards: Tensor) -> Tensor:
        return taught_losses(mine, towards).square().sum()  # so that no row's gradient is another's

    for function in (taught_losses, grad(summed)):
        found = vmap(function)(logits, teacher)
        expected = [function(mine, own) for mine, own in zip(logits, teacher, strict=True)]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-14)
    # each by a teacher of its own, or all by one
    found = vmap(grad(summed), in_dims=(0, None))(logits, teacher[0])
    expected = [grad(summed)(mine, teacher[0]) for mine in logits]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-14)


def test_the_gradients_own_derivative_sees_the_teacher() -> None:
    logits, teacher = logits_and_teacher()

    def gradient(at: Tensor, towards: Tensor) -> Tensor:
        return torch.autograd.grad(taught_losses(at, towards).sum(), at, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, (logits, teacher))


@every_network
def test_forward_mode_equals_differences_and_reverse_mode(name: str) -> None:
    dense, (embeddings, labels) = network(name), rows()
    flat, theta = FlatNetwork(dense), flatten_parameters(dense)
    direction = direction_like(theta)

    def losses(parameters: Tensor) -> Tensor:
        return row_losses(flat(parameters, embeddings), labels)

    tangents = jvp(losses, (theta,), (direction,))[1]
    step = 1e-6
    slope = (losses(theta + step * direction) - losses(theta - step * direction)) / (2 * step)
    torch.testing.assert_close(tangents, slope, rtol=1e-6, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(losses, theta)
    torch.testing.assert_close(tangents, jacobian @ direction, rtol=1e-10, atol=1e-12)


def mixed_gradients(
    flat: FlatNetwork, theta: Tensor, embeddings: Tensor, labels: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of <grad_theta L, direction> in theta and in the embeddings."""
    theta, embeddings = theta.detach().requires_grad_(), embeddings.detach().requires_grad_()
    loss = row_losses(flat(theta, embeddings), labels).mean()
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    by_theta, by_embeddings = torch.autograd.grad(gradient @ direction, (theta, embeddings))
    return by_theta, by_embeddings


def first_gradients(
    flat: FlatNetwork, theta: Tensor, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    theta, embeddings = theta.detach().requires_grad_(), embeddings.detach().requires_grad_()
    loss = row_losses(flat(theta, embeddings), labels).mean()
    by_theta, by_embeddings = torch.autograd.grad(loss, (theta, embeddings))
    return by_theta, by_embeddings


@every_network
def test_double_backward_equals_differences_of_the_gradient(name: str) -> None:
    dense, (embeddings, labels) = network(name), rows()
    flat, theta = FlatNetwork(dense), flatten_parameters(dense)
    direction = direction_like(theta)
    found = mixed_gradients(flat, theta, embeddings, labels, direction)
    step = 1e-5
    ahead = first_gradients(flat, theta + step * direction, embeddings, labels)
    behind = first_gradients(flat, theta - step * direction, embeddings, labels)
    for second, first, last in zip(found, ahead, behind, strict=True):
        torch.testing.assert_close(second, (first - last) / (2 * step), rtol=1e-5, atol=1e-7)
