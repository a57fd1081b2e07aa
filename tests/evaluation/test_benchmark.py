"""Whole benchmarks, small; and what is refused before one begins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

from diet_ray.config import ConfigError, RunConfig, fit, load_config
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stream import distill_stream
from diet_ray.evaluation import grid, studies
from diet_ray.evaluation.benchmark import check_sizes, run_benchmark, users_of, validate
from diet_ray.logs.blocks import Blocks, read_block
from diet_ray.report.benchmark import publish
from diet_ray.training.reference import load_reference, reference_uri
from tests.evaluation.prepared import RATIO, STAGES, Prepared, publish_distilled
from tests.networks import SMALL_NETWORKS

ROOT = Path(__file__).parents[2]
WUKONG = {"name": "wukong", "parameters": SMALL_NETWORKS["wukong"]}
PROXY = {"networks": [{"name": "dcm"}], "start": "fresh"}

# Every study, each as small as it can be.
EVERYTHING: dict[str, Any] = {
    "methods": ["full", "cold", "warm", "random", "distilled"],
    "seeds": 2,
    "tuning": {"tried": [{}, {"learning_rate": 0.02}]},
    "fidelity": {
        "space": {"dcn": {"dnn_hidden_units": [[3], [4]]}},
        "full_seeds": 1,
        "repetitions": 2,
        "arms": [
            {"method": "prefix", "share": 0.2},
            {"method": "random", "use": "cotrain", "protocol": {"steps": 4}},
            {"method": "distilled", "use": "cotrain", "score": "taught"},
        ],
    },
    "user_field": "field_0",
    "ratios": [0.03],
    "references": [WUKONG],
    "study_seeds": 1,
    "ablations": {"no-fusion": {"memory": {"keep": 0.0}}},
}


def distil_one(config: RunConfig, blocks: Blocks) -> str:
    """The ablation is distilled; the other sets are real rows, which are there at once."""
    if "ablation" in config.name:
        return distill_stream(config, blocks)
    uri = stage_uri(config, STAGES)
    rows = round(config.memory.ratio * blocks.historical_rows)
    publish_distilled(uri, blocks, load_reference(reference_uri(config, STAGES)), rows)
    return uri


@pytest.mark.usefixtures("ray_session")
@pytest.mark.timeout(560)
@pytest.mark.slow
def test_every_study_from_a_distilled_run_to_a_page(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "distill_stream", distil_one)
    run = prepared.run(
        benchmark=EVERYTHING,
        distill={"rounds": 1, "outer_steps": 2},
        resources={"scoring_cpus": 0.2, "meta_worker_cpus": 0.2, "memory_server_cpus": 0.05},
    )
    validate(run.config)
    check_sizes(run.config, run.blocks)
    found = run_benchmark(run)

    assert found.results.groupby("study").size().to_dict() == {
        "main": 7 * 2 * 2,  # arms, candidates, seeds
        "fidelity": 2 + 3 * 2 * 2,  # full data, arms by repetitions by settings
        "ratio": 2 + 2 * 2 * 2,
        "ablation": 2 + 2,
        "transfer": 2 + 2 * 2 * 2,
    }
    assert set(found.results["reference"]) == {"", "dcn", "wukong"}
    assert set(found.results["variant"]) == {"", "no-fusion"}
    assert set(found.results["ratio"].dropna()) == {RATIO, 0.03}
    assert found.results["auc"].between(0.2, 1).all()
    taught = found.results[found.results["taught_auc"].notna()]
    assert set(taught["arm"]) == {"distilled co-trained by soft labels"}
    assert len(taught) == 2 * 2
    assert len(found.tried) == 7 * 2
    chosen = found.tried[found.tried["chosen"]].set_index(["method", "labels"])["learning_rate"]
    for line in found.results[found.results["use"] != "cotrain"].itertuples():
        method = "full" if line.method == "prefix" else line.method
        assert line.learning_rate == chosen[method, line.labels]
    assert found.costs is not None
    assert found.fidelity is not None
    agreement, differences = found.fidelity
    arms = [arm.title for arm in run.config.benchmark.fidelity.arms]
    assert agreement["method"].tolist() == arms
    assert differences["method"].tolist() == arms[:-1]
    for name, table in (
        ("results", found.results),
        ("tuning", found.tried),
        ("costs", found.costs),
    ):
        kept = pd.read_parquet(run.config.place("benchmark", f"{name}.parquet"))
        pd.testing.assert_frame_equal(kept, table)

    page = publish(
        run.config.place("benchmark", "report"),
        found.results.set_index("key"),
        found.logits,
        found.labels,
        found.costs,
        found.tried,
        studies.parts_of_variants(run.config),
        resamples=20,
        groups=found.users,
        fidelity=found.fidelity,
    )
    assert_whole_page(Path(page))
    nothing_is_trained_again(run.config, found.results, monkeypatch, prepared)


def assert_whole_page(page: Path) -> None:
    text = page.read_text()
    assert "Left out" not in text
    assert re.findall(r"^## (.*?)(?:[:(].*)?$", text, re.MULTILINE) == [
        "Figure 1",
        "Table 3",
        "Distilled set against every other method ",
        "Table 4",
        "Figure 3",
        "Transfer",
        "Table 5",
        "Protocols",
    ]
    linked = set(re.findall(r"\(([^()]*\.(?:png|svg))\)", text))
    assert linked == {"figure-3.png", "figure-3.svg"}  # for Figure 1 there are too few settings
    assert linked == {path.name for path in page.parent.iterdir()} - {page.name}
    assert "no-fusion" in text
    assert "bootstrap of test users" in text


def nothing_is_trained_again(
    config: RunConfig, results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, prepared: Prepared
) -> None:
    """A second benchmark reads what is there; a study may be left out."""

    def never(*_: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(grid, "run_cell", never)
    benchmark = {**EVERYTHING, "studies": ["main", "ablation"]}
    again = run_benchmark(
        prepared.run(benchmark=benchmark, distill={"rounds": 1, "outer_steps": 2})
    )
    expected = results[results["study"].isin(["main", "ablation"])].reset_index(drop=True)
    expected = expected[list(again.results)]  # co-training has keys of its own
    pd.testing.assert_frame_equal(again.results, expected, check_dtype=False)
    assert again.costs is None
    assert again.fidelity is None


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_where_it_was(
    prepared: Prepared, tmp_path: Path, ray_session: None
) -> None:
    benchmark = {**EVERYTHING, "studies": ["main"], "labels": ["soft"], "tuning": {}}
    other = prepared.copy(tmp_path / "undisturbed").run(benchmark=benchmark)
    undisturbed = run_benchmark(other)
    assert len(undisturbed.results) == 20

    run = prepared.run(benchmark=benchmark)
    command = [
        sys.executable,
        str(Path(__file__).with_name("killed_driver.py")),
        run.config.model_dump_json(),
        run.blocks.uri,
        run.distilled,
        "8",
        ray.get_runtime_context().gcs_address,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    cells = Path(run.config.place("evaluation", "cells"))
    before = {path: path.stat().st_mtime_ns for path in cells.rglob("*.json")}
    assert 8 <= len(before) < 20
    assert not Path(run.config.place("benchmark", "results.parquet")).exists()

    found = run_benchmark(run)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(cells.rglob("*.json"))) == 20
    tables = [
        pd.read_parquet(config.place("benchmark", "results.parquet")).drop(columns="seconds")
        for config in (run.config, other.config)
    ]
    pd.testing.assert_frame_equal(*tables)
    for key in tables[0]["key"]:
        assert (found.logits[key] == undisturbed.logits[key]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_costs_alone_train_no_candidate_to_judge(prepared: Prepared) -> None:
    run = prepared.run(benchmark={"studies": ["cost"]}, distill={"target_batch": 300})
    found = run_benchmark(run)
    assert found.results.empty
    assert found.tried["method"].tolist() == ["full", "distilled"]
    assert found.tried["validation_auc"].isna().all()
    assert found.costs is not None
    folder = run.config.place("benchmark", "report")
    page = publish(folder, found.results.set_index("key"), phases=found.costs, tried=found.tried)
    text = Path(page).read_text()
    assert "## Table 5: cost" in text
    assert "no rows of it: fidelity, main, ablation, ratio, transfer." in text


@pytest.mark.parametrize(
    ("benchmark", "words"),
    [
        ({"methods": ["full", "kmean"]}, r"did you mean 'kmeans'\? Known: full, cold,"),
        ({"methods": ["full", "full"]}, "benchmark.methods: 'full' stands there twice"),
        ({"ratios": [0.01, 0.01]}, "benchmark.ratios: 0.01 stands there twice"),
        ({"studies": ["main", "main"]}, "benchmark.studies: 'main' stands there twice"),
        (
            {"fidelity": {"space": {"wukon": {}}}},
            "benchmark.fidelity.space: no network 'wukon'; did you mean 'wukong'",
        ),
        ({"references": [{"name": "wukon"}]}, "no network 'wukon'; did you mean 'wukong'"),
        ({"references": [{"name": "dcn"}]}, "'dcn' is also what reference.network is called; give"),
        (
            {"ablations": {"x": {"distill": {"round": 3}}}},
            r"the set 'ablation-x': distill\.round: unknown key; did you mean 'rounds'",
        ),
        (
            {"ablations": {"x": {"distill": {"inner": PROXY}}}},
            "no network 'dcm'; did you mean 'dcn'",
        ),
        (
            {"ablations": {"same": {"memory": {"keep": 0.8}}}},
            "benchmark.ablations.same: every key already has that value in this recipe, .*remove",
        ),
        (
            {"ablations": {n: {"memory": {"keep": 0.1}} for n in ("a b", "a_b")}},
            r"two sets would lie in .*ablation-a_b; rename one",
        ),
    ],
)  # fmt: skip
def test_what_would_fail_later_is_refused_at_once(
    prepared: Prepared, benchmark: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(prepared.config(benchmark=benchmark))


def test_the_defaults_are_valid(prepared: Prepared) -> None:
    """Those of the benchmark go with the recipe that the defaults are: its ablations switch on what
    this recipe lacks."""
    whole = {"memory": {"keep": 1.0}, "distill": {"hard_fraction": 1.0, "active_fraction": 1.0}}
    validate(prepared.config(**whole))
    validate(prepared.config(benchmark=EVERYTHING))


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "configs").glob("*.yaml"))])
def test_every_configuration_can_be_benchmarked(name: str) -> None:
    config = load_config(str(ROOT / "configs" / name), ["logs.path=anywhere"])
    validate(fit(config, historical_rows=100_000))


@pytest.mark.parametrize(
    ("benchmark", "words"),
    [
        (
            {"studies": ["ratio"], "ratios": [0.05, 0.001]},
            r"the set 'dcn-ratio-0\.001': memory\.ratio 0\.001 selects no new row of historical-1",
        ),
        (
            {"ratios": [0.05], "ablations": {"all": {"memory": {"keep": 1.0, "ratio": 0.002}}}},
            "the set 'ablation-all': memory.ratio 0.002 selects no new row of historical-2",
        ),
    ],
)
def test_a_set_without_new_rows_is_refused_before_any_training(
    prepared: Prepared, benchmark: dict[str, Any], words: str
) -> None:
    config = prepared.config(benchmark=benchmark)
    validate(config)
    with pytest.raises(ConfigError, match=words):
        check_sizes(config, prepared.blocks)


def test_a_user_field_that_the_blocks_lack_is_refused(prepared: Prepared) -> None:
    config = prepared.config(benchmark={"user_field": "user", "studies": ["main"]})
    words = (
        r"benchmark\.user_field: 'user' is no field of .*; name one of field_0, field_1, field_2,"
    )
    with pytest.raises(ConfigError, match=words):
        check_sizes(config, prepared.blocks)
    check_sizes(prepared.config(benchmark={"studies": ["main"]}), prepared.blocks)


def test_rows_of_unknown_users_are_each_their_own(prepared: Prepared) -> None:
    """Id 0 of a field stands for every value that no training block has."""
    blocks = prepared.blocks
    test = read_block(blocks, blocks.block("test"))
    config = prepared.config(benchmark={"user_field": "field_0"})
    users = users_of(config, blocks, test)
    assert users is not None
    ids = test.ids[:, 0]
    known = ids > 0
    assert 1 < (~known).sum() < len(ids)
    together = users[:, None] == users[None]
    expected = (ids[:, None] == ids[None]) & known
    assert np.array_equal(together, expected | np.eye(len(ids), dtype=bool))
    assert users_of(prepared.config(), blocks, test) is None
