"""MMoE against a loop over rows, tasks and experts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diet_ray.config import MMoEConfig
from diet_ray.models.layers import GroupedMLP
from diet_ray.models.mmoe import MMoE

CONFIG = MMoEConfig(experts=3, expert_units=[7, 5], gate_units=[4], tower_units=[6])


def perceptron(grouped: GroupedMLP, group: int, row: Tensor, rectified: int) -> Tensor:
    for number, (weight, bias) in enumerate(zip(grouped.weights, grouped.biases, strict=True)):
        row = row @ weight[group] + bias[group, 0]
        row = row.clamp(min=0) if number < rectified else row
    return row


def logit(mmoe: MMoE, task: int, row: Tensor) -> float:
    """y_k = tower_k(sum over experts e of softmax(gate_k(x))_e expert_e(x))."""
    gate = [math.exp(g) for g in perceptron(mmoe.gates, task, row, len(CONFIG.gate_units))]
    mixed = torch.zeros(CONFIG.expert_units[-1], dtype=torch.float64)
    for expert in range(CONFIG.experts):
        output = perceptron(mmoe.experts, expert, row, len(CONFIG.expert_units))
        mixed += gate[expert] / sum(gate) * output
    return float(perceptron(mmoe.towers, task, mixed, len(CONFIG.tower_units))[0])


@torch.no_grad()
def test_equals_a_loop_over_tasks_and_experts() -> None:
    torch.manual_seed(0)
    mmoe = MMoE(9, tasks=2, config=CONFIG).double()
    rows = torch.randn(6, 9, dtype=torch.float64)
    expected = [[logit(mmoe, task, row) for task in range(2)] for row in rows]
    torch.testing.assert_close(
        mmoe(rows), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_every_task_has_a_gate_and_a_tower_of_its_own() -> None:
    torch.manual_seed(0)
    mmoe = MMoE(9, tasks=2, config=CONFIG)
    mmoe(torch.randn(6, 9))[:, 0].sum().backward()
    for grouped in (mmoe.gates, mmoe.towers):
        assert all(p.grad is not None and p.grad[0].abs().sum() > 0 for p in grouped.biases)
        assert all(p.grad is not None and p.grad[1].abs().sum() == 0 for p in grouped.biases)
