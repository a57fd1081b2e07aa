"""The functions of the package do what the jobs do, from a configuration in any form."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

import diet_ray
from diet_ray import library, pipeline, runtime
from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.context import stage_uri
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.running import lease
from diet_ray.search.finish import FinishedError
from diet_ray.search.leaderboard import Line
from diet_ray.training.stream import train_reference
from tests.made import made_blocks, small_config
from tests.search.prepared import SPACE, config_at, publish_distilled

TREE: dict[str, Any] = small_config("somewhere").model_dump(mode="json")
PAIR = {"dcn": {"num_cross_layers": [1, 2], "dnn_hidden_units": [[8]]}}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """With what the jobs' functions were called, instead of doing it; no Ray is started."""
    called: list[RunConfig] = []
    monkeypatch.setattr(lease, "held", lambda _: nullcontext())
    monkeypatch.setattr(runtime, "connect", nullcontext)
    for name in ("distill_logs", "search_architectures"):
        monkeypatch.setattr(pipeline, name, called.append)
    return called


@pytest.fixture(scope="module")
def published(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set without its run."""
    folder = tmp_path_factory.mktemp("published")
    config = config_at(folder / "run")
    blocks = made_blocks(config.place("blocks"))
    train_reference(config, blocks)
    publish_distilled(config, blocks)
    shutil.copytree(stage_uri(config, 3), folder / "set")
    shutil.rmtree(folder / "run")
    return str(folder / "set")


@pytest.mark.parametrize("function", [diet_ray.distill, diet_ray.sweep])
def test_a_configuration_may_be_given_in_any_form(
    tmp_path: Path, done: list[RunConfig], function: Callable[[Any], object]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(TREE))
    for given in (TREE, RunConfig.model_validate(TREE), file, str(file)):
        function(given)
    assert done == [RunConfig.model_validate(TREE)] * 4


def test_what_a_sweep_is_given_beside_its_configuration_comes_first(
    done: list[RunConfig],
) -> None:
    diet_ray.sweep(TREE, distilled="/some/set", output="/out", trials=3, space=PAIR)
    (config,) = done
    assert (config.output, config.search.distilled) == ("/out", "/some/set")
    assert config.search.trials == 3
    assert list(config.search.space) == ["dcn"]
    assert config.models == RunConfig.model_validate(TREE).models


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: diet_ray.distill({**TREE, "memori": {}}), "memori: unknown key; did you mean"),
        (lambda: diet_ray.distill(without_logs()), "logs: required"),
        (lambda: diet_ray.sweep(PAIR), "a space alone (dcn) has no set to sweep over"),
        (lambda: diet_ray.sweep(TREE, trails=3), "search.trails: unknown key; did you mean"),
        (lambda: diet_ray.sweep(TREE, space={"dnc": {}}), "no network 'dnc'; did you mean 'dcn'"),
    ],
)
def test_what_cannot_run_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], told: str
) -> None:
    monkeypatch.setattr(runtime, "connect", None)
    with pytest.raises(ConfigError, match=re.escape(told)):
        call()


def without_logs() -> dict[str, Any]:
    return {"output": "somewhere", "search": {"distilled": "some/set"}}


def test_a_sets_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="name a published stage"):
        diet_ray.sweep(PAIR, distilled=str(tmp_path))
    with pytest.raises(ArtifactError, match="name a published stage"):
        diet_ray.load_distilled(str(tmp_path))
    with pytest.raises(ArtifactError, match="name a published stage"):
        diet_ray.export(str(tmp_path), str(tmp_path / "plain"))
    with pytest.raises(FinishedError, match="no such file"):
        diet_ray.load_finished(str(tmp_path))


@pytest.mark.usefixtures("ray_session")
def test_a_space_and_a_set_are_enough(
    published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The same as a configuration of the same; nothing is said, and Ray stays connected."""
    monkeypatch.chdir(tmp_path)
    searched = diet_ray.sweep(PAIR, distilled=published, trials=2)
    assert capfd.readouterr().out == ""
    assert ray.is_initialized()
    assert searched.uri == str(tmp_path / "sweep/search/leaderboard.json")

    config = {
        "output": str(tmp_path / "configured"),
        "models": {"embedding_dim": artifact.describe(published).embedding_dim},
        "search": {"space": PAIR, "trials": 2, "distilled": published},
    }
    configured = diet_ray.sweep(config)
    assert without_seconds(configured.swept.lines) == without_seconds(searched.swept.lines)
    assert searched.best == searched.swept.lines[0].candidate
    assert searched.table["score"].tolist() == [line.score for line in searched.swept.lines]


def without_seconds(lines: list[Line]) -> list[Line]:
    return [replace(line, seconds=0) for line in lines]


@pytest.mark.parametrize(
    ("tree", "space"), [(SPACE, True), ({}, True), (TREE, False), ({"output": "x"}, False)]
)
def test_a_space_is_told_from_a_configuration(tree: dict[str, Any], space: bool) -> None:
    assert library.is_space(tree) == space
