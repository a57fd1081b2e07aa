"""Damaged YAML, any value in any place, any override: a configuration, or an error of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import RunConfig, load_config, make_config
from diet_ray.pipeline import check_networks
from tests.fuzz.damage import changed_trees, damages, fuzzed, only_our_errors, values
from tests.made import SMALL

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
WHOLE = {**SMALL, "output": "x"}
EVERY_KEY = RunConfig.model_validate(WHOLE).model_dump(mode="json")


@fuzzed
@given(config=st.sampled_from(CONFIGS), damage=damages)
def test_a_damaged_file(
    config: Path, damage: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_bytes(damage(config.read_bytes()))
    with only_our_errors():
        assert isinstance(load_config(str(path)), RunConfig)


@fuzzed
@given(tree=changed_trees(EVERY_KEY))
def test_a_value_that_does_not_belong_there(tree: Any) -> None:
    with only_our_errors():
        if isinstance(tree, dict):
            made = make_config(tree)
            if made.logs is not None and made.logs.source == "synthetic":
                check_networks(made)


@fuzzed
@given(
    key=st.sampled_from(["seed", "logs.intervals.test", "memory.ratio", "a.b", "", "output"]),
    value=st.text(max_size=30) | values.map(str),
)
def test_an_override(key: str, value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump(WHOLE))
    with only_our_errors():
        load_config(str(path), [f"{key}={value}"])
