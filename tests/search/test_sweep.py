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

from diet_ray.config import ConfigError, RunConfig, fit, make_config
from diet_ray.distill.context import stage_uri
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.logs.blocks import open_blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.models import registry
from diet_ray.search import sweep as sweeping
from diet_ray.search import tuner
from diet_ray.search.kept import Trials
from diet_ray.search.leaderboard import Line
from diet_ray.search.proposals import listed
from diet_ray.search.shared import CoTrained, Inherited, SharedData, load_shared
from diet_ray.search.sweep import SearchError, sweep
from diet_ray.search.trial import Outcome
from diet_ray.training.reference import CheckpointError, load_reference, reference_uri
from tests.search.prepared import SPACE, config_at, directly, known, publish_distilled

pytestmark = pytest.mark.usefixtures("ray_session")


def leaderboard_at(output: Path) -> dict[str, Any]:
    return json.loads((output / "search" / "leaderboard.json").read_text())


def arrays_of(data: Inherited | CoTrained) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What trials share, and what they make of the first ones of it for Torch."""
    if isinstance(data, CoTrained):
        rows = data.rows
        soft = rows.soft_rows()
        made = [tensor.numpy() for tensor in (soft.inputs, soft.labels)]
        asked = [*rows.asked, data.judged.labels, data.taught]
        return [rows.ids, rows.labels, *asked], made
    table = data.reference.frozen()
    made = [warm_up_rows(data.rows, table).labels.numpy(), table.weight.detach().numpy()]
    return [data.rows.labels, data.reference.vectors, data.rows.anchors, data.validation.ids], made


def spy_on_trials(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Every trial also leaves a file that says what memory its data lie in."""
    run_trial = tuner.run_trial

    def spied(variant: dict[str, Any], shared: SharedData) -> None:
        told = [
            [
                {
                    "writeable": array.flags.writeable,
                    "owns": array.flags.owndata,
                    "address": array.__array_interface__["data"][0],
                }
                for array in arrays
            ]
            for arrays in arrays_of(shared.data)
        ]
        (folder / f"{variant['trial']['key']}.json").write_text(json.dumps(told))
        run_trial(variant, shared)

    monkeypatch.setattr(tuner, "run_trial", spied)


SCORES = {"cotrain": "taught", "inherit": "auc"}  # by default
PROTOCOLS = {
    "cotrain": {"batch_size": 16, "learning_rate": 0.01, "steps": 6, "seeds": 2},
    "inherit": {"warm_up_batch_size": 16, "warm_up_learning_rate": 0.01, "epochs": 2},
}


@pytest.mark.parametrize("use", PROTOCOLS)
def test_a_sweep_ranks_what_training_says_and_runs_nothing_twice(
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    use: str,
) -> None:
    caplog.set_level("INFO", "diet_ray")
    config = config_at(output, use=use)
    spied = tmp_path / "spied"
    spied.mkdir()
    spy_on_trials(monkeypatch, spied)
    lines = sweep(config).lines

    expected = directly(config)
    assert known(lines) == expected
    assert len({line.score for line in lines}) == len(lines)

    reports = [json.loads(file.read_text()) for file in spied.iterdir()]
    assert len(reports) == 4
    for shared, made in reports:
        assert not any(array["writeable"] or array["owns"] for array in shared)
        for one, other in zip(shared, made, strict=False):
            assert one["address"] == other["address"]

    published = leaderboard_at(output)
    assert published["judged_on"] == "validation"
    assert published["score"] == SCORES[use]
    assert published["search"]["trials"] == 4
    assert published["protocol"] == PROTOCOLS[use]
    assert published["distilled"]["sha256"] == artifact.checksums(stage_uri(config, 3))
    assert published["lines"] == json.loads(json.dumps([asdict(line) for line in lines]))
    assert sorted(path.name for path in (output / "search").iterdir()) == [
        "leaderboard.json",
        "leaderboard.parquet",
        "tensorboard",
        "trials",
    ]
    assert "test block was not used" in caplog.text
    assert "num_cross_layers=2" in caplog.text
    assert f"±{lines[0].score_deviation:.4f}" in caplog.text

    again(config, output, spied, lines)


def again(config: RunConfig, output: Path, spied: Path, lines: list[Any]) -> None:
    """A repeated sweep runs what is missing, and only that."""
    for file in spied.iterdir():
        file.unlink()
    before = (output / "search" / "leaderboard.json").read_bytes()
    assert sweep(config).lines == lines
    assert list(spied.iterdir()) == []
    assert (output / "search" / "leaderboard.json").read_bytes() == before

    removed = sorted((output / "search" / "trials").iterdir())[0]
    content = json.loads(removed.read_text())
    removed.unlink()
    (output / "search" / "leaderboard.json").unlink()
    assert [replace(line, seconds=0) for line in sweep(config).lines] == [
        replace(line, seconds=0) for line in lines
    ]
    assert [file.stem for file in spied.iterdir()] == [content["key"]]
    found, expected = json.loads(removed.read_text())["outcome"], content["outcome"]
    assert found | {"seconds": expected["seconds"]} == expected


def test_another_score_orders_the_same_trials_anew(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, trials = {"dcn": SPACE["dcn"]}, {"trials": 2}
    before = sweep(config_at(output, tried, search=trials)).lines
    assert [line.score for line in before] == [line.taught_auc for line in before]
    monkeypatch.setattr(sweeping, "run_trials", None)  # nothing is left to run

    for score, sign, name in (("auc", 1, "validation_auc"), ("logloss", -1, "validation_logloss")):
        lines = sweep(config_at(output, tried, search=trials | {"score": score})).lines
        assert leaderboard_at(output)["score"] == score
        found = [line.score for line in lines]
        assert found == sorted(found, reverse=True)
        assert found == pytest.approx([sign * getattr(line, name) for line in lines])
        assert all(without_score(line) in map(without_score, before) for line in lines)


def without_score(line: Line) -> Line:
    return replace(line, score=None, score_deviation=None, places=None)


def test_failed_trials_are_told_and_tried_again(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    monkeypatch.setattr(tuner, "LOST_WORKERS", 1)
    # What the failing networks register shall not outlive this test.
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))
    marker = tmp_path / "first attempt"
    broken = {
        "tests.search.networks:Raising": {},
        "tests.search.networks:Doomed": {},
        "tests.search.networks:Fragile": {"marker": [str(marker)]},
        "dcn": {"dnn_hidden_units": [[8]]},
    }
    config = config_at(output, broken, evaluation={"cotrain": {"seeds": 1}})
    lines = {line.network.rpartition(":")[2]: line for line in sweep(config).lines}
    assert marker.exists()
    assert lines["Fragile"].error is lines["dcn"].error is None
    assert lines["dcn"].score_deviation is None  # of one seed
    assert lines["Raising"].error == "ArithmeticError: planted failure for 16 rows"
    assert "died" in str(lines["Doomed"].error)
    assert list(lines)[2:] == ["Raising", "Doomed"]
    assert "2 of 4 trials failed" in caplog.text
    assert len(list((output / "search" / "trials").iterdir())) == 2

    with pytest.raises(SearchError, match=r"all 1 trials failed.*planted failure"):
        sweep(config_at(output, {"tests.search.networks:Raising": {}}))


def test_a_copied_folder_is_enough_to_rank_on(output: Path, tmp_path: Path) -> None:
    """Neither blocks nor reference nor the log, and another run's configuration of the memory."""
    expected = directly(config_at(output))
    copied = shutil.copytree(stage_uri(config_at(output), 3), tmp_path / "copied")
    shutil.rmtree(output)
    elsewhere = config_at(
        tmp_path / "elsewhere", search={"distilled": str(copied)}, memory={"keep": 0.5}
    )
    assert known(sweep(elsewhere).lines) == expected
    found = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    assert found == ["search"]


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        ("cotrain", "distilled"),
        ("inherit", "distilled"),
        ("inherit", "reference"),
        ("inherit", "blocks"),
    ],
)
def test_a_sweep_needs_what_distill_leaves(output: Path, use: str, missing: str) -> None:
    shutil.rmtree(output / missing)
    with pytest.raises(ArtifactError, match=r"run jobs/distill\.py"):
        sweep(config_at(output, use=use))


def test_a_set_that_cannot_judge_is_refused(output: Path, tmp_path: Path) -> None:
    config = config_at(output)
    publish_distilled(config, open_blocks(config.place("blocks")), judging=None)
    with pytest.raises(ArtifactError, match=r"stage=3/.* no validation sample to judge on; name a"):
        sweep(config)
    nothing = config_at(output, search={"distilled": str(tmp_path / "nothing")})
    with pytest.raises(ArtifactError, match=r"nothing: no published set; .* search\.distilled"):
        sweep(nothing)


def test_an_artifact_of_another_run_is_refused(output: Path) -> None:
    with pytest.raises(ArtifactError, match="made with another memory"):
        sweep(config_at(output, use="inherit", memory={"keep": 0.5}))
    widths = r"made from another models .*\(models\.embedding_dim 4, here 8\); set"
    with pytest.raises(CheckpointError, match=widths):
        sweep(config_at(output, use="inherit", models={"embedding_dim": 8}))
    blocks = open_blocks(str(output / "blocks"))
    replace(blocks, fields=blocks.fields[:2]).save()
    with pytest.raises(ArtifactError, match=r"has fields .*\(3 and 2\), .*\(2 and 2\); distil"):
        sweep(config_at(output, use="inherit"))


def test_what_is_left_to_the_logs_size_follows_the_blocks_or_else_the_set(
    output: Path, tmp_path: Path
) -> None:
    left_open = {"models": {"mmoe": None}}
    blocks = open_blocks(str(output / "blocks"))
    config = config_at(output, **left_open)
    assert sweeping.fitted(config) == fit(config, blocks.historical_rows)

    copied = shutil.copytree(stage_uri(config, 3), tmp_path / "copied")
    elsewhere = config_at(tmp_path / "x", search={"distilled": str(copied)}, **left_open)
    assert sweeping.fitted(elsewhere).models == sweeping.fitted(config).models

    nowhere = config_at(tmp_path / "nothing", **left_open)
    assert sweeping.fitted(nowhere) == nowhere
    with pytest.raises(ArtifactError, match="no published set"):
        sweep(nowhere)


@pytest.mark.parametrize("use", PROTOCOLS)
def test_a_sweep_on_a_named_set_needs_no_logs(output: Path, use: str) -> None:
    config = config_at(output, use=use)
    named = make_config(config, {"search.distilled": stage_uri(config, 3), "logs": None})
    assert sweep(named).lines == sweep(config).lines


def keys_of(config: RunConfig) -> set[str]:
    trials = Trials(config, *sweeping.open_set(config))
    return {trials.key(candidate) for candidate in listed(config)}


@pytest.mark.parametrize(
    ("use", "overrides", "differ"),
    [
        ("cotrain", {"evaluation": {"cotrain": {"seeds": 3}}}, True),
        ("cotrain", {"evaluation": {"seeds": 3}}, False),
        ("cotrain", {"search": {"score": "auc"}}, False),
        ("cotrain", {"search": {"use": "inherit"}}, True),
        ("cotrain", {"evaluation": {"cotrain": {"steps": 5}}}, True),
        ("cotrain", {"evaluation": {"cotrain": {"learning_rate": 0.02}}}, True),
        ("cotrain", {"models": {"embedding_dim": 8}}, True),
        ("cotrain", {"evaluation": {"protocol": {"epochs": 1}}}, False),
        ("cotrain", {"name": "other", "resources": {"evaluation_tasks": 1}}, False),
        ("inherit", {"evaluation": {"seeds": 3}}, True),
        ("inherit", {"search": {"score": "logloss"}}, False),
        ("inherit", {"evaluation": {"protocol": {"epochs": 1}}}, True),
        ("inherit", {"evaluation": {"protocol": {"learning_rate": 1}}}, False),
        ("inherit", {"evaluation": {"cotrain": {"steps": 5, "seeds": 1}}}, False),
    ],
)
def test_a_trials_key_holds_what_its_outcome_depends_on(
    distilled_run: Path, use: str, overrides: dict[str, Any], differ: bool
) -> None:
    before, after = (
        keys_of(config_at(distilled_run, use=use, **changed)) for changed in ({}, overrides)
    )
    assert len(before) == 4
    assert before.isdisjoint(after) if differ else before == after


@pytest.mark.parametrize("content", ["", "[]", "null", '{"format": 2}', '{"format": 2, "key": 3}'])
def test_a_damaged_outcome_is_none(
    output: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_at(output)
    trials = Trials(config, *sweeping.open_set(config))
    first, second, *_ = listed(config)
    for candidate in (first, second):
        trials.keep(trials.key(candidate), candidate, Outcome(seconds=1.5))
    assert trials.read().keys() == {trials.key(first), trials.key(second)}
    place = Path(trials.uri(trials.key(first)))
    place.write_text(content)
    assert trials.read() == {trials.key(second): (second, Outcome(seconds=1.5))}
    assert f"{place}: " in caplog.text
    assert "remove it and run again" in caplog.text


def test_a_trials_key_holds_the_set(output: Path, tmp_path: Path) -> None:
    config = config_at(output)
    copied = shutil.copytree(stage_uri(config, 3), tmp_path / "copied")
    elsewhere = config_at(tmp_path / "elsewhere", search={"distilled": str(copied)})
    before = keys_of(config)
    assert keys_of(elsewhere) == before
    blocks = open_blocks(config.place("blocks"))
    publish_distilled(config, blocks, judging=100)
    judged_on_others = keys_of(config)
    publish_distilled(config, blocks, fields=("a", "b", "c"))
    with_other_names = keys_of(config)
    assert len(before | judged_on_others | with_other_names) == 3 * len(before)


def test_a_trial_that_no_cluster_can_run_is_refused(output: Path) -> None:
    config = config_at(output).model_copy(update={"threads": 500})
    with pytest.raises(ConfigError, match="threads: a trial needs 500 CPUs"):
        sweeping.check_resources(config)
    on_gpus = config_at(output, resources={"trial_gpus": 1.5})
    with pytest.raises(ConfigError, match=r"resources\.trial_gpus: a trial needs 1.5 GPUs"):
        sweeping.check_resources(on_gpus)
    sweeping.check_resources(config_at(output, resources={"cluster_limit": {"GPU": 2}}))


def test_the_shared_table_is_the_reference_table(output: Path) -> None:
    config = config_at(output, use="inherit")
    blocks = open_blocks(config.place("blocks"))
    data = load_shared(config, blocks, stage_uri(config, 3)).data
    assert isinstance(data, Inherited)
    ids = torch.from_numpy(read_block(blocks, blocks.block("subsequent")).ids)
    expected = load_reference(reference_uri(config, 3)).table(ids)
    assert torch.equal(data.reference.frozen()(ids), expected)


def test_trials_do_not_share_rows_that_they_cannot_take(output: Path) -> None:
    config = config_at(output, use="inherit", models={"embedding_dim": 8})
    blocks = open_blocks(config.place("blocks"))
    with pytest.raises(ArtifactError, match=r"3 fields of width 4, .* take 3 fields of width 8"):
        load_shared(config, blocks, stage_uri(config, 3))


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe"])
def test_a_network_of_ones_own_that_does_not_fit_is_refused_before_any_trial(
    distilled_run: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """Tried on rows of the set's fields and tasks, with the width of its own table."""
    monkeypatch.setattr(sweeping, "run_trials", None)
    wrong = "tests.models.wrong_networks:BadConstructor"
    space = {**SPACE, wrong: {"heads": [3], "embedding_dim": [8]}}
    config = config_at(distilled_run, space, search={"algorithm": algorithm, "trials": 12})
    with pytest.raises(ConfigError, match=rf"search\.space\.{wrong}, as .*3 heads do not divide 8"):
        sweep(config)
