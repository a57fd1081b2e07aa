"""A run on several nodes, disturbed by a few kills, ends with the bytes of one in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.disturbed import NOBODY, Disturbed, chaos_config, undisturbed
from tests.chaos.nodes import Nodes
from tests.chaos.plan import draw_plan

SEED, KILLS = 3, 6


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
