"""The plan of a distillation: its steps, and a word on a check that nobody asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diet_ray.distill import stream
from diet_ray.evaluation.check import METHODS
from diet_ray.plan import distill
from diet_ray.plan.distill import plan
from diet_ray.plan.steps import PUBLISHED, Step
from tests.evaluation.prepared import STAGES, Prepared
from tests.plan.paces import SteadyPace


def test_what_is_published_takes_no_time(prepared: Prepared, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream, "published_stages", lambda *_: STAGES)
    config = prepared.config(evaluation={"seeds": 3})
    steps = plan(config, prepared.blocks, SteadyPace())
    assert [step.amount for step in steps[:3]] == [PUBLISHED] * 3
    trainings = 3 * len(METHODS) * len(config.evaluation.candidates)
    assert steps[3].amount == f"{trainings} trainings"
    off = prepared.config(evaluation={"methods": []})
    assert plan(off, prepared.blocks, SteadyPace())[3] == Step("Check on the test block", "none")


@pytest.mark.parametrize(
    ("many", "evaluation", "told"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"methods": ["full"]}, False),  # asked for
    ],
)
def test_a_check_on_a_large_log_that_nobody_asked_for_is_told(
    prepared: Prepared, many: bool, evaluation: dict[str, Any], told: bool
) -> None:
    rows = distill.MANY_ROWS if many else 10
    blocks = replace(
        prepared.blocks, blocks=tuple(replace(b, rows=rows) for b in prepared.blocks.blocks)
    )
    config = prepared.config(evaluation=evaluation)
    notes = distill._notes(config, blocks, Step("Check", "", 3_600.0))
    assert bool(notes) == told
    if told:
        assert "about 1.0 h" in notes[0]
        assert "--set evaluation.methods='[]'" in notes[0]


def test_gpus_are_not_measured_and_that_is_told(prepared: Prepared) -> None:
    check = Step("Check", "none")
    on_gpus = prepared.config(resources={"meta_worker_gpus": 1})
    assert "CPU" in distill._notes(on_gpus, prepared.blocks, check)[0]
    assert distill._notes(prepared.config(), prepared.blocks, check) == []


def test_the_plan_is_said(prepared: Prepared, monkeypatch: Any) -> None:
    said: list[str] = []
    monkeypatch.setattr(distill.progress.logger, "info", lambda text, *a: said.append(text % a))
    monkeypatch.setattr(distill, "Pace", lambda *_: SteadyPace())
    monkeypatch.setattr(distill, "on_a_worker", lambda function, config: function(config))
    monkeypatch.setattr(stream, "published_stages", lambda *_: STAGES)
    monkeypatch.setattr(distill, "blocks_of", lambda _: prepared.blocks)
    distill.say_plan(prepared.config())
    assert "Check on the test block" in said[0]
    assert "in all" in said[0]
