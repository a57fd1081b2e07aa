"""Runs under seeded kills: python -m tests.chaos.campaign --kills 100.

Every run tells its plan in one line, and `--seed S --kills K` repeats it; after every run comes a
table of all so far, phase x victim.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.disturbed import (
    FAILED,
    NOBODY,
    STARTED_AGAIN,
    WENT_ON,
    Disturbed,
    Outcome,
    chaos_config,
    undisturbed,
)
from tests.chaos.nodes import Nodes
from tests.chaos.plan import VICTIMS, draw_plan

KILLS_PER_RUN = 12


def campaign(seed: int, kills: int, folder: Path) -> int:
    """Runs until so many victims have died; returns how many runs failed."""
    outcomes: list[Outcome] = []
    failures = 0
    with Nodes() as nodes:
        expected = undisturbed(nodes, chaos_config(folder / "undisturbed", reference_workers=0))
        while (died := _died(outcomes)) < kills:
            plan = draw_plan(seed, min(KILLS_PER_RUN, kills - died))
            print(plan, flush=True)
            started = time.monotonic()
            config = chaos_config(folder / f"seed-{seed}", plan.reference_workers)
            run = Disturbed(nodes, config, plan, expected)
            outcomes += run.outcomes
            failures += run.failure is not None
            for outcome in run.outcomes:
                print(f"  {outcome.kill}: met {outcome.phase}, {outcome.became}")
            for told in run.ended:
                print(f"  started again after {told}")
            seconds = time.monotonic() - started
            print(f"  {run.failure or 'the same bytes'} ({seconds:.0f} s)\n{_table(outcomes)}")
            seed += 1
    return failures


def _died(outcomes: list[Outcome]) -> int:
    return sum(outcome.became != NOBODY for outcome in outcomes)


def _table(outcomes: list[Outcome]) -> str:
    counts = Counter((o.phase, o.kill.victim, o.became) for o in outcomes)
    lines = [f"{'phase':<16}{'victim':<18}{'kills':>6}{'went on':>9}{'again':>7}{'failed':>8}"]
    victims = [victim for victim, _ in Counter(v for of in VICTIMS.values() for v in of).items()]
    for phase in VICTIMS:
        for victim in victims:
            on, again, failed = (
                counts[phase, victim, became] for became in (WENT_ON, STARTED_AGAIN, FAILED)
            )
            if on + again + failed:
                total = on + again + failed
                lines.append(f"{phase:<16}{victim:<18}{total:>6}{on:>9}{again:>7}{failed:>8}")
    lines.append(f"{_died(outcomes)} kills")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="of the runs' outputs, to be kept; else a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-runs") as temporary:
        folder = Path(asked.folder or temporary)
        sys.exit(campaign(asked.seed, asked.kills, folder) != 0)
