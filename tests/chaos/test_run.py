"""A run on several nodes, disturbed by a few kills, ends with the bytes of one in peace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disturbed import (
    NOBODY,
    STARTED_AGAIN,
    WENT_ON,
    Disturbed,
    chaos_config,
    undisturbed,
)
from tests.chaos.nodes import Nodes
from tests.chaos.plan import Kill, Plan, draw_plan

SEED, KILLS = 3, 6
SHORT = Plan(
    seed=0,
    reference_workers=0,
    kills=(
        Kill(1, "scan", "node", 2.0, 0),
        Kill(1, "meta-gradients", "server", 0.3, 0),
        Kill(1, "meta-gradients", "meta-worker", 0.5, 1),
        Kill(1, "meta-gradients", "driver", 1.0, 0),
    ),
)
"""One of a kind."""
ONE_SCAN: dict[str, Any] = {"stages": 1, "distill": {"hard_fraction": 1.0}}


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_short_run_that_loses_one_of_each_ends_with_the_same_bytes(tmp_path: Path) -> None:
    with Nodes(count=2) as nodes:
        expected = undisturbed(nodes, chaos_config(tmp_path / "undisturbed", 0, **ONE_SCAN))
        run = Disturbed(nodes, chaos_config(tmp_path / "run", 0, **ONE_SCAN), SHORT, expected)
    assert expected
    assert run.failure is None, run.failure
    assert [outcome.became for outcome in run.outcomes] == [WENT_ON] * 3 + [STARTED_AGAIN]


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_disturbed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    plan = draw_plan(SEED, KILLS)
    with Nodes() as nodes:
        expected = undisturbed(nodes, chaos_config(tmp_path / "undisturbed", 0))
        run = Disturbed(
            nodes, chaos_config(tmp_path / "run", plan.reference_workers), plan, expected
        )
    assert expected
    assert run.failure is None, f"{plan}\n{run.failure}"
    assert any(outcome.became != NOBODY for outcome in run.outcomes), plan
