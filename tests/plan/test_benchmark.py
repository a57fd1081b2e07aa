"""The plan of a benchmark asks for the sets and trainings that the benchmark would."""

from __future__ import annotations

from typing import Any

import pytest

from diet_ray.distill import stream
from diet_ray.plan.benchmark import plan
from diet_ray.plan.steps import PUBLISHED, Step
from tests.evaluation.prepared import STAGES, Prepared
from tests.plan.paces import SteadyPace

METHODS = ["full", "warm", "random", "distilled"]
SEEDS, STUDY_SEEDS, CANDIDATES = 3, 2, 2


@pytest.fixture(autouse=True)
def distilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own set is there; where it lies is enough."""

    def published(config: Any, _: Any) -> int:
        return STAGES if config.name == "made" else 0

    monkeypatch.setattr(stream, "published_stages", published)


def steps_of(prepared: Prepared, **benchmark: Any) -> dict[str, Step]:
    given = {
        "methods": METHODS,
        "labels": ["soft"],
        "seeds": SEEDS,
        "study_seeds": STUDY_SEEDS,
        **benchmark,
    }
    config = prepared.config(benchmark=given)
    return {step.title: step for step in plan(config, prepared.blocks, SteadyPace())}


def test_the_main_study_is_every_method_candidate_and_seed(prepared: Prepared) -> None:
    steps = steps_of(prepared, studies=["main"])
    assert steps["Distilled set"].amount == PUBLISHED
    assert steps["Tuning of the protocols"].amount == "none"  # one protocol is no choice
    assert steps["The studies' other sets"].amount == "none"
    assert steps["Studies"].amount == f"{len(METHODS) * CANDIDATES * SEEDS} trainings"


def test_tuning_is_every_tried_protocol(prepared: Prepared) -> None:
    tried = [{}, {"epochs": 3}, {"epochs": 4}]
    steps = steps_of(prepared, studies=["main"], tuning={"tried": tried})
    reduced = 2  # full and warm have no epochs, hence no choice
    amount = f"{reduced * len(tried) * CANDIDATES} trainings"
    assert steps["Tuning of the protocols"].amount == amount


def test_other_sets_are_distilled_each_once(prepared: Prepared) -> None:
    ablations = {"no-fusion": {"memory": {"keep": 0.0}}, "all": {"distill": {"hard_fraction": 1}}}
    references = [{"name": "wukong", "parameters": {"fmb_units": [8], "mlp_hidden_units": [8]}}]
    steps = steps_of(
        prepared,
        studies=["ablation", "transfer"],
        ablations=ablations,
        references=references,
    )
    others = steps["The studies' other sets"]
    assert others.amount == "3 sets, 1 references, 4 of them to make"
    own_reference = prepared.blocks.historical_rows  # a second a row
    assert others.seconds > own_reference
    # ablation: the base and two variants; transfer: full once, warm and distilled of both
    cells = (1 + 2 + 1 + 1 + 2) * CANDIDATES * STUDY_SEEDS
    assert steps["Studies"].amount == f"{cells} trainings"
