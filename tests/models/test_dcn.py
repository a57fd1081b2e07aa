"""DCN against its formulas, row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.models.dcn import DCN, DCNParameters

FIELDS, DIM = 3, 4


def network(**parameters: object) -> DCN:
    torch.manual_seed(0)
    made = DCN(FIELDS, DIM, DCNParameters.model_validate(parameters)).double()
    for layer in made.crossnet.cross_net:  # fresh biases are zero, which would hide them
        nn.init.normal_(layer.bias)
    return made


def reference(made: DCN, row: Tensor) -> Tensor:
    """x_{l+1} = x_l + (w_l . x_l) x_0 + b_l, beside an MLP; row (F, d)."""
    x_0 = row.reshape(-1)
    crossed = x_0
    for layer in made.crossnet.cross_net:
        crossed = crossed + torch.dot(layer.weight.weight[0], crossed) * x_0 + layer.bias
    hidden = x_0
    for linear in made.dnn.mlp[::2]:
        hidden = (linear.weight @ hidden + linear.bias).clamp(min=0)
    return torch.cat([crossed, hidden])


@torch.no_grad()
def test_equals_its_formulas() -> None:
    made = network(num_cross_layers=3, dnn_hidden_units=[10, 6])
    rows = torch.randn(7, FIELDS, DIM, dtype=torch.float64)
    expected = torch.stack([reference(made, row) for row in rows])
    torch.testing.assert_close(made(rows), expected, rtol=1e-12, atol=1e-12)
    assert made.output_dim == expected.shape[1] == FIELDS * DIM + 6


def test_defaults_are_those_of_the_field() -> None:
    defaults = DCNParameters()
    assert defaults.num_cross_layers == 3
    assert defaults.dnn_hidden_units == (1024, 512, 256)
    made = network()
    assert len(made.crossnet.cross_net) == 3
    assert [layer.out_features for layer in made.dnn.mlp[::2]] == [1024, 512, 256]


def test_parameters_are_named_as_in_the_zoo() -> None:
    made = network(num_cross_layers=1, dnn_hidden_units=[10, 6])
    expected = {"crossnet.cross_net.0.weight.weight", "crossnet.cross_net.0.bias"}
    expected |= {f"dnn.mlp.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")}
    assert set(made.state_dict()) == expected
