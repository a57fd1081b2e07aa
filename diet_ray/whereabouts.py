"""Where in a run this process is: what lines of the log and metrics say beside their own words.

One for the whole process, since all its threads (such as a lease's heartbeat) work for one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Whereabouts:
    """None for what does not apply, or is not known here."""

    run: str | None = None  # the configuration's name
    stage: int | None = None  # from 1
    round: int | None = None  # of addressing and outer steps, from 0
    step: int | None = None  # outer steps that the stage's memory has seen


_here = [Whereabouts()]


def here() -> Whereabouts:
    """Of this process, now."""
    return _here[0]


def enter(**fields: Any) -> None:
    """From here on these fields of :class:`Whereabouts` are as stated."""
    _here[0] = replace(_here[0], **fields)


@contextmanager
def at(**fields: Any) -> Iterator[None]:
    """`enter` for the length of the block; afterwards all is as before."""
    before = here()
    enter(**fields)
    try:
        yield
    finally:
        _here[0] = before
