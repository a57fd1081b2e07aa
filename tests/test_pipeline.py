"""What is refused before work starts, and what a search does after its sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from diet_ray import pipeline
from diet_ray.config import ConfigError, ModelsConfig, RunConfig, fit
from diet_ray.evaluation.check import COLUMNS, Checked, render
from diet_ray.pipeline import (
    Distilled,
    benchmark_logs,
    check_benchmark,
    check_networks,
    search_architectures,
    validate,
)
from diet_ray.search.sweep import SearchError
from diet_ray.training.stream import train_reference
from tests.made import made_blocks, small_config
from tests.search.prepared import config_at, publish_distilled
from tests.tables import cells

UNKNOWN: dict[str, Any] = {"name": "wukongg"}


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"reference": {"network": UNKNOWN}}, "reference.network"),
        (
            {"distill": {"inner": {"networks": [{"name": "dcn"}, UNKNOWN], "start": "fresh"}}},
            "distill.inner.networks.1",
        ),
        ({"evaluation": {"candidates": [{"name": "dcn"}, UNKNOWN]}}, "evaluation.candidates.1"),
    ],
    ids=["reference", "proxy", "candidate"],
)
def test_an_unknown_network_is_refused_before_work_starts(
    tmp_path: Path, overrides: dict[str, Any], key: str
) -> None:
    output = tmp_path / "output"
    with pytest.raises(ConfigError, match=f"^{key}: no network 'wukongg'; did you mean 'wukong'"):
        validate(small_config(str(output), **overrides))
    assert not output.exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            {
                "distill": {
                    "inner": {
                        "networks": [{"name": "tests.models.wrong_networks:Normalising"}],
                        "start": "fresh",
                    }
                }
            },
            r"distill\.inner\.networks\.0: .*keeps norm\.running_mean.*no reference",
        ),
        (
            {"evaluation": {"candidates": [{"name": "tests.models.wrong_networks:OneLogit"}]}},
            r"evaluation\.candidates\.0: .*OneLogit.*returned \(8, 1\)",
        ),
    ],
)
def test_a_network_of_ones_own_is_tried_on_rows_like_the_logs(
    tmp_path: Path, overrides: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_networks(small_config(str(tmp_path), **overrides))
    candidate = {"candidates": [{"name": "tests.models.wrong_networks:Normalising"}]}
    check_networks(small_config(str(tmp_path), evaluation=candidate))


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


def test_a_benchmarks_reference_is_tried_too(tmp_path: Path) -> None:
    references = [{"name": "tests.models.wrong_networks:Dropping"}]
    config = small_config(str(tmp_path), benchmark={"references": references})
    check_networks(config)
    with pytest.raises(ConfigError, match=r"benchmark\.references\.0: .*as with dropout.*no ref"):
        check_benchmark(config)


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


@pytest.mark.usefixtures("ray_session")
def test_a_search_sweeps_verifies_and_finishes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    config = config_at(tmp_path, search={"trials": 3, "verify": 2, "finish": 1})
    blocks = made_blocks(config.place("blocks"))
    train_reference(config, blocks)
    publish_distilled(config, blocks)
    found = search_architectures(config)
    assert len(found.swept.lines) == 3
    assert found.verified is not None
    assert [verified.place for verified in found.verified.lines] == [1, 3]
    assert [finished.line for finished in found.finished] == found.swept.lines[:1]
    text, html = repr(found), found._repr_html_()
    for begun in ("place sweep full", "place candidate"):
        assert begun in re.sub(" +", " ", text)
        assert begun in re.sub(" +", " ", html)
    assert text.startswith(repr(found.swept))
    assert cells(html)[1][0] == "1"
    assert (found.best, found.uri) == (found.swept.lines[0].candidate, found.swept.uri)
    assert found.table["place"].tolist() == [1, 2, 3]
    fields, tasks = len(blocks.fields), len(blocks.tasks)
    logits = found.best_network()(torch.zeros(5, fields, config.models.embedding_dim))
    assert logits.shape == (5, tasks)
    assert found.best_network().parameter_count == found.swept.lines[0].dense_parameters
    written = {path.name for path in (tmp_path / "search").iterdir()}
    assert {"leaderboard.json", "verify.json", "verify.png", "verify.svg", "finished"} <= written


@pytest.mark.parametrize("key", ["verify", "finish"])
def test_what_follows_a_sweep_is_refused_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(pipeline, "sweep", None)
    with pytest.raises(ConfigError, match=rf"search\.{key}: it trains on the log itself"):
        search_architectures(small_config(str(tmp_path), search={key: 2}))


def test_a_search_alone_is_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which needs neither blocks nor reference."""
    swept = pipeline.Swept([], "leaderboard", "set", ModelsConfig())
    monkeypatch.setattr(pipeline, "sweep", lambda _: swept)
    found = search_architectures(small_config(str(tmp_path)))
    assert (found.swept, found.verified, found.finished) == (swept, None, [])
    with pytest.raises(SearchError, match="leaderboard: no candidate was judged"):
        found.best  # noqa: B018


def test_a_distillation_prints_as_its_set_and_its_check() -> None:
    values = ("dcn", "distilled", 0.74, 0.01, 0.5, 0.8, 0.05, 0.01, 3)
    checked = Checked(pd.DataFrame([dict(zip(COLUMNS, values, strict=True))]), "A verdict.")
    found = Distilled("s3://set", "Distilled set.\nFields: a<b.", checked, "random rows")
    assert repr(found).startswith("Distilled set.\nFields: a<b.\nFolder: s3://set\n")
    assert repr(found).endswith(render(checked, "random rows"))
    html = found._repr_html_()
    assert html.startswith("<p>Distilled set.<br>Fields: a&lt;b.<br>Folder: s3://set</p>")
    assert cells(html)[0] == COLUMNS
    assert found.table is checked.lines
    assert found.verdict == "A verdict."
