"""Shared layers against the same layers written one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diet_ray.models.layers import GroupedMLP, MLPBlock


def separate(grouped: GroupedMLP, group: int, rectified: int) -> nn.Sequential:
    """One group as a plain multi-layer perceptron."""
    layers: list[nn.Module] = []
    for number, (weight, bias) in enumerate(zip(grouped.weights, grouped.biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[2]).double()
        with torch.no_grad():
            linear.weight.copy_(weight[group].T)
            linear.bias.copy_(bias[group, 0])
        layers += [linear, *([nn.ReLU()] if number < rectified else [])]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("units", "output_dim"), [([7], None), ([7, 6], None), ([], 2), ([7], 2), ([7, 6], 2)]
)
@pytest.mark.parametrize("shared_input", [True, False])
def test_grouped_perceptrons_equal_separate_ones(
    units: list[int], output_dim: int | None, shared_input: bool
) -> None:
    torch.manual_seed(0)
    grouped = GroupedMLP(3, 5, units, output_dim).double()
    inputs = torch.randn(1 if shared_input else 3, 11, 5, dtype=torch.float64)
    outputs = grouped(inputs)
    assert outputs.shape == (3, 11, grouped.output_dim)
    for group in range(3):
        expected = separate(grouped, group, len(units))(inputs[0 if shared_input else group])
        torch.testing.assert_close(outputs[group], expected, rtol=1e-12, atol=1e-12)


def test_a_group_of_perceptrons_starts_like_linear_layers() -> None:
    torch.manual_seed(0)
    grouped = GroupedMLP(40, 25, [30])
    for values in (grouped.weights[0].detach(), grouped.biases[0].detach()):
        assert values.abs().max() <= 0.2
        assert values.std() == pytest.approx(0.2 / 3**0.5, rel=0.05)


def _one_row(block: MLPBlock, row: Tensor) -> Tensor:
    for layer in block.mlp:
        if isinstance(layer, nn.Linear):
            row = (layer.weight @ row + layer.bias).clamp(min=0)
    return row


def test_mlp_block_rectifies_every_layer() -> None:
    torch.manual_seed(0)
    block = MLPBlock(5, [7, 3]).double()
    inputs = torch.randn(9, 5, dtype=torch.float64)
    expected = torch.stack([_one_row(block, row) for row in inputs])
    torch.testing.assert_close(block(inputs), expected, rtol=1e-12, atol=1e-12)
    assert block.output_dim == 3


def test_mlp_block_ends_linearly_where_an_output_width_is_given() -> None:
    torch.manual_seed(0)
    block = MLPBlock(5, [7], 3).double()
    inputs = torch.randn(9, 5, dtype=torch.float64)
    first, _, last = block.mlp
    hidden = (inputs @ first.weight.T + first.bias).clamp(min=0)
    expected = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(block(inputs), expected, rtol=1e-12, atol=1e-12)
    assert (expected < 0).any()
    assert block.output_dim == 3
