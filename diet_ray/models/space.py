"""The space of architectures: registered networks and the values of their hyper-parameters."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diet_ray.config import ConfigError, NetworkConfig
from diet_ray.models.registry import parameters_of
from diet_ray.seeds import derive

LARGEST_GRID = 100_000
"""Combinations of one network; more is most likely a slip, and takes minutes to validate."""


Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""Network name to hyper-parameter to the values that it can take."""


def draw(space: Space, count: int, seed: int, key: str) -> list[NetworkConfig]:
    """`count` different candidates, or all if the space holds fewer.

    The networks take turns in the order of the space. Each network's candidates come in an order
    that depends on the seed and on each candidate alone, so a larger count or more values keep
    those that were drawn before in their order. key: what errors call the space. Raises
    ConfigError if any combination is not valid.
    """
    if not space:
        raise ConfigError(f"{key}: names no network; give one, such as {{dcn: {{}}}}")
    grids = [
        sorted(grid(name, options, key), key=lambda network: derive(seed, identity(network, key)))
        for name, options in space.items()
    ]
    turns = itertools.zip_longest(*grids)
    in_turn = (network for turn in turns for network in turn if network is not None)
    return list(itertools.islice(in_turn, count))


def grid(name: str, options: Mapping[str, Sequence[Any]], key: str) -> list[NetworkConfig]:
    """Every combination of a network's options, each once. Raises ConfigError."""
    for parameter, values in options.items():
        if not values:
            raise ConfigError(f"{key}.{name}.{parameter}: no values; give some, or leave it out")
    count = math.prod(len(values) for values in options.values())
    if count > LARGEST_GRID:
        raise ConfigError(
            f"{key}.{name}: {count:,} combinations, at most {LARGEST_GRID:,} are possible; "
            "give fewer values"
        )
    distinct: dict[str, NetworkConfig] = {}
    for values in itertools.product(*options.values()):
        network = NetworkConfig(name=name, parameters=dict(zip(options, values, strict=True)))
        distinct.setdefault(identity(network, key), network)
    return list(distinct.values())


def identity(network: NetworkConfig, key: str) -> str:
    """Equal for equal networks, however they are written: defaults are filled in."""
    try:
        parameters = parameters_of(network).model_dump(mode="json")
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return json.dumps([network.name, parameters], sort_keys=True)
