"""Alignment against per-sample gradients and their dot products, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.scoring.alignment import AlignmentScoring, alignment, summed_gradient
from tests.made import small_config
from tests.networks import SMALL_NETWORKS, small_network

MODELS = small_config("unused").models
FIELDS, TASKS = 5, 3
every_network = pytest.mark.parametrize("network", SMALL_NETWORKS)


def dense_network(name: str) -> DenseNetwork:
    return fresh_network(small_network(name), MODELS, FIELDS, TASKS, 1).double()


def made(count: int, seed: int, *, soft: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, FIELDS, MODELS.embedding_dim)
    embeddings = torch.randn(shape, dtype=torch.float64, generator=generator)
    labels = torch.rand(count, TASKS, dtype=torch.float64, generator=generator)
    return embeddings, labels if soft else labels.round()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


def sample_gradients(
    dense: DenseNetwork, embeddings: Tensor, labels: Tensor, *, trained_on: bool = False
) -> Tensor:
    """grad_theta l of every row by a backward pass of its own, (B, P).

    trained_on: l is the training loss, in which every branch also learns the mean prediction.
    """
    dense.requires_grad_(True)
    rows = []
    for row, label in zip(embeddings, labels, strict=True):
        branches = torch.cat(dense.branch_logits(row[None]))
        logits = branches.mean(dim=0)
        loss = cross_entropy(logits, label)
        if trained_on and len(branches) > 1:
            for branch in branches:
                loss = loss + cross_entropy(branch, torch.sigmoid(logits).detach())
        parts = torch.autograd.grad(loss, list(dense.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


@every_network
def test_alignment_equals_dot_products_of_sample_gradients(network: str) -> None:
    """The trick on which addressing stands: sum_s <grad l(s), grad l(b)> by one vector."""
    dense = dense_network(network)
    synthetic, real = made(7, seed=1, soft=True), made(9, seed=2, soft=False)
    trained, judged = (
        sample_gradients(dense, *synthetic, trained_on=True),
        sample_gradients(dense, *real),
    )
    influence = judged @ trained.T  # (9, 7)
    flat, theta = FlatNetwork(dense), flatten_parameters(dense)
    direction = summed_gradient(flat, theta, *synthetic, trained_on=True)
    deficiency = alignment(flat, theta, direction, *real)
    torch.testing.assert_close(deficiency, influence.sum(dim=1), rtol=1e-9, atol=1e-14)
    towards = summed_gradient(flat, theta, *real)
    responsibility = alignment(flat, theta, towards, *synthetic, trained_on=True)
    torch.testing.assert_close(responsibility, influence.sum(dim=0), rtol=1e-9, atol=1e-14)


@every_network
@pytest.mark.parametrize("trained_on", [True, False])
def test_summed_gradient_is_the_sum_of_sample_gradients(network: str, trained_on: bool) -> None:
    dense, rows = dense_network(network), made(8, seed=3, soft=True)
    expected = sample_gradients(dense, *rows, trained_on=trained_on).sum(dim=0)
    found = summed_gradient(
        FlatNetwork(dense), flatten_parameters(dense), *rows, trained_on=trained_on
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@every_network
@pytest.mark.parametrize("trained_on", [True, False])
def test_any_direction_and_any_batch(network: str, trained_on: bool) -> None:
    dense, (embeddings, labels) = dense_network(network), made(10, seed=4, soft=False)
    theta = flatten_parameters(dense)
    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(theta.shape, dtype=torch.float64, generator=generator)
    expected = sample_gradients(dense, embeddings, labels, trained_on=trained_on) @ direction
    flat = FlatNetwork(dense)
    for size in (1, 3, 10):
        parts = [
            alignment(flat, theta, direction, e, y, trained_on=trained_on)
            for e, y in zip(embeddings.split(size), labels.split(size), strict=True)
        ]
        torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-9, atol=1e-14)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows whose labels a linear teacher draws."""
    embeddings, chance = made(count, seed, soft=True)
    teacher = torch.randn(
        FIELDS * MODELS.embedding_dim, TASKS, generator=torch.Generator().manual_seed(7)
    )
    return embeddings, (chance < (embeddings.flatten(1) @ teacher.double()).sigmoid()).double()


def trained(name: str) -> DenseNetwork:
    """A network in float64 after a few hundred steps of Adam, in float32."""
    dense = dense_network(name).float().requires_grad_(True)
    optimizer = torch.optim.Adam(dense.parameters(), 1e-2)
    for step in range(200):
        embeddings, labels = drawn(64, 100 + step)
        optimizer.zero_grad()
        losses = dense(embeddings.float(), labels.float())
        losses.mean().backward()
        optimizer.step()
    return dense.double().requires_grad_(False)


@every_network
def test_a_difference_selects_what_exact_alignment_selects(network: str) -> None:
    """In float32, the tenth of the rows that is least aligned, against float64."""
    flat, theta = FlatNetwork(dense := trained(network)), flatten_parameters(dense)
    direction = summed_gradient(flat, theta, *drawn(50, 1), trained_on=True)
    rows = drawn(4_000, 2)
    exact = alignment(flat, theta, direction, *rows)
    single = [tensor.float() for tensor in (theta, direction, *rows)]
    found = alignment(FlatNetwork(dense.float()), *single, mode="difference")
    least, chosen = (
        set(scores.argsort(stable=True)[: len(scores) // 10].tolist()) for scores in (exact, found)
    )
    assert found.dtype == torch.float32
    assert not found.equal(exact.float()), "it is a difference indeed"
    assert len(least & chosen) >= 0.98 * len(least)


@every_network
def test_the_training_loss_is_exact_in_either_mode(network: str) -> None:
    flat, theta = FlatNetwork(dense := dense_network(network)), flatten_parameters(dense)
    rows = made(9, seed=2, soft=True)
    exact, found = (
        alignment(flat, theta, theta, *rows, trained_on=True, mode=mode)
        for mode in ("jvp", "difference")
    )
    assert found.equal(exact)


def test_a_difference_along_nothing_is_zero() -> None:
    dense, rows = dense_network("dcn"), made(4, seed=6, soft=True)
    theta = flatten_parameters(dense)
    nothing = torch.zeros_like(theta)
    found = alignment(FlatNetwork(dense), theta, nothing, *rows, mode="difference")
    assert found.tolist() == [0.0] * 4


def test_theta_keeps_no_graph() -> None:
    dense, rows = dense_network("dcn"), made(4, seed=6, soft=True)
    flat, theta = FlatNetwork(dense), flatten_parameters(dense)
    assert not summed_gradient(flat, theta, *rows).requires_grad
    assert not theta.requires_grad


@pytest.mark.usefixtures("ray_session")
def test_the_identity_covers_reference_network_theta_direction_and_mode() -> None:
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    dcn, wukong = small_network("dcn"), small_network("wukong")
    identities = [
        AlignmentScoring.put("uri", reference, network, theta, direction).identity
        for reference, network, theta, direction in [
            ("a", dcn, one, one),
            ("b", dcn, one, one),
            ("a", wukong, one, one),
            ("a", dcn, two, one),
            ("a", dcn, one, two),
        ]
    ]
    assert len(set(identities)) == 5
    assert AlignmentScoring.put("other uri", "a", dcn, one, one).identity == identities[0]
    difference = AlignmentScoring.put("uri", "a", dcn, one, one, "difference")
    assert difference.identity not in identities
