"""The best go on: what is finished is what a warm start gives, and loads again anywhere."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray import documents
from diet_ray.config import ConfigError, NetworkConfig, RunConfig
from diet_ray.evaluation.cells import Cell, CellResult, run_cell
from diet_ray.evaluation.methods import reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import Shared
from diet_ray.logs.blocks import open_blocks, read_block
from diet_ray.models.candidate import Candidate
from diet_ray.search import finish as module
from diet_ray.search.finish import FinishedError, describe, finish, finishing_cell, load_finished
from diet_ray.search.leaderboard import Line, leaderboard
from diet_ray.search.trial import Outcome
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import predict
from tests.search.prepared import config_at, small_candidate

RATE = 0.02
NORMED = Candidate(NetworkConfig(name="tests.search.networks:Normed"))
TRIED = [
    small_candidate("wukong", learning_rate=RATE),
    small_candidate("dcn", embedding_dim=8),
    NORMED,
    small_candidate("dcn"),
]


def made_lines(candidates: list[Candidate]) -> list[Line]:
    """Their leaderboard, in their order."""
    results = [
        (candidate, Outcome(((Metrics(0.8 - number / 100, 0.5, {}, {}),),), (1,)))
        for number, candidate in enumerate(candidates)
    ]
    return leaderboard(results, "auc", full_rows=None)


def run_at(config: RunConfig) -> Run:
    return Run(config, open_blocks(config.place("blocks")), config.place("distilled", "stage=3"))


def as_a_cell(config: RunConfig, candidate: Candidate, **changed: float) -> CellResult:
    """What the evaluation gives for the same training."""
    run, protocol = run_at(config), config.evaluation.protocol.changed(changed)
    cell = Cell(run, "distilled", "soft", candidate.network, protocol, seed=0)
    shared = Shared.load(run.reference(), run.blocks, config.seed)
    return run_cell(cell, shared, reduced_rows(run, "distilled", "soft", 0))


@pytest.mark.usefixtures("ray_session")
def test_the_best_are_warm_started_and_kept(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "diet_ray")
    config = config_at(output, search={"finish": 3})
    found = finish(config, made_lines(TRIED))
    assert [finished.place for finished in found] == [1, 2, 3]
    assert [finished.line.candidate for finished in found] == TRIED[:3]
    expected = [as_a_cell(config, TRIED[0], learning_rate=RATE), None, as_a_cell(config, NORMED)]
    test = read_block(run_at(config).blocks, run_at(config).blocks.block("test"))
    for finished, cell in zip(found, expected, strict=True):
        if cell is None:
            assert (finished.uri, finished.described) == (None, None)
            continue
        assert finished.uri is not None
        assert finished.described == describe(finished.uri)
        assert finished.described["metrics"] == {"test": cell.test, "validation": cell.validation}
        assert finished.described["warm_up_auc"] == cell.warm_up_auc
        logits = predict(load_finished(finished.uri), test.ids)
        tasks = finished.described["tasks"]
        assert asdict(measure(logits, test.labels, tasks)) == cell.test

    refused = "its table is 8 wide, phi_T's is 4, so it cannot inherit it; distil with models.emb"
    assert str(found[1].refused).startswith(refused)
    assert refused in caplog.text
    folders = sorted(path.name for path in (output / "search" / "finished").iterdir())
    names = [name.rsplit("-", 1)[0] for name in folders]
    assert names == ["1-wukong", "3-tests.search.networks.Normed"]  # none took the second's turn

    again(config, found, monkeypatch)


def again(config: RunConfig, found: list[module.Finished], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is not trained again; it moves when its place has changed."""
    monkeypatch.setattr(module, "train_and_publish", None)
    assert finish(config, made_lines(TRIED)) == found
    assert found[0].uri is not None
    before = {path.name: path.read_bytes() for path in Path(found[0].uri).iterdir()}
    moved = finish(config, made_lines([NORMED, TRIED[1], TRIED[0]]))
    assert not Path(found[0].uri).exists()
    assert moved[2].uri == found[0].uri.replace("/1-wukong", "/3-wukong")
    assert {path.name: path.read_bytes() for path in Path(moved[2].uri).iterdir()} == before


@pytest.mark.parametrize(
    ("use", "key"), [("cotrain", "learning_rate"), ("inherit", "warm_up_learning_rate")]
)
def test_a_rate_counts_where_it_was_judged(output: Path, use: str, key: str) -> None:
    run = run_at(config_at(output, use=use))
    own = finishing_cell(run, TRIED[0]).protocol
    assert own == run.config.evaluation.protocol.changed({key: RATE})
    assert finishing_cell(run, NORMED).protocol == run.config.evaluation.protocol


@pytest.fixture
def finished(output: Path) -> Path:
    """The folder of a finished model, made in this process."""
    run = run_at(config_at(output))
    cell = finishing_cell(run, small_candidate("dcn"))
    uri = module.folder(cell, 1)
    shared = Shared.load(run.reference(), run.blocks, run.config.seed)
    module.train_and_publish(uri, cell, shared, reduced_rows(run, "distilled", "soft", 0))
    return Path(uri)


def test_a_folder_is_enough_to_load_a_model(finished: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(finished, tmp_path / "elsewhere")
    ids = np.array([[1, 2, 3], [0, 1, 10_000]])  # one that no vocabulary has
    expected = predict(load_finished(str(finished)), ids)
    shutil.rmtree(tmp_path / "run")
    model = load_finished(str(elsewhere))
    assert not model.training
    assert np.array_equal(predict(model, ids), expected)
    found = describe(str(elsewhere))
    assert model.table.sizes == list(found["vocabulary_sizes"].values())
    assert found["dense_parameters"] == model.dense.parameter_count
    assert torch.isfinite(torch.from_numpy(expected)).all()


def test_a_damaged_model_is_refused(finished: Path) -> None:
    tensors, described = finished / "model.safetensors", finished / "finished.json"
    whole = tensors.read_bytes()
    for spoilt in (whole[:-1] + b"x", None):
        tensors.unlink()
        if spoilt is not None:
            tensors.write_bytes(spoilt)
        with pytest.raises(FinishedError, match=r"model\.safetensors: missing or not .*finish ag"):
            load_finished(str(finished))
    documents.write_sealed(str(described), {**documents.read_sealed(str(described)), "format": 0})
    with pytest.raises(FinishedError, match=r"finished\.json: format 0 is not 1; finish again"):
        load_finished(str(finished))
    described.unlink()
    with pytest.raises(FinishedError, match="no such file; name a folder below search/finished"):
        load_finished(str(finished))


def test_what_a_killed_job_left_behind_is_no_model(finished: Path, output: Path) -> None:
    (finished / "finished.json").unlink()
    cell = finishing_cell(run_at(config_at(output)), small_candidate("dcn"))
    assert not (Path(module.folder(cell, 2)) / "finished.json").exists()
    assert not finished.exists()


def test_a_set_of_another_reference_is_refused(output: Path) -> None:
    config = config_at(output, search={"finish": 1})
    described = output / "reference" / "t=3" / "reference.json"
    content = documents.read_sealed(str(described))
    documents.write_sealed(str(described), content | {"identity": "0123456789abcdef"})
    with pytest.raises(
        ConfigError, match=r"search\.finish: .*stage=3 belongs to reference .* the wa"
    ):
        finish(config, made_lines(TRIED))


def test_without_its_run_nothing_is_finished(output: Path) -> None:
    shutil.rmtree(output / "blocks")
    with pytest.raises(ConfigError, match=r"search\.finish: .*holds no blocks.*set search\.finish"):
        finish(config_at(output, search={"finish": 1}), made_lines(TRIED))
