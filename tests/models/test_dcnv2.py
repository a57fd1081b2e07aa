"""DCNv2 against its formulas, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.models.dcnv2 import DCNv2, DCNv2Parameters

FIELDS, DIM = 3, 4


def network(**parameters: object) -> DCNv2:
    torch.manual_seed(0)
    return DCNv2(FIELDS, DIM, DCNv2Parameters.model_validate(parameters)).double()


def reference(made: DCNv2, row: Tensor) -> Tensor:
    """x_{l+1} = x_l + x_0 * (W_l x_l + b_l), beside an MLP; row (F, d)."""
    x_0 = row.reshape(-1)
    crossed = x_0
    for layer in made.crossnet.cross_layers:
        crossed = crossed + x_0 * (layer.weight @ crossed + layer.bias)
    hidden = x_0
    for linear in made.parallel_dnn.mlp[::2]:
        hidden = (linear.weight @ hidden + linear.bias).clamp(min=0)
    return torch.cat([crossed, hidden])


@torch.no_grad()
def test_equals_its_formulas() -> None:
    made = network(num_cross_layers=3, parallel_dnn_hidden_units=[10, 6])
    rows = torch.randn(7, FIELDS, DIM, dtype=torch.float64)
    expected = torch.stack([reference(made, row) for row in rows])
    torch.testing.assert_close(made(rows), expected, rtol=1e-12, atol=1e-12)
    assert made.output_dim == expected.shape[1] == FIELDS * DIM + 6


def test_parameters_are_named_as_in_the_zoo() -> None:
    made = network(num_cross_layers=2, parallel_dnn_hidden_units=[10, 6])
    layers = [
        *("crossnet.cross_layers.0", "crossnet.cross_layers.1"),
        *("parallel_dnn.mlp.0", "parallel_dnn.mlp.2"),
    ]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(made.state_dict()) == expected


def test_defaults_are_those_of_the_field() -> None:
    defaults = DCNv2Parameters()
    assert defaults.num_cross_layers == 3
    assert defaults.parallel_dnn_hidden_units == (500, 500, 500)
    made = network()
    assert len(made.crossnet.cross_layers) == 3
    assert [layer.out_features for layer in made.parallel_dnn.mlp[::2]] == [500, 500, 500]
