"""Sweeps by Ray Tune: early stopping, budgets, TPE, and a driver that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import ray
from ray.tune.schedulers import TrialScheduler

from diet_ray.config import RunConfig
from diet_ray.models.candidate import Candidate
from diet_ray.search import sweep as sweeping
from diet_ray.search.kept import Found, Trials
from diet_ray.search.proposals import listed
from diet_ray.search.shared import load_shared
from diet_ray.search.sweep import open_set, sweep
from diet_ray.search.trial import Outcome
from diet_ray.search.tuner import scheduler
from diet_ray.training.metrics import Metrics
from tests.search.prepared import config_at

pytestmark = pytest.mark.usefixtures("ray_session")

ROOT = Path(__file__).parents[2]
DCN: dict[str, Any] = {
    "dcn": {"num_cross_layers": {"integer": [1, 3]}, "dnn_hidden_units": [[8], [12], [16, 8]]}
}
FOUR_SEEDS = {"cotrain": {"seeds": 4}}


@pytest.fixture
def config_with(distilled_set: str, tmp_path: Path) -> Callable[..., RunConfig]:
    def made(**search: Any) -> RunConfig:
        told = {"distilled": distilled_set, **search}
        return config_at(tmp_path / "out", DCN, search=told, evaluation=FOUR_SEEDS)

    return made


def trial_files(config: RunConfig) -> dict[Path, int]:
    folder = Path(config.place("search", "trials"))
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_the_worse_end_early_and_are_not_run_again(
    config_with: Callable[..., RunConfig], stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(stop=stop, trials=9)
    lines = sweep(config).lines
    assert len(lines) == 9
    early = [line for line in lines if line.stopped]
    assert 0 < len(early) < 9
    assert all(line.seeds in (1, 2) for line in early)
    assert all(line.seeds == 4 for line in lines if not line.stopped)
    assert [line.stopped for line in lines] == sorted(line.stopped for line in lines)
    a_seed = config.evaluation.cotrain.steps * config.evaluation.cotrain.batch_size
    assert all(line.trained_rows == line.seeds * a_seed for line in lines)

    monkeypatch.setattr(sweeping, "run_trials", None)  # nothing is left to run
    assert sweep(config).lines == lines


@pytest.mark.slow
def test_seeds_by_groups_are_the_seeds_side_by_side(
    config_with: Callable[..., RunConfig],
) -> None:
    whole = {str(line.parameters): line for line in sweep(config_with(trials=4)).lines}
    for line in sweep(config_with(trials=4, stop="median")).lines:
        if not line.stopped:
            assert line.score == pytest.approx(whole[str(line.parameters)].score, abs=1e-6)


@pytest.mark.slow
def test_tpe_adds_to_what_it_knows(config_with: Callable[..., RunConfig]) -> None:
    first = sweep(config_with(algorithm="tpe", trials=4)).lines
    kept = trial_files(config_with())
    assert len(first) == len(kept) == 4
    config = config_with(algorithm="tpe", trials=6)
    second = sweep(config).lines
    assert len(second) == len(trial_files(config)) == 6
    assert len({str(line.parameters) for line in second}) == 6
    assert {path: when for path, when in trial_files(config).items() if path in kept} == kept


def test_tpe_ends_where_the_space_does(config_with: Callable[..., RunConfig]) -> None:
    small = {"dcn": {"num_cross_layers": [1, 2, 3]}}
    config = config_with(algorithm="tpe", trials=8, space=small)
    assert len(sweep(config).lines) == 3


def test_a_budget_of_cost_is_kept(config_with: Callable[..., RunConfig]) -> None:
    def spent(config: RunConfig) -> int:
        trial = config.evaluation.cotrain
        return trial.steps * trial.batch_size * trial.seeds

    config = config_with(trials=9)
    full = sweep(config_with(trials=1)).lines[0]
    assert full.cost is not None
    lines = sweep(config_with(trials=9, budget={"cost": 2.5 * full.cost})).lines
    assert len(lines) == 3  # the third is begun with what is left
    assert all(line.trained_rows == spent(config) for line in lines)


def test_no_time_no_trial(config_with: Callable[..., RunConfig]) -> None:
    assert sweep(config_with(trials=9, budget={"seconds": 1e-9})).lines == []


def test_a_killed_sweep_loses_and_repeats_no_trial(config_with: Callable[..., RunConfig]) -> None:
    config = config_with(trials=9)
    command = [
        sys.executable,
        str(Path(__file__).with_name("killed_driver.py")),
        config.model_dump_json(),
        "3",
        ray.get_runtime_context().gcs_address,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = trial_files(config)
    assert 3 <= len(before) < 9
    killed = sweep(config).lines
    after = trial_files(config)
    assert len(after) == len(killed) == 9
    assert {path: after[path] for path in before} == before

    shutil.rmtree(Path(config.place("search")))
    undisturbed = sweep(config).lines
    assert [(line.parameters, line.score) for line in killed] == [
        (line.parameters, line.score) for line in undisturbed
    ]


def test_a_rate_and_a_width_of_its_own_change_what_is_trained(
    config_with: Callable[..., RunConfig],
) -> None:
    own = {"learning_rate": [0.001, 0.01], "embedding_dim": [4, 8]}
    config = config_with(space={"dcn": own}, algorithm="grid", trials=4)
    lines = sweep(config).lines
    assert len({line.score for line in lines}) == 4
    assert len({line.dense_parameters for line in lines}) == 2
    plain = sweep(config_with(space={"dcn": {}}, trials=1)).lines[0]
    (same,) = (line for line in lines if (line.learning_rate, line.embedding_dim) == (0.01, 4))
    assert plain.score == same.score  # those of the configuration


def outcome_of(*scores: float) -> Outcome:
    epochs = tuple((Metrics(score, 0.5, {}, {}),) for score in scores)
    return Outcome(epochs, (1,) * len(scores), scores, rounds=len(scores))


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_a_scheduler_remembers_earlier_starts(
    config_with: Callable[..., RunConfig], stop: str
) -> None:
    config = config_with(stop=stop)
    candidates: list[Candidate] = listed(config)
    scores = [(0.6, 0.61, 0.6, 0.6), (0.7, 0.7, 0.71, 0.7), (0.65, 0.6), (0.8, 0.81, 0.8, 0.8)]
    known: Found = {
        str(n): (candidates[n % len(candidates)], outcome_of(*scores[n % 4])) for n in range(8)
    }
    for score, expected in ((0.1, TrialScheduler.STOP), (0.9, TrialScheduler.CONTINUE)):
        made = scheduler(config, 4, known)

        class Newcomer:
            trial_id = "newcomer"

        made.on_trial_add(None, Newcomer())  # type: ignore[arg-type]
        told = {"round": 1, "score": score}
        assert made.on_trial_result(None, Newcomer(), told) == expected  # type: ignore[arg-type]


def test_trials_of_other_settings_are_not_read(config_with: Callable[..., RunConfig]) -> None:
    config = config_with(trials=2)
    sweep(config)
    trials = Trials(config, *open_set(config))
    assert len(trials.read()) == 2
    for key, (candidate, outcome) in trials.read().items():
        assert key == trials.key(candidate)
        assert outcome.score("taught") == pytest.approx(mean(outcome.taught_auc))
    (Path(config.place("search", "trials")) / "old.json").write_text('{"key": "a", "network": {}}')
    assert len(trials.read()) == 2
    other = config.model_copy(update={"seed": 1})
    assert Trials(other, *open_set(other)).read() == {}


def test_the_groups_of_a_stopped_sweep_double(config_with: Callable[..., RunConfig]) -> None:
    for stop, groups in (("none", (4,)), ("asha", (1, 1, 2))):
        config = config_with(stop=stop)
        assert load_shared(config, *open_set(config)).groups == groups
