"""The steps of a job, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60, 3_600, 86_400
PUBLISHED = "published already"
HEAD = "To do, and about how long it takes here, as busy as it is now:\n%s"


@dataclass(frozen=True)
class Step:
    """Something that a job does."""

    title: str
    amount: str  # how much of it is left to do
    seconds: float = 0.0  # about; 0 where nothing is left


def roughly(seconds: float) -> str:
    """Seconds, no more exactly than an estimate is: `25 s`, `7 min`, `3.5 h`, `2.1 days`."""
    if seconds < MINUTE - 5:
        return f"{max(math.ceil(seconds / 5) * 5, 5)} s"
    if seconds < HOUR:
        return f"{math.ceil(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / DAY:.1f} days"


def render(steps: Sequence[Step], notes: Sequence[str] = ()) -> str:
    """A line per step, one for all of them, and the notes."""
    lines = [(step.title, step.amount, _time(step.seconds)) for step in steps]
    lines.append(("in all", "", _time(sum(step.seconds for step in steps))))
    titles, amounts = (max(len(line[column]) for line in lines) for column in (0, 1))
    told = [f"  {title:<{titles}}  {amount:<{amounts}}  {time}" for title, amount, time in lines]
    return "\n".join([line.rstrip() for line in told] + [f"  {note}" for note in notes])


def _time(seconds: float) -> str:
    return f"about {roughly(seconds)}" if seconds else "-"
