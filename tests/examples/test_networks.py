"""The examples' networks, judged by a sweep's real trials on a small published set."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from diet_ray.config import load_config
from diet_ray.search.sweep import check_space, sweep
from diet_ray.training.stream import train_reference
from tests.made import made_blocks
from tests.search.prepared import config_at, publish_distilled

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {
    "own_network": "examples.own_network:GatedFields",
    "fuxictr_network": "fuxictr:examples.fuxictr_network:WideAndCross",
}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("use", ["cotrain", "inherit"])
def test_the_examples_networks_are_judged(tmp_path: Path, use: str) -> None:
    """With and without BatchNorm and dropout."""
    examples = {name: load_config(str(EXAMPLES / f"{name}.yaml")) for name in OWN}
    space = {own: examples[name].search.space[own] for name, own in OWN.items()}
    config = config_at(tmp_path, space=space, use=use)
    blocks = made_blocks(config.place("blocks"))
    train_reference(config, blocks)
    publish_distilled(config, blocks)
    lines = sweep(config).lines
    assert Counter(line.network for line in lines) == dict.fromkeys(OWN.values(), 2)
    for line in lines:
        assert line.error is None
        assert line.score is not None
        assert math.isfinite(line.score)
        assert line.dense_parameters is not None
    assert len({line.score for line in lines}) == len(lines)


@pytest.mark.parametrize("name", OWN)
def test_an_examples_configuration_is_valid(name: str) -> None:
    config = load_config(str(EXAMPLES / f"{name}.yaml"))
    assert OWN[name] in config.search.space
    check_space(config)
