"""WuKong against its formulas, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diet_ray.models.layers import MLPBlock
from diet_ray.models.wukong import FactorizationMachineBlock, WuKong, WuKongLayer, WuKongParameters

FIELDS, DIM = 4, 3
SIZES = {
    "num_layers": 2,
    "fmb_features": 2,
    "lcb_features": 3,
    "rank": 2,
    "fmb_units": [6, 5],
    "mlp_hidden_units": [7],
}


def network(**parameters: object) -> WuKong:
    torch.manual_seed(0)
    made = WuKong(FIELDS, DIM, WuKongParameters.model_validate({**SIZES, **parameters})).double()
    for part in made.modules():  # fresh scales and shifts are 1 and 0, which would hide them
        if isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return made


def normed(norm: nn.LayerNorm, values: Tensor) -> Tensor:
    centred = values - values.mean()
    return centred / (centred.pow(2).mean() + 1e-5).sqrt() * norm.weight + norm.bias


def perceptron(block: MLPBlock, row: Tensor) -> Tensor:
    for linear in block.mlp[::2]:
        row = (linear.weight @ row + linear.bias).clamp(min=0)
    return row


def machine(block: FactorizationMachineBlock, x: Tensor) -> Tensor:
    """MLP(LN(flatten(X (X^T Y)))); x (n, d)."""
    interactions = (x @ x.T) @ block.proj_Y
    row = normed(block.layer_norm, interactions.reshape(-1))
    *hidden, last = block.mlp.mlp[::2]
    for linear in hidden:
        row = (linear.weight @ row + linear.bias).clamp(min=0)
    return (last.weight @ row + last.bias).reshape(block.features, block.dim)


def layer_output(layer: WuKongLayer, x: Tensor) -> Tensor:
    """LN([FMB, LCB] + residual), the norm over each embedding."""
    residual = x
    if not isinstance(layer.residual_proj, nn.Identity):
        residual = layer.residual_proj.weight @ x
    out = torch.cat([machine(layer.fmb, x), layer.lcb.linear.weight @ x]) + residual
    return torch.stack([normed(layer.layer_norm, embedding) for embedding in out])


def reference(made: WuKong, x: Tensor) -> Tensor:
    for layer in made.wukong_stack:
        x = layer_output(layer, x)
    return perceptron(made.fc, x.reshape(-1))


@torch.no_grad()
@pytest.mark.parametrize("lcb_features", [3, 2])  # 2 + 2 outputs are as many as fields
def test_equals_its_formulas(lcb_features: int) -> None:
    made = network(lcb_features=lcb_features)
    rows = torch.randn(6, FIELDS, DIM, dtype=torch.float64)
    expected = torch.stack([reference(made, row) for row in rows])
    torch.testing.assert_close(made(rows), expected, rtol=1e-11, atol=1e-11)
    assert made.output_dim == expected.shape[1] == 7


def test_the_residual_is_projected_only_where_the_number_of_fields_differs() -> None:
    first, second = network().wukong_stack
    assert not isinstance(first.residual_proj, nn.Identity)
    assert isinstance(second.residual_proj, nn.Identity)
    assert isinstance(network(lcb_features=2).wukong_stack[0].residual_proj, nn.Identity)


def test_linear_compression_has_no_bias() -> None:
    layer = network().wukong_stack[0]
    assert [name for name, _ in layer.lcb.named_parameters()] == ["linear.weight"]
    assert [name for name, _ in layer.residual_proj.named_parameters()] == ["weight"]


def test_defaults_are_those_of_the_field() -> None:
    defaults = WuKongParameters()
    assert (defaults.num_layers, defaults.rank) == (3, 8)
    assert (defaults.fmb_features, defaults.lcb_features) == (40, 40)
    assert defaults.fmb_units == defaults.mlp_hidden_units == (512, 256)


def test_parameters_are_named_as_in_the_zoo() -> None:
    made = network(num_layers=1)
    layers = ["fmb.layer_norm", "fmb.mlp.mlp.0", "fmb.mlp.mlp.2", "fmb.mlp.mlp.4", "layer_norm"]
    layers = [f"wukong_stack.0.{layer}" for layer in layers] + ["fc.mlp.0"]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    matrices = ("fmb.proj_Y", "lcb.linear.weight", "residual_proj.weight")
    expected |= {f"wukong_stack.0.{name}" for name in matrices}
    assert set(made.state_dict()) == expected


@torch.no_grad()
def test_a_bias_of_the_projected_residual_would_change_nothing() -> None:
    """Why there is none: the zoo has one."""
    layer = network(num_layers=1).wukong_stack[0]
    x = torch.randn(5, FIELDS, DIM, dtype=torch.float64)
    blocks = torch.cat([layer.fmb(x), layer.lcb(x)], dim=1)
    bias = torch.randn(layer.outputs, 1, dtype=torch.float64)
    moved = layer.layer_norm(blocks + layer.residual_proj(x) + bias)
    torch.testing.assert_close(moved, layer(x), rtol=1e-10, atol=1e-10)
