"""The meta-gradient against torch.autograd through the plain unrolled graph, in float64."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.config import InnerConfig, MMoEConfig, ModelsConfig
from diet_ray.distill import inner_loop
from diet_ray.distill import meta_gradient as module
from diet_ray.distill.inner_loop import (
    BETA_1,
    BETA_2,
    EPSILON,
    State,
    initial_state,
    inner_batches,
    inner_loss,
)
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.models.functional import FlatNetwork, flatten_parameters, row_losses
from diet_ray.models.registry import DenseNetwork, fresh_network
from tests.distill.slow import unrolled
from tests.networks import SMALL_NETWORKS, assert_starved, small_network, starve

FIELDS, DIM, TASKS, ROWS = 3, 4, 2, 7
STEPS, BATCH = 6, 3
LONG = 20  # steps that make several segments
MODELS = ModelsConfig(
    embedding_dim=DIM,
    mmoe=MMoEConfig(experts=2, expert_units=[6], gate_units=[5], tower_units=[6]),
)
every_network = pytest.mark.parametrize("name", SMALL_NETWORKS)
every_optimizer = pytest.mark.parametrize("optimizer", ["sgd", "adam"])
every_case = pytest.mark.parametrize(
    ("optimizer", "starved"),
    [("sgd", False), ("adam", False), ("adam", True)],
    ids=["sgd", "adam", "adam-starved"],
)

OF_THE_TEST = ("branches", "starved")  # what a problem holds besides meta_gradient's arguments


@dataclass
class Problem:
    """A small bilevel problem."""

    network: FlatNetwork
    branches: FlatNetwork  # the same network up to the logits of each branch
    theta: Tensor
    embeddings: Tensor
    labels: Tensor
    batches: list[Tensor]
    target_embeddings: Tensor
    target_labels: Tensor
    starved: bool  # some parameters have hardly any gradient (`tests/networks.py`)

    def solve(self, inner: InnerConfig, **changed: Any) -> module.MetaGradient:
        given = {key: value for key, value in vars(self).items() if key not in OF_THE_TEST}
        return meta_gradient(**{**given, **changed}, inner=inner)


class Branches(nn.Module):
    """Embeddings (B, F, d) -> the logits of every branch (branches, B, K)."""

    def __init__(self, dense: DenseNetwork) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.stack(self.dense.branch_logits(embeddings))


def problem(
    name: str,
    steps: int = STEPS,
    *,
    starved: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    dense = fresh_network(small_network(name), MODELS, FIELDS, TASKS, seed=3).to(dtype)
    if starved:
        starve(dense)
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=dtype)

    return Problem(
        FlatNetwork(dense),
        FlatNetwork(Branches(dense)),
        flatten_parameters(dense),
        normal(ROWS, FIELDS, DIM),
        normal(ROWS, TASKS),
        inner_batches(ROWS, BATCH, steps, draw),
        normal(11, FIELDS, DIM),
        (normal(11, TASKS) > 0).to(dtype),
        starved,
    )


def inner_config(optimizer: str, window: int, steps: int = STEPS) -> InnerConfig:
    rate = 0.3 if optimizer == "sgd" else 0.02
    given: Any = {"optimizer": optimizer, "learning_rate": rate}
    return InnerConfig(batch_size=BATCH, steps=steps, window=window, **given)


def step_gradient(given: Problem, theta: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """grad_theta of a batch's training loss, written out; its graph holds all it depends on.

    With z_b the logits of branch b of n, and m their mean, the loss is cross-entropy of m against
    the labels plus, for n > 1, that of every z_b against sigma(m), which is a constant to this
    gradient: d loss / d z_b = (sigma(m) - y) / n + (sigma(z_b) - sigma(m)), and for n = 1 the
    second term is zero.
    """
    logits = given.branches(theta, rows)
    mean = logits.mean(dim=0)
    errors = (mean.sigmoid() - labels) / len(logits) + (logits.sigmoid() - mean.sigmoid())
    return torch.autograd.grad(logits, theta, errors / labels.numel(), create_graph=True)[0]


def unrolled_loss(
    given: Problem, inner: InnerConfig, embeddings: Tensor, labels: Tensor, window: int
) -> Tensor:
    """The outer loss, its graph reaching back to the data through the last `window` steps."""

    def gradient(theta: Tensor, batch: Tensor) -> Tensor:
        return step_gradient(given, theta, embeddings[batch], labels[batch].sigmoid())

    theta, state = unrolled(gradient, given.theta, given.batches, window, inner)
    if given.starved:
        assert_starved(state["exp_avg_sq"])
    logits = given.network(theta, given.target_embeddings)
    return binary_cross_entropy_with_logits(logits, given.target_labels)


def assert_relatively_close(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-5, "a zero gradient shows nothing"
    assert (found - expected).norm() <= 1e-9 * expected.norm()


@every_network
@every_case
@pytest.mark.parametrize("window", [1, 2, STEPS])
def test_equals_autograd_through_the_unrolled_graph(
    name: str, optimizer: str, starved: bool, window: int
) -> None:
    given = problem(name, starved=starved)
    inner = inner_config(optimizer, window)
    variables = [x.clone().requires_grad_(True) for x in (given.embeddings, given.labels)]
    loss = unrolled_loss(given, inner, *variables, window=window)
    by_embeddings, by_labels = torch.autograd.grad(loss, variables)
    found = given.solve(inner)
    assert found.outer_loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert_relatively_close(found.embeddings, by_embeddings)
    assert_relatively_close(found.labels, by_labels)


@every_network
@every_case
def test_equals_finite_differences(name: str, optimizer: str, starved: bool) -> None:
    given, inner = problem(name, starved=starved), inner_config(optimizer, STEPS)
    found, step = given.solve(inner), 1e-6
    for key in ("embeddings", "labels"):
        gradient = getattr(found, key)
        at = divmod(int(gradient.flatten(1).abs().argmax()), gradient[0].numel())
        ends = []
        for sign in (1, -1):
            moved = getattr(given, key).clone()
            moved.flatten(1)[at] += sign * step
            least = inner_config(optimizer, 1)  # the loss does not depend on the window
            ends.append(given.solve(least, **{key: moved}).outer_loss)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient.flatten(1)[at]) == pytest.approx(slope, rel=1e-5)


@every_optimizer
def test_rows_outside_the_window_are_untouched(optimizer: str) -> None:
    given, window = problem("dcn"), 1
    found = given.solve(inner_config(optimizer, window))
    expected = torch.zeros(ROWS, dtype=torch.bool)
    expected[given.batches[-1]] = True
    assert found.touched.equal(expected)
    assert not found.embeddings[~expected].any()
    assert not found.labels[~expected].any()


def test_an_unroll_shorter_than_the_window_is_differentiated_whole() -> None:
    given = problem("dcn", steps=3)
    short, whole = (given.solve(inner_config("adam", window)) for window in (STEPS, 3))
    assert short.embeddings.equal(whole.embeddings)
    assert short.labels.equal(whole.labels)


def test_the_arguments_stay_as_they_are() -> None:
    given = problem("dcn")
    tensors = (given.theta, given.embeddings, given.labels, given.target_embeddings)
    before = [tensor.clone() for tensor in tensors]
    given.solve(inner_config("adam", STEPS))
    for tensor, old in zip(tensors, before, strict=True):
        assert tensor.equal(old)
        assert not tensor.requires_grad


def plain_update(state: State, gradient: Tensor, step: int, inner: InnerConfig) -> State:
    """The state after a step, each vector whole, with a graph."""
    if inner.optimizer == "sgd":
        return (state[0] - inner.learning_rate * gradient,)
    theta, first, second = state
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    positive = second > 0  # the root's derivative at 0 counts as 0
    root = torch.where(positive, torch.sqrt(torch.where(positive, second, 1)), 0)
    root = root / (1 - BETA_2 ** (step + 1)) ** 0.5
    step_size = inner.learning_rate / (1 - BETA_1 ** (step + 1))
    return theta - step_size * first / (root + EPSILON), first, second


def with_all_states(given: Problem, inner: InnerConfig) -> tuple[Tensor, Tensor, float]:
    """The meta-gradient by a walk that keeps every state, and its outer loss."""

    def variables(*tensors: Tensor) -> list[Tensor]:
        return [tensor.detach().requires_grad_(True) for tensor in tensors]

    def rows(step: int) -> tuple[Tensor, Tensor]:
        batch = given.batches[step]
        return given.embeddings[batch], given.labels[batch]

    states = [initial_state(given.theta, inner)]
    for step in range(len(given.batches)):
        (theta,) = variables(states[-1][0])
        (gradient,) = torch.autograd.grad(inner_loss(given.network, theta, *rows(step)), theta)
        states.append(plain_update(states[-1], gradient, step, inner))
    (theta,) = variables(states.pop()[0])
    logits = given.network(theta, given.target_embeddings)
    loss = row_losses(logits, given.target_labels).mean()
    (by_theta,) = torch.autograd.grad(loss, theta)
    adjoint = [by_theta, *(torch.zeros_like(theta) for _ in states[0][1:])]
    sums = torch.zeros_like(given.embeddings), torch.zeros_like(given.labels)
    for step in range(len(given.batches) - 1, len(given.batches) - 1 - inner.window, -1):
        at = variables(states[step][0], *rows(step))
        (found,) = torch.autograd.grad(inner_loss(given.network, *at), at[0], create_graph=True)
        *before, gradient = variables(*states[step], found)
        after = plain_update(tuple(before), gradient, step, inner)
        *adjoint, through = torch.autograd.grad(after, [*before, gradient], adjoint)
        by_theta, *by_rows = torch.autograd.grad(found, at, through)
        adjoint[0] = adjoint[0] + by_theta
        for total, part in zip(sums, by_rows, strict=True):
            total[given.batches[step]] += part
    return *sums, float(loss.detach())


@every_network
@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("window", [1, 9, LONG])
def test_equals_a_walk_with_all_states_bit_by_bit(
    name: str, optimizer: str, starved: bool, dtype: torch.dtype, window: int
) -> None:
    """What is walked once more, and in blocks, is the same to the last bit."""
    given = problem(name, LONG, starved=starved, dtype=dtype)
    inner = inner_config(optimizer, window, LONG)
    by_embeddings, by_labels, outer_loss = with_all_states(given, inner)
    found = given.solve(inner)
    assert found.outer_loss == outer_loss
    assert found.embeddings is not None
    assert found.embeddings.equal(by_embeddings)
    assert found.labels.equal(by_labels)


@every_network
def test_labels_alone(name: str) -> None:
    given, inner = problem(name), inner_config("adam", STEPS)
    both, labels = given.solve(inner), given.solve(inner, learn_embeddings=False)
    assert labels.embeddings is None
    assert labels.labels.equal(both.labels)
    assert labels.touched.equal(both.touched)
    assert labels.outer_loss == both.outer_loss


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (5, 1), (5, 9), (80, 80), (100, 33)])
def test_segments_are_the_window_in_order(steps: int, window: int) -> None:
    segments = module._segments(steps, window)
    covered = [step for segment in segments for step in segment]
    assert covered == list(range(max(steps - window, 0), steps))
    assert len({len(segment) for segment in segments[1:]}) <= 1
    assert all(segments)


@every_optimizer
def test_at_most_a_segments_steps_are_alive(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step holds its state and its gradient's graph; the way there holds no graph at all."""
    made: dict[str, list[weakref.ref[Any]]] = {"inner_loss": [], "Step": []}
    most = dict.fromkeys(made, 0)

    def watch(name: str) -> None:
        original = getattr(module, name)

        def watched(*arguments: Any) -> Any:
            found = original(*arguments)
            made[name].append(weakref.ref(found))
            alive = sum(other() is not None for other in made[name])
            most[name] = max(most[name], alive)
            return found

        monkeypatch.setattr(module, name, watched)

    for name in made:
        watch(name)
    gc.disable()  # reference counts alone must free them
    try:
        problem("dcn", LONG).solve(inner_config(optimizer, LONG, LONG))
    finally:
        gc.enable()
    longest = max(len(segment) for segment in module._segments(LONG, LONG))
    assert {name: len(found) for name, found in made.items()} == {
        "inner_loss": 2 * LONG,
        "Step": LONG,
    }
    assert most == {"inner_loss": 1, "Step": longest}
    assert longest < LONG / 2


def test_adam_in_blocks_is_adam_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    given, inner = problem("dcn", starved=True), inner_config("adam", STEPS)
    whole = given.solve(inner)
    block = 8
    assert given.network.parameter_count % block, "the last block is shorter"
    monkeypatch.setattr(inner_loop, "BLOCK", block)
    assert given.solve(inner).labels.equal(whole.labels)
