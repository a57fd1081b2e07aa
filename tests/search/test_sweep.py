"""Sweeps over a small distilled set, with Ray Tune's real trials."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.context import made_from, stage_uri
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.logs.blocks import Blocks, open_blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.artifact import ArtifactError
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models import registry, space
from diet_ray.models.registry import fresh_network
from diet_ray.search import sweep as sweeping
from diet_ray.search.shared import SharedData, load_shared
from diet_ray.search.sweep import SearchError, sweep
from diet_ray.search.trial import Outcome
from diet_ray.seeds import derive, numpy_generator
from diet_ray.training.candidate import warm_up
from diet_ray.training.metrics import Metrics
from diet_ray.training.reference import (
    CheckpointError,
    load_reference,
    reference_uri,
    train_reference,
)
from diet_ray.training.soft_rows import SoftRows
from tests.made import made_blocks, small_config

pytestmark = pytest.mark.usefixtures("ray_session")

ROWS = 60
SPACE: dict[str, Any] = {
    "dcn": {"num_cross_layers": [1, 2], "dnn_hidden_units": [[8]]},
    "wukong": {
        "num_layers": [1],
        "fmb_features": [2],
        "lcb_features": [2],
        "rank": [2, 3],
        "fmb_units": [[8]],
        "mlp_hidden_units": [[8]],
    },
}


def config_at(output: Path, space: dict[str, Any] | None = None, **overrides: Any) -> RunConfig:
    search = {"space": SPACE if space is None else space, "trials": 4}
    return small_config(str(output), search=search, **overrides)


def publish_distilled(config: RunConfig, blocks: Blocks) -> None:
    """Random rows in the form of S_3."""
    reference = load_reference(reference_uri(config, 3))
    draw = numpy_generator(0, "rows")
    shape = ROWS, len(blocks.fields), config.models.embedding_dim
    rows = SyntheticRows(
        embeddings=draw.normal(scale=0.1, size=shape).astype(np.float32),
        labels=draw.normal(size=(ROWS, len(blocks.tasks))).astype(np.float32),
        stages=np.full(ROWS, 3, dtype=np.int32),
        source_rows=np.arange(ROWS),
        weights=np.ones(ROWS, dtype=np.float32),
        anchors=np.ones((ROWS, len(blocks.fields)), dtype=np.int32),
    )
    description = artifact.Description(
        stage=3,
        rows=ROWS,
        fields=blocks.fields,
        tasks=blocks.tasks,
        embedding_dim=config.models.embedding_dim,
        reference=reference.identity,
        made_from=made_from(config, blocks),
    )
    artifact.publish(stage_uri(config, 3), rows, description)


@pytest.fixture(scope="module")
def distilled_run(
    ray_session: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run's output: blocks, references, S_3."""
    output = tmp_path_factory.mktemp("run")
    config = config_at(output)
    blocks = made_blocks(config.place("blocks"))
    train_reference(config, blocks)
    publish_distilled(config, blocks)
    return output


@pytest.fixture
def output(distilled_run: Path, tmp_path: Path) -> Path:
    """A copy of that run for one test."""
    return Path(shutil.copytree(distilled_run, tmp_path / "run"))


def leaderboard_at(output: Path) -> dict[str, Any]:
    return json.loads((output / "search" / "leaderboard.json").read_text())


def directly(config: RunConfig) -> list[tuple[float, str, dict[str, Any]]]:
    """Every candidate's best epoch, from plain copies and without Ray, the best first."""
    blocks = open_blocks(config.place("blocks"))
    reference = load_reference(reference_uri(config, 3))
    dataset = artifact.load_distilled(stage_uri(config, 3))
    rows = SoftRows(dataset.embeddings, dataset.labels, dataset.weights)
    validation = read_block(blocks, blocks.block("validation"))
    sizes = len(blocks.fields), len(blocks.tasks)
    found = []
    for network in space.draw(
        config.search.space, config.search.trials, config.seed, "search.space"
    ):
        dense = fresh_network(network, config.models, *sizes, config.seed, "candidate", 0)
        seed = derive(config.seed, "candidate warm-up", 0)
        arguments = (
            reference.table,
            rows,
            validation,
            blocks.tasks,
            config.evaluation.protocol,
            seed,
        )
        best = max(metrics.auc for metrics in warm_up(dense, *arguments))
        found.append((best, network.name, network.parameters))
    return sorted(found, key=lambda line: -line[0])


def spy_on_trials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Every trial also leaves a file that says what memory its data lie in."""
    run_trial = sweeping.run_trial

    def spied(variant: dict[str, Any], shared: SharedData) -> None:
        arrays = {
            "embeddings": shared.rows.embeddings,
            "labels": shared.rows.labels,
            "vectors": shared.reference.vectors,
            "validation": shared.validation.ids,
            "through tensors": warm_up_rows(shared.rows).inputs.numpy(),
            "table": shared.reference.frozen().weight.detach().numpy(),
        }
        told = {
            name: {
                "writeable": array.flags.writeable,
                "owns": array.flags.owndata,
                "address": array.__array_interface__["data"][0],
            }
            for name, array in arrays.items()
        }
        (folder / f"{variant['trial']['key']}.json").write_text(json.dumps(told))
        run_trial(variant, shared)

    monkeypatch.setattr(sweeping, "run_trial", spied)


def test_a_sweep_ranks_what_warm_up_says_and_runs_nothing_twice(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    config = config_at(output)
    spied = tmp_path / "spied"
    spied.mkdir()
    spy_on_trials(monkeypatch, spied)
    lines = sweep(config)

    expected = directly(config)
    assert [(line.network, line.parameters) for line in lines] == [e[1:] for e in expected]
    assert [line.validation_auc for line in lines] == [e[0] for e in expected]
    assert len({e[0] for e in expected}) > 1

    reports = [json.loads(file.read_text()) for file in spied.iterdir()]
    assert len(reports) == 4
    for report in reports:
        for name in ("embeddings", "labels", "vectors", "validation"):
            assert not report[name]["writeable"]
            assert not report[name]["owns"]
        assert report["through tensors"]["address"] == report["embeddings"]["address"]
        assert report["table"]["address"] == report["vectors"]["address"]

    published = leaderboard_at(output)
    assert published["judged_on"] == "validation"
    assert published["search"]["trials"] == 4
    assert published["warm_up"] == {
        "warm_up_batch_size": 16,
        "warm_up_learning_rate": 0.01,
        "epochs": 2,
    }
    assert published["distilled"]["sha256"] == artifact.checksums(stage_uri(config, 3))
    assert [line["parameters"] for line in published["lines"]] == [e[2] for e in expected]
    assert sorted(path.name for path in (output / "search").iterdir()) == [
        "leaderboard.json",
        "trials",
    ]
    assert "test block was not used" in caplog.text
    assert "num_cross_layers=2" in caplog.text

    again(config, output, spied, lines)


def again(config: RunConfig, output: Path, spied: Path, lines: list[Any]) -> None:
    """A repeated sweep runs what is missing, and only that."""
    for file in spied.iterdir():
        file.unlink()
    before = (output / "search" / "leaderboard.json").read_bytes()
    assert sweep(config) == lines
    assert list(spied.iterdir()) == []
    assert (output / "search" / "leaderboard.json").read_bytes() == before

    removed = sorted((output / "search" / "trials").iterdir())[0]
    content = json.loads(removed.read_text())
    removed.unlink()
    (output / "search" / "leaderboard.json").unlink()
    assert [replace(line, seconds=0) for line in sweep(config)] == [
        replace(line, seconds=0) for line in lines
    ]
    assert [file.stem for file in spied.iterdir()] == [content["key"]]
    assert json.loads(removed.read_text())["outcome"]["epochs"] == content["outcome"]["epochs"]


def test_failed_trials_are_told_and_tried_again(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    monkeypatch.setattr(sweeping, "LOST_WORKERS", 1)
    # What the failing networks register shall not outlive this test.
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))
    marker = tmp_path / "first attempt"
    broken = {
        "tests.search.networks:Raising": {},
        "tests.search.networks:Doomed": {},
        "tests.search.networks:Fragile": {"marker": [str(marker)]},
        "dcn": {"dnn_hidden_units": [[8]]},
    }
    lines = {line.network.rpartition(":")[2]: line for line in sweep(config_at(output, broken))}
    assert marker.exists()
    assert lines["Fragile"].error is lines["dcn"].error is None
    assert lines["Raising"].error == "ArithmeticError: planted failure for 16 rows"
    assert "died" in str(lines["Doomed"].error)
    assert list(lines)[2:] == ["Raising", "Doomed"]
    assert "2 of 4 trials failed" in caplog.text
    assert len(list((output / "search" / "trials").iterdir())) == 2

    with pytest.raises(SearchError, match=r"all 1 trials failed.*planted failure"):
        sweep(config_at(output, {"tests.search.networks:Raising": {}}))


@pytest.mark.parametrize("missing", ["distilled", "reference", "blocks"])
def test_a_sweep_needs_what_distill_leaves(output: Path, missing: str) -> None:
    shutil.rmtree(output / missing)
    with pytest.raises(ArtifactError, match=r"run jobs/distill\.py"):
        sweep(config_at(output))


def test_an_artifact_of_another_run_is_refused(output: Path) -> None:
    with pytest.raises(ArtifactError, match="made with another memory"):
        sweep(config_at(output, memory={"keep": 0.5}))
    widths = r"made from another models .*\(models\.embedding_dim 4, here 8\); set"
    with pytest.raises(CheckpointError, match=widths):
        sweep(config_at(output, models={"embedding_dim": 8}))
    blocks = open_blocks(str(output / "blocks"))
    replace(blocks, fields=blocks.fields[:2]).save()
    with pytest.raises(ArtifactError, match=r"has fields .*\(3 and 2\), .*\(2 and 2\); distil"):
        sweep(config_at(output))


def test_a_trial_that_no_cluster_can_run_is_refused(output: Path) -> None:
    config = config_at(output).model_copy(update={"threads": 500})
    with pytest.raises(ConfigError, match="needs 500 CPUs"):
        sweeping.check_cpus(config)


def test_the_shared_table_is_the_reference_table(output: Path) -> None:
    config = config_at(output)
    blocks = open_blocks(config.place("blocks"))
    shared = load_shared(config, blocks, stage_uri(config, 3))
    ids = torch.from_numpy(read_block(blocks, blocks.block("subsequent")).ids)
    expected = load_reference(reference_uri(config, 3)).table(ids)
    assert torch.equal(shared.reference.frozen()(ids), expected)


def test_trials_do_not_share_rows_that_they_cannot_take(output: Path) -> None:
    config = config_at(output, models={"embedding_dim": 8})
    blocks = open_blocks(config.place("blocks"))
    with pytest.raises(ArtifactError, match=r"3 fields of width 4, .* take 3 fields of width 8"):
        load_shared(config, blocks, stage_uri(config, 3))


def test_the_best_epoch_is_the_one_a_warm_up_keeps() -> None:
    epochs = tuple(Metrics(auc, 0.5, {}, {}) for auc in (0.6, 0.7, 0.7, 0.65))
    assert Outcome(epochs).best_epoch == 3


def test_outcomes_survive_json() -> None:
    outcome = Outcome((Metrics(0.6, 0.5, {"task_0": 0.6}, {"task_0": 0.5}),), 12, 0.5)
    assert Outcome.from_json(json.loads(json.dumps(asdict(outcome)))) == outcome
