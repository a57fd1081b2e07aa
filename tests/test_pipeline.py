"""What is refused before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray import pipeline
from diet_ray.config import ConfigError, RunConfig, fit
from diet_ray.pipeline import benchmark_logs, validate
from tests.made import made_blocks, small_config

UNKNOWN: dict[str, Any] = {"name": "wukongg"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"reference": {"network": UNKNOWN}},
        {"distill": {"inner": {"networks": [{"name": "dcn"}, UNKNOWN], "start": "fresh"}}},
        {"evaluation": {"candidates": [{"name": "dcn"}, UNKNOWN]}},
    ],
    ids=["reference", "proxy", "candidate"],
)
def test_an_unknown_network_is_refused_before_work_starts(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    output = tmp_path / "output"
    with pytest.raises(ConfigError, match="no network 'wukongg'; did you mean 'wukong'"):
        validate(small_config(str(output), **overrides))
    assert not output.exists()


def test_what_is_left_to_the_logs_size_is_chosen_before_the_reference_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = made_blocks(str(tmp_path / "blocks"))
    trained: list[RunConfig] = []

    def train(config: RunConfig, _: object) -> None:
        trained.append(config)
        raise InterruptedError

    monkeypatch.setattr(pipeline, "prepare", lambda _: blocks)
    monkeypatch.setattr(pipeline.runtime, "check_resources", lambda _: None)
    monkeypatch.setattr(pipeline, "train_reference", train)
    made = small_config(str(tmp_path / "run"))
    config = RunConfig(output=made.output, logs=made.logs)
    with pytest.raises(InterruptedError):
        pipeline.distill_logs(config)
    assert trained == [fit(config, blocks.historical_rows)]


def test_a_benchmark_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "prepare", None)
    monkeypatch.setattr(pipeline.runtime, "check_resources", lambda _: None)
    config = small_config(str(tmp_path), benchmark={"methods": ["ful"]})
    with pytest.raises(ConfigError, match="no method 'ful'; did you mean 'full'"):
        benchmark_logs(config)


def test_a_benchmarks_sets_are_refused_before_the_reference_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = made_blocks(str(tmp_path / "blocks"))
    monkeypatch.setattr(pipeline, "prepare", lambda _: blocks)
    monkeypatch.setattr(pipeline.runtime, "check_resources", lambda _: None)
    monkeypatch.setattr(pipeline, "train_reference", None)
    benchmark = {"studies": ["ratio"], "ratios": [0.0001]}
    config = small_config(str(tmp_path / "run"), benchmark=benchmark)
    with pytest.raises(ConfigError, match=r"set 'dcn-ratio-0\.0001': .* selects no new row of"):
        benchmark_logs(config)
