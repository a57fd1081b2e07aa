"""How long actors that should start are waited for, and what is said meanwhile.

A cluster that has no room for an actor yet is no error: a new node takes minutes. But a wait
without words looks like a run that hangs, and one without an end is one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import ray

from diet_ray import progress

PATIENCE_SECONDS = 600.0
SECONDS_BETWEEN_REMARKS = 30.0


class Patience:
    """One wait for actors of one kind.

    actors: what they are called; key: of the configuration, that says how many there are; needs:
    what each asks of the cluster; error: raised when patience ends.
    """

    def __init__(
        self, actors: str, key: str, needs: Mapping[str, float], error: type[Exception]
    ) -> None:
        self._actors, self._key, self._error = actors, key, error
        self._needs = {kind: count for kind, count in needs.items() if count}
        self._since = self._remarked = time.monotonic()

    def renew(self) -> None:
        """Something that was waited for came; patience starts anew."""
        self._since = time.monotonic()

    def first(
        self, calls: Sequence[ray.ObjectRef], missing: int, of: int, working: bool = False
    ) -> ray.ObjectRef:
        """The first of the calls that ends, well or not.

        missing: how many of so many actors have not started. working: whether others have work to
        do meanwhile, which is waited for without end. Raises `error`.
        """
        while True:
            now = time.monotonic()
            if not missing:
                self._remarked = now
            elif now >= self._remarked + SECONDS_BETWEEN_REMARKS:
                self._remarked = now
                progress.logger.warning("Waiting: %s", self._told(missing, of))
            if not working and now > self._since + PATIENCE_SECONDS:
                raise self._error(
                    f"none of the {self._actors} answered within {PATIENCE_SECONDS:.0f} seconds; "
                    + self._told(missing, of)
                )
            ended, _ = ray.wait(calls, num_returns=1, timeout=SECONDS_BETWEEN_REMARKS)
            if ended:
                return ended[0]

    def _told(self, missing: int, of: int) -> str:
        each = ", ".join(f"{count:g} {kind}" for kind, count in self._needs.items())
        free = ray.available_resources()
        has = ", ".join(f"{free.get(kind, 0):g} {kind}" for kind in self._needs)
        return (
            f"{missing} of {of} {self._actors} have not started; each needs {each}, free in the "
            f"cluster: {has}; lower {self._key} or add nodes"
        )
