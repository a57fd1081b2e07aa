"""A space of candidates in YAML: by network, the values that a hyper-parameter can take.

    space:
      "*": {learning_rate: {range: [0.0005, 0.008], log: true}}   # of every network
      dcn:
        num_cross_layers: {integer: [1, 4]}
        dnn_hidden_units: [[64, 32], [256, 128]]                  # a list: one of these
      finalmlp:
        use_fs: [false, true]
        fs_hidden_units: {choice: [[16], [32]], when: {use_fs: true}}
        num_heads: 2                                              # always

`learning_rate` and `embedding_dim`, the width of the candidate's table, stand beside the
hyper-parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import model_validator

from diet_ray.config.section import Integer, Number, Section

EVERY_NETWORK = "*"


class OptionConfig(Section):
    """The values of one hyper-parameter: exactly one of `choice`, `range` and `integer`."""

    choice: list[Any] | None = None
    """One of these."""
    range: tuple[Number, Number] | None = None
    """Any number between them."""
    integer: tuple[Integer, Integer] | None = None
    """Any whole number from the first to the second, both included."""
    log: bool = False
    """Whether `range` or `integer` is drawn evenly in the logarithm."""
    when: dict[str, Any] = {}
    """Other hyper-parameters, named before this one, and the value (or a list of values) that each
    must have; else this one is left out, so that the network's default holds."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """A list means one of its entries, a plain value itself."""
        if isinstance(value, dict | OptionConfig):
            return value
        return {"choice": value if isinstance(value, list) else [value]}

    @model_validator(mode="after")
    def _one_kind_and_not_empty(self) -> OptionConfig:
        given = [n for n in ("choice", "range", "integer") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'}; give one of choice, range and integer"
            )
        if self.choice is not None:
            if not self.choice:
                raise ValueError("no values; give some, or leave it out")
            if self.log:
                raise ValueError("log means nothing to a choice; remove it")
            return self
        low, high = self.bounds
        if low > high:
            raise ValueError(f"the range {low:g} to {high:g} is empty; give the smaller end first")
        if self.log and low <= 0:
            raise ValueError(f"log needs ends above 0, found {low:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of `range` or `integer`."""
        found = self.range or self.integer
        assert found is not None
        return found

    def values(self) -> Sequence[Any] | None:
        """All values, in order; None for a range, which has no end of them."""
        if self.choice is not None:
            return self.choice
        return None if self.integer is None else range(self.integer[0], self.integer[1] + 1)

    def ends(self) -> list[Any]:
        """Values that say whether all are valid: every one of a choice, the ends of a range."""
        return self.choice if self.choice is not None else list(self.bounds)

    def pick(self, generator: np.random.Generator) -> Any:
        """A value at random."""
        if self.choice is not None:
            return self.choice[int(generator.integers(len(self.choice)))]
        low, high = self.bounds
        if self.integer is not None:  # every whole number owns what rounds to it
            low, high = low - 0.5, high + 0.5
        if self.log:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            value = float(generator.uniform(low, high))
        if self.integer is None:
            return value
        first, last = self.integer
        return min(max(round(value), first), last)

    def holds(self, values: dict[str, Any]) -> bool:
        """Whether `when` is met by the values chosen before."""
        return all(
            name in values and values[name] in (wanted if isinstance(wanted, list) else [wanted])
            for name, wanted in self.when.items()
        )


Options = dict[str, OptionConfig]
Space = dict[str, Options]
"""Network name, or "*" for all of them, to hyper-parameter to its values."""


def check_conditions(space: Space) -> Space:
    """Whether every `when` names a hyper-parameter that stands before it. Raises ValueError."""
    for network, options in space.items():
        before = set(space.get(EVERY_NETWORK, {})) if network != EVERY_NETWORK else set()
        for name, option in options.items():
            for other in option.when:
                if other not in before:
                    raise ValueError(
                        f"{network}.{name}: when names {other!r}, which does not stand before it; "
                        f"before it stand: {', '.join(sorted(before)) or 'none'}"
                    )
            before.add(name)
    return space


def options_of(space: Space) -> dict[str, Options]:
    """By network, its options after those of every network; its own count where both name one."""
    shared = space.get(EVERY_NETWORK, {})
    return {name: {**shared, **own} for name, own in space.items() if name != EVERY_NETWORK}
