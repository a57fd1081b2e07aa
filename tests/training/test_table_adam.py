"""Adam on single rows against torch's own Adam over the whole table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diet_ray.training import table_adam
from diet_ray.training.table_adam import BETA_1, BETA_2, EPSILON, HORIZON, MEMORY, TableAdam

ROWS, WIDTH, RATE = 30, 3, 0.05


def table(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype)


def a_step(number: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The rows that a step touches, rising, and their gradients; low rows are rare."""
    draw = np.random.default_rng(number)
    rows = np.unique((ROWS * draw.random(6) ** 0.2).astype(np.int64))
    return torch.from_numpy(rows), torch.from_numpy(scale * draw.normal(size=(len(rows), WIDTH)))


def dense_adam(weight: Tensor, steps: range, scale: float = 1.0) -> list[Tensor]:
    """The whole table after every step."""
    weight = weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=RATE)
    found = []
    for number in steps:
        rows, gradients = a_step(number, scale)
        weight.grad = torch.zeros_like(weight).index_copy(0, rows, gradients.to(weight.dtype))
        optimizer.step()
        found.append(weight.detach().clone())
    return found


@pytest.mark.parametrize(
    ("scale", "tolerance"),
    [(1.0, 1e-6), (1e-4, 1e-3)],  # epsilon counts the more, the smaller the gradients
)
def test_every_row_is_where_dense_adam_has_it(scale: float, tolerance: float) -> None:
    """The error of the table's whole way, relative to its length."""
    weight, start = table(), table()
    optimizer = TableAdam(weight, RATE)
    for number, expected in enumerate(dense_adam(weight, range(300), scale)):
        rows, gradients = a_step(number, scale)
        optimizer.step(optimizer.take(rows), gradients)
        found = optimizer.take(torch.arange(ROWS)).values
        assert (found - expected).norm() < tolerance * (expected - start).norm()
    optimizer.settle()
    torch.testing.assert_close(weight, found)


@pytest.mark.parametrize("last", [1, 5, 300, HORIZON - 2, HORIZON + 3])
@pytest.mark.parametrize("missed", [0, 1, 7, MEMORY + 600])
def test_missed_steps_equal_steps_without_a_gradient(last: int, missed: int) -> None:
    optimizer = TableAdam(table(), RATE)
    optimizer.first, optimizer.second = table().flip(0), table().square() + 1e-3
    optimizer.last[:], optimizer.steps = last, last + missed
    values, first, second = table(), optimizer.first.clone(), optimizer.second.clone()
    for step in range(last + 1, last + missed + 1):
        first, second = BETA_1 * first, BETA_2 * second
        root = (second / (1 - BETA_2**step)).sqrt() + EPSILON
        values = values - RATE * first / (1 - BETA_1**step) / root
    found = optimizer.take(torch.arange(ROWS))
    torch.testing.assert_close(found.values, values, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.first, first, rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(found.second, second, rtol=1e-10, atol=1e-15)


def test_float32_follows_float64() -> None:
    weight = table(torch.float32)
    optimizer = TableAdam(weight, RATE)
    expected = dense_adam(weight.double(), range(300))[-1]
    for number in range(300):
        rows, gradients = a_step(number)
        optimizer.step(optimizer.take(rows), gradients.float())
    optimizer.settle()
    torch.testing.assert_close(weight.double(), expected, rtol=0, atol=2e-3 * RATE)


def test_settling_in_parts_and_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(), table()]
    for weight, at_once in zip(tables, (ROWS, 4), strict=True):
        monkeypatch.setattr(table_adam, "SETTLED_AT_ONCE", at_once)
        optimizer = TableAdam(weight, RATE)
        for number in range(40):
            rows, gradients = a_step(number)
            optimizer.step(optimizer.take(rows), gradients)
        optimizer.settle()
    torch.testing.assert_close(*tables, rtol=1e-12, atol=1e-14)
    settled = weight.clone()
    optimizer.settle()
    assert torch.equal(weight, settled)


def test_a_row_that_no_step_touched_keeps_its_bits() -> None:
    weight = table()
    before, optimizer = weight.clone(), TableAdam(weight, RATE)
    for number in range(20):
        _, gradients = a_step(number)
        optimizer.step(optimizer.take(torch.arange(len(gradients))), gradients)
    optimizer.settle()
    assert torch.equal(weight[10:], before[10:])
    assert not (weight[:3] == before[:3]).any()
