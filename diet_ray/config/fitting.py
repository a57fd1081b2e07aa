"""What is left to the log's size: the values of the keys that are `Fitted` (`section.py`).

`fit` is a pure function of the configuration and the number of historical rows. It is applied once
the blocks are there and before anything is trained, so what is hashed and published states values.
A key that was given keeps its value, whatever the size.

The sizes of small logs are measured (RESULTS.md: KuaiRand-Pure, MovieLens-100K). A long log can
feed larger networks and has steps enough with larger batches; the largest sizes are those of the
networks' authors and of the paper's experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from diet_ray.config.models import MMoEConfig, NetworkConfig
from diet_ray.config.recipe import DistillConfig
from diet_ray.config.run import RunConfig
from diet_ray.config.section import Section

SMALLEST_SET = 2_400
"""Rows below which a set is made larger than its share: as many as one training of the default
co-training takes, without seeing any of them twice."""
LARGEST_RATIO = 0.2
"""A set that is no longer small saves nothing."""

MOST_SHARDS = 8
"""Of the reference's batches, and so workers that can share them by default."""
FEWEST_SHARD_ROWS = 128
"""In smaller ones a step of one worker takes longer than in one part: 1.4 times with 32 rows, 1.3
with 128, 1.0 with 512 (networks of SMALL, MEDIUM, LARGE on a CPU)."""

FEWEST_META_SHARDS = 2
"""Of an outer step. Two of one memory's shards hardly agree (RESULTS.md), so one alone is noise."""
PASSES = 1
"""Over the active memory, that a stage makes at least. At 1.5% of the rows one costs a seventh of
what training on the stage's block does."""

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Sizes:
    """What fits logs of at most so many historical rows."""

    rows: float
    mmoe: MMoEConfig
    dcn: NetworkConfig
    wukong: NetworkConfig
    together: bool  # both on one table are the reference; else DCN alone
    batch_size: int  # of the reference and of candidates on real blocks
    learning_rate: float  # likewise
    ratio: float
    inner_learning_rate: float


def _mmoe(expert_units: list[int], units: list[int], experts: int = 4) -> MMoEConfig:
    return MMoEConfig(
        experts=experts, expert_units=expert_units, gate_units=units, tower_units=units
    )


def _dcn(layers: int, units: list[int]) -> NetworkConfig:
    return NetworkConfig(
        name="dcn", parameters={"num_cross_layers": layers, "dnn_hidden_units": units}
    )


def _wukong(layers: int, features: int, fmb_units: list[int], units: list[int]) -> NetworkConfig:
    return NetworkConfig(
        name="wukong",
        parameters={
            "num_layers": layers,
            "fmb_features": features,
            "lcb_features": features,
            "rank": 8,
            "fmb_units": fmb_units,
            "mlp_hidden_units": units,
        },
    )


SMALL = Sizes(
    rows=1e6,
    mmoe=_mmoe([64, 32], [32]),
    dcn=_dcn(2, [128, 64]),
    wukong=_wukong(2, 8, [64], [64]),
    together=True,
    batch_size=64,
    learning_rate=2e-3,
    ratio=0.03,
    inner_learning_rate=3e-3,
)
MEDIUM = Sizes(
    rows=1e8,
    mmoe=_mmoe([128, 64], [64]),
    dcn=_dcn(3, [256, 128]),
    wukong=_wukong(2, 16, [128], [128, 64]),
    together=True,
    batch_size=512,
    learning_rate=1e-3,
    ratio=0.015,
    inner_learning_rate=1e-3,
)
LARGE = Sizes(
    rows=math.inf,
    mmoe=_mmoe([512, 256, 128], [128, 64], experts=8),
    dcn=_dcn(3, [1024, 512, 256]),
    wukong=_wukong(3, 40, [512, 256], [512, 256]),
    together=False,
    batch_size=4_096,
    learning_rate=1e-3,
    ratio=0.01,
    inner_learning_rate=1e-3,
)


def sizes_of(historical_rows: int) -> Sizes:
    """The first sizes of the table that reach so far."""
    return next(sizes for sizes in (SMALL, MEDIUM, LARGE) if historical_rows <= sizes.rows)


def fit(config: RunConfig, historical_rows: int) -> RunConfig:
    """The configuration with a value for every key that was left to the log's size."""
    sizes, inner, evaluation = sizes_of(historical_rows), config.distill.inner, config.evaluation
    both = [sizes.dcn, sizes.wukong]
    steps = {"batch_size": sizes.batch_size, "learning_rate": sizes.learning_rate}
    fitted_together = sizes.together and config.reference.network is None
    proxies = both if fitted_together and inner.start == "fresh" else []
    inner = _filled(inner, networks=proxies, learning_rate=sizes.inner_learning_rate)
    protocol = _filled(evaluation.protocol, **steps)
    reference = _filled(config.reference, network=_reference(sizes), **steps)
    reference = _filled(reference, logical_shards=_shards(reference.batch_size))
    memory = _filled(config.memory, ratio=_ratio(sizes, historical_rows))
    distill = config.distill.model_copy(update={"inner": inner})
    active = distill.active_fraction * memory.ratio * historical_rows
    return config.model_copy(
        update={
            "models": _filled(config.models, mmoe=sizes.mmoe),
            "reference": reference,
            "memory": memory,
            "distill": _filled(distill, logical_shards=_meta_shards(distill, active)),
            "evaluation": _filled(evaluation, candidates=both).model_copy(
                update={"protocol": protocol}
            ),
        }
    )


def _filled(section: S, **values: Any) -> S:
    """The section with these values in the place of None."""
    missing = {key: value for key, value in values.items() if getattr(section, key) is None}
    return section.model_copy(update=missing)


def _reference(sizes: Sizes) -> NetworkConfig:
    if not sizes.together:
        return sizes.dcn
    both = (sizes.dcn, sizes.wukong)
    members = [network.model_dump(mode="json", exclude={"label"}) for network in both]
    return NetworkConfig(name="ensemble", parameters={"networks": members})


def _shards(batch_size: int) -> int:
    """A power of two, so that many numbers of workers divide it."""
    shards = MOST_SHARDS
    while shards > 1 and batch_size < shards * FEWEST_SHARD_ROWS:
        shards //= 2
    return shards


def _meta_shards(distill: DistillConfig, active_rows: float) -> int:
    """As many as pass over that many rows within a stage's steps."""
    of_one = distill.model_copy(update={"logical_shards": 1}).rows_of_stage()
    if not of_one:
        return FEWEST_META_SHARDS
    return max(math.ceil(PASSES * active_rows / of_one), FEWEST_META_SHARDS)


def _ratio(sizes: Sizes, historical_rows: int) -> float:
    enough = math.ceil(1e4 * SMALLEST_SET / historical_rows) / 1e4  # four digits, to be read
    return min(max(sizes.ratio, enough), LARGEST_RATIO)


def describe_fit(given: RunConfig, fitted: RunConfig) -> list[str]:
    """A line `key.path: value` for every key that `fit` filled in."""
    before, after = (c.model_dump(mode="json", exclude_none=True) for c in (given, fitted))
    return _added("", before, after)


def _added(path: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in after.items():
        if key not in before:
            lines.append(f"{path}{key}: {value}")
        elif isinstance(value, dict):
            lines += _added(f"{path}{key}.", before[key], value)
    return lines
