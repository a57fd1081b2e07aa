"""FinalNet against its formulas, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diet_ray.config import ConfigError, NetworkConfig
from diet_ray.models.finalnet import FinalBlock, FinalNet, FinalNetParameters
from diet_ray.models.registry import parameters_of

FIELDS, DIM = 3, 4
SIZES = {"block1_hidden_units": [10, 6], "block2_hidden_units": [8, 4]}


def network(**parameters: object) -> FinalNet:
    torch.manual_seed(0)
    made = FinalNet(FIELDS, DIM, FinalNetParameters.model_validate({**SIZES, **parameters}))
    return made.double()


def rows(count: int = 7) -> Tensor:
    return torch.randn(count, FIELDS, DIM, dtype=torch.float64)


def block(made: FinalBlock, row: Tensor, residual_type: str) -> Tensor:
    """h = W x + b, cut into (h2, h1); [h2, h1 * h2] or h2 + h1 * h2."""
    for interaction in made.layer:
        h = interaction.linear.weight @ row + interaction.linear.bias
        half = len(h) // 2
        h2, h1 = h[:half], h[half:]
        row = torch.cat([h2, h1 * h2]) if residual_type == "concat" else h2 + h1 * h2
    return row


@torch.no_grad()
@pytest.mark.parametrize("residual_type", ["concat", "sum"])
def test_equals_its_formulas(residual_type: str) -> None:
    made, given = network(residual_type=residual_type), rows()
    found = made(given)
    assert isinstance(found, tuple)
    for branch, part in zip(found, (made.block1, made.block2), strict=True):
        assert part is not None
        expected = torch.stack([block(part, row.reshape(-1), residual_type) for row in given])
        torch.testing.assert_close(branch, expected, rtol=1e-12, atol=1e-12)
    assert made.output_dim == tuple(branch.shape[1] for branch in found) == (6, 4)


@torch.no_grad()
def test_one_block_is_one_branch() -> None:
    made, given = network(block_type="1B"), rows()
    expected = torch.stack([block(made.block1, row.reshape(-1), "concat") for row in given])
    torch.testing.assert_close(made(given), expected, rtol=1e-12, atol=1e-12)
    assert made.output_dim == 6
    assert not any(name.startswith("block2") for name, _ in made.named_parameters())


@torch.no_grad()
def test_the_first_block_sees_each_field_beside_its_gated_self() -> None:
    made, given = network(use_feature_gating=True), rows()
    linear = made.feature_gating.linear
    assert not linear.weight.any()
    assert (linear.bias == 1).all()
    nn.init.normal_(linear.weight)
    nn.init.normal_(linear.bias)
    found = made(given)
    for number, row in enumerate(given):
        gates = torch.stack(
            [
                sum((linear.weight[f, g] * row[g] for g in range(FIELDS)), linear.bias[f])
                for f in range(FIELDS)
            ]
        )
        gated = torch.cat([row, row * gates]).reshape(-1)
        torch.testing.assert_close(found[0][number], block(made.block1, gated, "concat"))
        plain = block(made.block2, row.reshape(-1), "concat")
        torch.testing.assert_close(found[1][number], plain)


def test_parameters_are_named_as_in_the_zoo() -> None:
    layers = [f"block{b}.layer.{n}.linear" for b in (1, 2) for n in (0, 1)]
    layers.append("feature_gating.linear")
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(network(use_feature_gating=True).state_dict()) == expected


def test_defaults_are_those_of_the_field() -> None:
    assert FinalNetParameters().model_dump() == {
        "block_type": "2B",
        "use_feature_gating": False,
        "block1_hidden_units": (64, 64, 64),
        "block2_hidden_units": (64, 64, 64),
        "residual_type": "concat",
    }


def test_halves_of_an_odd_width_are_refused() -> None:
    odd = {**SIZES, "block2_hidden_units": [8, 5]}
    with pytest.raises(ConfigError, match=r"network finalnet: .*\(8, 5\) must be even; .*sum"):
        parameters_of(NetworkConfig(name="finalnet", parameters=odd))
    assert network(block2_hidden_units=[8, 5], residual_type="sum").output_dim == (6, 5)
