"""The proxy: which network a shard's inner loop trains, and where it starts (paper, 4.2.2).

The networks of `distill.inner.networks` take turns from logical shard to shard, so that synthetic
rows serve all of them, not one alone. Fusion and addressing, which belong to no shard, use the
first. With none given the proxy is the reference's own network, which alone can start from phi.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.models.functional import flatten_parameters
from diet_ray.training.reference import Reference, load_reference, reference_uri


def proxy_networks(config: RunConfig) -> list[NetworkConfig]:
    """The networks that take turns, at least one."""
    return config.distill.inner.networks or [config.reference.network]


def turn(config: RunConfig, step: int, shard: int) -> int:
    """Which of `proxy_networks` a shard trains; with one shard per step they alternate too."""
    distill = config.distill
    return (step * distill.logical_shards + shard) % len(proxy_networks(config))


def embedding_stage(config: RunConfig, stage: int) -> int:
    """Number of the reference that embeds a stage's rows while they are optimised."""
    return stage - 1 if config.distill.unseen and stage > 1 else stage


def inner_start(
    config: RunConfig, stage: int, *path: int, load: Callable[[int], Reference] | None = None
) -> np.ndarray:
    """theta_0 of the proxy, (P,) float32; path: round, or round, step and shard.

    A fresh start's seed holds the whole path, and with it the turn. `mixed` alternates over step +
    shard; for addressing, which has neither, it means the previous reference. At stage 1 there is
    no previous reference, so it is fresh (paper, section 4.2.2). load: phi_t by t, for a caller
    that keeps them.
    """
    load = load or (lambda number: load_reference(reference_uri(config, number)))
    start, (step, shard) = config.distill.inner.start, path[1:] or (0, 0)
    alternate = start == "mixed" and (step + shard) % 2 == 1
    if stage > 1 and start != "fresh" and not alternate:
        return flatten_parameters(load(stage - 1).dense).numpy()
    network = proxy_networks(config)[turn(config, step, shard)]
    reference = load(embedding_stage(config, stage))  # any: only its fields and tasks count
    fresh = reference.fresh(network, config.seed, "inner start", stage, *path)
    return flatten_parameters(fresh).numpy()
