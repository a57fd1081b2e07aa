"""The plan of a sweep counts the trials that are left."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.plan import sweep as planned
from diet_ray.plan.steps import PUBLISHED
from diet_ray.search.kept import Trials
from diet_ray.search.proposals import listed
from diet_ray.search.sweep import open_set
from diet_ray.search.trial import Outcome
from diet_ray.training.stream import train_reference
from tests.made import made_blocks
from tests.plan.paces import SteadyPace
from tests.search.prepared import config_at, publish_distilled

JUDGED = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks, reference and a set."""
    found = tmp_path_factory.mktemp("sweep")
    blocks = made_blocks(str(found / "blocks"))
    train_reference(config_at(found), blocks)
    publish_distilled(config_at(found), blocks, JUDGED)
    return found


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "Pace", lambda *_: SteadyPace())
    monkeypatch.setattr(planned.estimates, "processes", lambda *_: 2)


def seconds(folder: Path, use: str) -> float:
    (step,) = planned.plan(config_at(folder, use=use))
    assert step.amount == "4 of 4 trials"
    return step.seconds - planned.estimates.PROCESS_START


def test_a_trial_is_its_training_and_the_rows_that_judge(folder: Path) -> None:
    config = config_at(folder)
    cotrain = 1 + config.evaluation.cotrain.seeds * JUDGED
    assert seconds(folder, "cotrain") == pytest.approx(4 * cotrain / 2)
    inherit = config.evaluation.seeds * config.evaluation.protocol.epochs * (60 + JUDGED)
    assert seconds(folder, "inherit") == pytest.approx(4 * inherit / 2)


def test_trials_that_are_done_are_left_out(folder: Path) -> None:
    config = config_at(folder, seed=11)
    trials = Trials(config, *open_set(config))
    for left, candidate in zip((3, 2, 1, 0), listed(config), strict=True):
        trials.keep(trials.key(candidate), candidate, Outcome())
        (step,) = planned.plan(config)
        assert step.amount == (f"{left} of 4 trials" if left else PUBLISHED)


def test_a_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no published set; run jobs/distill\.py"):
        planned.plan(config_at(tmp_path))


def test_verifying_is_full_trainings_of_so_many(folder: Path) -> None:
    config = config_at(folder, search={"verify": 3})
    _, step = planned.plan(config)
    rows = artifact.full_rows(open_set(config)[1])
    assert step.amount == f"{3 * config.evaluation.seeds} trainings of {rows:,} rows"
    a_process = step.seconds - planned.estimates.PROCESS_START
    assert a_process == pytest.approx(3 * config.evaluation.seeds * (rows or 0) / 2)


def test_candidates_that_tpe_will_propose_have_stand_ins(folder: Path) -> None:
    (step,) = planned.plan(config_at(folder, search={"algorithm": "tpe", "trials": 3}))
    assert step.amount == "3 of 3 trials"
