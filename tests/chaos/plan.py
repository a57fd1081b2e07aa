"""Which processes of a run are killed, and when: a pure function of a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.distill.prepared import STAGES

VICTIMS = {
    "preparation": ("data worker", "node", "driver"),
    "reference": ("reference worker", "node", "driver"),
    "scan": ("scoring worker", "meta-worker", "node", "driver"),
    "meta-gradients": ("meta-worker", "server", "node", "driver"),
    "publishing": ("meta-worker", "server", "node", "driver"),
}
"""Per phase, in the order of a run, what works in it."""
LASTS = {
    "preparation": 10.0,
    "reference": 10.0,
    "scan": 6.0,
    "meta-gradients": 3.0,
    "publishing": 0.3,
}
"""Seconds that a phase of the small run takes, roughly; a kill comes within them."""
PHASES = tuple(VICTIMS)
ONCE = PHASES[:2]
"""Phases of the whole run, which count as stage 0; the others are of every stage."""

Position = tuple[int, int]
"""How far a run is: the stage, and the number of the phase."""


@dataclass(frozen=True)
class Kill:
    """One kill, `delay` seconds after the phase began, or after the kill before it."""

    stage: int
    phase: str
    victim: str
    delay: float
    choice: int  # which of several victims

    @property
    def position(self) -> Position:
        return self.stage, PHASES.index(self.phase)

    def __str__(self) -> str:
        return f"{self.phase} {self.stage} + {self.delay:.2f} s: {self.victim}"


@dataclass(frozen=True)
class Plan:
    """All that is drawn for one run."""

    seed: int
    reference_workers: int
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        listed = "; ".join(map(str, self.kills))
        return f"seed {self.seed}, {self.reference_workers} reference workers: {listed}"


def draw_plan(seed: int, kills: int) -> Plan:
    """So many kills, in the order in which a run comes to them."""
    draw = Random(seed)
    workers = draw.choice([0, 2])
    places = [(0, phase) for phase in ONCE]
    places += [(stage, phase) for stage in range(1, STAGES + 1) for phase in PHASES[len(ONCE) :]]
    drawn = []
    for _ in range(kills):
        stage, phase = draw.choice(places)
        known = [v for v in VICTIMS[phase] if workers or v != "reference worker"]
        delay = round(draw.uniform(0, LASTS[phase]), 2)
        drawn.append(Kill(stage, phase, draw.choice(known), delay, draw.randrange(1_000)))
    return Plan(seed, workers, tuple(sorted(drawn, key=lambda kill: (kill.position, kill.delay))))
