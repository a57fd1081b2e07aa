"""Every built-in network, as small as it still shows what it is made of."""

from __future__ import annotations

from typing import Any

from diet_ray.config import NetworkConfig

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
