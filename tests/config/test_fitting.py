"""Keys that were left to the log's size: what they become, and that given ones stay."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import RunConfig, describe_fit, fit, load_config
from diet_ray.config.fitting import LARGE, LARGEST_RATIO, MEDIUM, SMALL, SMALLEST_SET, sizes_of
from diet_ray.models.registry import parameters_of
from tests.made import SMALL as GIVEN
from tests.made import small_config

CONFIGS = Path(__file__).parents[2] / "configs"
OPEN: dict[str, Any] = {"output": "results/open", "logs": GIVEN["logs"]}


def opened(**sections: Any) -> RunConfig:
    """A configuration that names a log, and these sections."""
    return RunConfig.model_validate({**OPEN, **sections})


def left_open(tree: Any, path: str = "") -> list[str]:
    """Keys without a value, in sections that can hold such."""
    if not isinstance(tree, dict):
        return [path] if tree is None else []
    return [leaf for key, value in tree.items() for leaf in left_open(value, f"{path}.{key}")]


@pytest.mark.parametrize("rows", [1, 100_000, 10**7, 10**10])
def test_every_open_key_gets_a_valid_value(rows: int) -> None:
    config = opened()
    fitted = fit(config, rows)
    sections = ("models", "memory", "distill")
    assert left_open(config.determining(*sections))
    assert left_open(fitted.determining(*sections)) == []
    assert left_open(fitted.evaluation.protocol.model_dump()) == []
    for network in (fitted.reference.network, *fitted.evaluation.candidates):
        parameters_of(network)
    again = RunConfig.model_validate(fitted.model_dump(mode="json"))
    assert again == fitted
    assert fit(fitted, 10**9) == fitted


def test_a_longer_log_never_gets_less() -> None:
    """Heads, networks and batches grow with the log; the share of it that is kept shrinks."""
    table = [SMALL, MEDIUM, LARGE]
    for shorter, longer in pairwise(table):
        assert shorter.rows < longer.rows
        assert shorter.batch_size <= longer.batch_size
        assert shorter.mmoe.expert_units[0] <= longer.mmoe.expert_units[0]
        assert shorter.ratio >= longer.ratio
        assert sizes_of(int(shorter.rows)) == shorter
        assert sizes_of(int(shorter.rows) + 1) == longer


@pytest.mark.parametrize("rows", [3_000, 20_000, 50_000, 79_999, 200_000])
def test_a_set_is_large_enough_to_train_on(rows: int) -> None:
    ratio = fit(opened(), rows).memory.ratio
    assert ratio == LARGEST_RATIO or ratio * rows >= SMALLEST_SET
    assert SMALL.ratio <= ratio <= LARGEST_RATIO


def test_what_is_given_stays() -> None:
    given = small_config("results/given")
    fitted = fit(given, 10**9)
    assert fitted == given
    assert describe_fit(given, fitted) == []


def test_part_of_a_section_can_be_given() -> None:
    config = opened(reference={"batch_size": 7}, evaluation={"protocol": {"learning_rate": 0.5}})
    fitted = fit(config, 10**5)
    assert (fitted.reference.batch_size, fitted.reference.learning_rate) == (7, SMALL.learning_rate)
    protocol = fitted.evaluation.protocol
    assert (protocol.batch_size, protocol.learning_rate) == (SMALL.batch_size, 0.5)


def test_proxies_are_the_members_of_a_fitted_reference() -> None:
    both = [SMALL.dcn, SMALL.wukong]
    assert fit(opened(), 10**5).distill.inner.networks == both
    assert fit(opened(reference={"network": {"name": "dcn"}}), 10**5).distill.inner.networks == []
    from_reference = {"inner": {"start": "previous_reference"}}
    assert fit(opened(distill=from_reference), 10**5).distill.inner.networks == []
    assert fit(opened(), 10**10).distill.inner.networks == []


def test_what_was_chosen_is_told_by_key() -> None:
    config = opened(reference={"batch_size": 7})
    lines = describe_fit(config, fit(config, 10**5))
    assert f"reference.learning_rate: {SMALL.learning_rate}" in lines
    assert f"memory.ratio: {SMALL.ratio}" in lines
    assert not [line for line in lines if line.startswith("reference.batch_size")]


@pytest.mark.parametrize("name", ["kuairand_pure", "kuairand_1k", "tmall", "taobao"])
def test_a_published_recipe_does_not_depend_on_the_logs_size(name: str) -> None:
    for end in ("", "_paper"):
        config = load_config(str(CONFIGS / f"{name}{end}.yaml"))
        assert fit(config, 10**3) == fit(config, 10**9)


@pytest.mark.parametrize(("batch_size", "shards"), [(1, 1), (64, 1), (512, 4), (700, 4), (4096, 8)])
def test_a_batch_is_cut_into_parts_that_are_worth_it(batch_size: int, shards: int) -> None:
    config = opened(reference={"batch_size": batch_size})
    assert fit(config, 10**5).reference.logical_shards == shards
    config = opened(reference={"batch_size": batch_size, "logical_shards": 3})
    assert fit(config, 10**5).reference.logical_shards == 3


@pytest.mark.parametrize(
    ("rows", "distill", "shards"),
    [
        (10**5, {}, 2),  # 3,000 rows of a memory, which two shards a step pass over 100 times
        (5 * 10**7, {}, 5),  # 750,000 rows; a shard takes 20 batches of 128 at each of 60 steps
        (5 * 10**7, {"active_fraction": 0.5}, 3),
        (5 * 10**7, {"rounds": 5, "inner": {"batch_size": 256}}, 2),
        (5 * 10**9, {}, 326),
        (5 * 10**9, {"logical_shards": 4}, 4),
        (5 * 10**9, {"outer_steps": 0}, 2),
    ],
)
def test_a_stage_passes_over_the_active_memory(
    rows: int, distill: dict[str, Any], shards: int
) -> None:
    config = fit(opened(distill=distill), rows)
    assert config.distill.logical_shards == shards
    if distill.keys() & {"logical_shards", "outer_steps"}:
        return
    active = config.memory.ratio * config.distill.active_fraction * rows
    assert config.distill.rows_of_stage() >= active
