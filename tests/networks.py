"""Every built-in network, as small as it still shows what it is made of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diet_ray.config import NetworkConfig
from diet_ray.models.mmoe import MMoE

SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "dcn": {"num_cross_layers": 2, "dnn_hidden_units": [6, 5]},
    "dcnv2": {"num_cross_layers": 2, "parallel_dnn_hidden_units": [6, 5]},
    "finalmlp": {
        "mlp1_hidden_units": [6, 4],
        "mlp2_hidden_units": [7, 6],
        "fs_hidden_units": [5],
        "num_heads": 2,
        "fusion_dim": 5,
    },
    "finalnet": {
        "use_feature_gating": True,
        "block1_hidden_units": [6, 4],
        "block2_hidden_units": [6, 6],
    },
    "wukong": {
        "num_layers": 2,
        "fmb_features": 2,
        "lcb_features": 2,
        "rank": 2,
        "fmb_units": [4],
        "mlp_hidden_units": [8],
    },
}


def small_network(name: str) -> NetworkConfig:
    """The network called `name` at its small size."""
    return NetworkConfig(name=name, parameters=SMALL_NETWORKS[name])


@torch.no_grad()
def starve(dense: nn.Module) -> None:
    """Leave some parameters without a gradient and some with hardly any, as in a large network.

    In every MMoE of two experts the first expert loses a unit of its first layer, for good; the
    gates let through 1e-5 of the second expert.
    """
    for head in dense.modules():
        if isinstance(head, MMoE):
            head.experts.biases[0][0, 0, 0] = -100
            head.gates.weights[-1].zero_()
            head.gates.biases[-1][..., 0], head.gates.biases[-1][..., 1] = 0, math.log(1e-5)


def assert_starved(second_moments: Tensor) -> None:
    """Adam's second moments, of a few hundred steps at most, reach far below its epsilon, 1e-8."""
    roots = second_moments.sqrt()
    assert (roots == 0).any()
    assert ((roots > 0) & (roots < 1e-8)).any()
    assert ((roots > 1e-8) & (roots < 1e-7)).any()
