"""FinalMLP against its formulas, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diet_ray.config import ConfigError, NetworkConfig
from diet_ray.models.finalmlp import FinalMLP, FinalMLPParameters, InteractionAggregation
from diet_ray.models.layers import MLPBlock
from diet_ray.models.registry import parameters_of

FIELDS, DIM = 3, 4
SIZES = {
    "mlp1_hidden_units": [10, 6],
    "mlp2_hidden_units": [9, 8],
    "fs_hidden_units": [5],
    "num_heads": 2,
    "fusion_dim": 3,
}


def network(**parameters: object) -> FinalMLP:
    torch.manual_seed(0)
    made = FinalMLP(FIELDS, DIM, FinalMLPParameters.model_validate({**SIZES, **parameters}))
    if made.fs_module is not None:  # fresh contexts are zero, which would hide them
        nn.init.normal_(made.fs_module.fs1_ctx_bias)
        nn.init.normal_(made.fs_module.fs2_ctx_bias)
    return made.double()


def rectified(block: MLPBlock, row: Tensor) -> Tensor:
    for linear in block.mlp[::2]:
        row = (linear.weight @ row + linear.bias).clamp(min=0)
    return row


def gate(block: MLPBlock, context: Tensor) -> Tensor:
    """2 sigma(MLP(c)), the last layer linear."""
    *hidden, last = block.mlp[::2]
    for linear in hidden:
        context = (linear.weight @ context + linear.bias).clamp(min=0)
    return 2 / (1 + torch.exp(-(last.weight @ context + last.bias)))


def fused(fusion: InteractionAggregation, a: Tensor, b: Tensor) -> Tensor:
    """w_a . a + w_b . b + sum over heads of a_h^T W_h b_h, number by number."""
    heads = fusion.heads
    per_a, per_b = len(a) // heads, len(b) // heads
    weights = fusion.w_xy.reshape(heads, per_a, fusion.output_dim, per_b)
    numbers = []
    for r in range(fusion.output_dim):
        number = fusion.w_x.weight[r] @ a + fusion.w_x.bias[r]
        number = number + fusion.w_y.weight[r] @ b + fusion.w_y.bias[r]
        for h in range(heads):
            a_h, b_h = a[h * per_a : (h + 1) * per_a], b[h * per_b : (h + 1) * per_b]
            number = number + a_h @ weights[h, :, r] @ b_h
        numbers.append(number)
    return torch.stack(numbers)


def reference(made: FinalMLP, row: Tensor) -> Tensor:
    a = b = row.reshape(-1)
    selection = made.fs_module
    if selection is not None:
        a = a * gate(selection.fs1_gate, selection.fs1_ctx_bias[0])
        b = b * gate(selection.fs2_gate, selection.fs2_ctx_bias[0])
    return fused(made.fusion_module, rectified(made.mlp1, a), rectified(made.mlp2, b))


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("use_fs", [True, False])
def test_equals_its_formulas(use_fs: bool, heads: int) -> None:
    made = network(use_fs=use_fs, num_heads=heads)
    rows = torch.randn(7, FIELDS, DIM, dtype=torch.float64)
    expected = torch.stack([reference(made, row) for row in rows])
    torch.testing.assert_close(made(rows), expected, rtol=1e-12, atol=1e-12)
    assert made.output_dim == expected.shape[1] == 3


def test_parameters_are_named_as_in_the_zoo() -> None:
    layers = ["mlp1.mlp.0", "mlp1.mlp.2", "mlp2.mlp.0", "mlp2.mlp.2"]
    layers += [f"fs_module.fs{s}_gate.mlp.{n}" for s in (1, 2) for n in (0, 2)]
    layers += ["fusion_module.w_x", "fusion_module.w_y"]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    expected |= {"fs_module.fs1_ctx_bias", "fs_module.fs2_ctx_bias", "fusion_module.w_xy"}
    made = network()
    assert set(made.state_dict()) == expected
    assert made.fusion_module.w_xy.shape == (2 * 3 * 4, 3)


def test_defaults_are_those_of_the_field() -> None:
    defaults = FinalMLPParameters()
    assert defaults.mlp1_hidden_units == (1024, 512)
    assert defaults.mlp2_hidden_units == (1024, 512, 256)
    assert (defaults.num_heads, defaults.use_fs, defaults.fs_hidden_units) == (2, True, (64,))
    assert network(mlp2_hidden_units=[8], fs_hidden_units=[]).fs_module is not None


def test_heads_that_do_not_divide_a_stream_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_heads 3 does not divide 8, .* mlp2_hidden_units"):
        parameters_of(NetworkConfig(name="finalmlp", parameters={**SIZES, "num_heads": 3}))
