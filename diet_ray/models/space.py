"""Candidates of a space (`config/space.py`): drawn by a seed, or every one.

A network with finitely many candidates is drawn from without repetition, from all of them in an
order that depends on the seed and on each candidate alone: more candidates, or more values, keep
those that were drawn before in their order. One with a range, or with more than `LARGEST_GRID`
candidates, is drawn from number by number, the n-th a pure function of the seed and of n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diet_ray.config import ConfigError, NetworkConfig, NetworkSize, PositiveFloat
from diet_ray.config.space import Options, Space, options_of
from diet_ray.models.candidate import Candidate
from diet_ray.seeds import derive, numpy_generator

LARGEST_GRID = 100_000
"""Combinations of one network that are listed; each is validated, which takes its time."""

TRIES = 1_000
"""Draws in a row that repeat an earlier one, after which a network counts as exhausted."""

_OWN: Mapping[str, TypeAdapter[Any]] = {
    "embedding_dim": TypeAdapter(NetworkSize),
    "learning_rate": TypeAdapter(PositiveFloat),
}


def check(space: Space, key: str) -> None:
    """Whether networks and values are valid, each value by itself. Raises ConfigError.

    key: what errors call the space.
    """
    networks = options_of(space)
    if not networks:
        raise ConfigError(f"{key}: names no network; give one, such as {{dcn: {{}}}}")
    for name, options in networks.items():
        plain = {parameter: option.ends()[0] for parameter, option in options.items()}
        candidate(name, _active(options, plain), key)
        for parameter, option in options.items():
            for value in option.ends():
                kept = {k: v for k, v in plain.items() if k not in option.when}
                chosen = {k: v[0] if isinstance(v, list) else v for k, v in option.when.items()}
                values = _active(options, {**kept, **chosen, parameter: value})
                candidate(name, values, f"{key}.{name}.{parameter}")


def _active(options: Options, values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values whose conditions hold."""
    found: dict[str, Any] = {}
    for name, option in options.items():
        if option.holds(found):
            found[name] = values[name]
    return found


def candidate(name: str, values: Mapping[str, Any], key: str) -> Candidate:
    """A network by its name with the values of a space. Raises ConfigError."""
    own = {}
    for parameter, kind in _OWN.items():
        if parameter in values:
            try:
                own[parameter] = kind.validate_python(values[parameter])
            except ValidationError as error:
                raise ConfigError(
                    f"{key}: {parameter}: {values[parameter]!r}: {error.errors()[0]['msg']}"
                ) from None
    parameters = {k: v for k, v in values.items() if k not in _OWN}
    found = Candidate(NetworkConfig(name=name, parameters=parameters), **own)
    try:
        found.identity()
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return found


def draw(space: Space, count: int, seed: int, key: str) -> list[Candidate]:
    """`count` different candidates, or all if the space holds fewer; the networks take turns.

    Raises ConfigError, also for combinations that are not valid.
    """
    check(space, key)
    each = [_in_order(name, options, seed, key) for name, options in options_of(space).items()]
    turns = itertools.zip_longest(*(itertools.islice(drawn, count) for drawn in each))
    in_turn = (found for turn in turns for found in turn if found is not None)
    return list(itertools.islice(in_turn, count))


def grid(space: Space, key: str) -> list[Candidate]:
    """Every candidate, once; the networks take turns. Raises ConfigError, also for a range."""
    check(space, key)
    each = []
    for name, options in options_of(space).items():
        for parameter, option in options.items():
            if option.values() is None:
                raise ConfigError(
                    f"{key}.{name}.{parameter}: a range has no end of values, so there is no grid "
                    "of it; give a choice, or set search.algorithm to random or tpe"
                )
        count = _combinations(options)
        if count is None or count > LARGEST_GRID:
            raise ConfigError(
                f"{key}.{name}: {count:,} combinations, at most {LARGEST_GRID:,} are possible for "
                "a grid; give fewer values, or set search.algorithm to random or tpe"
            )
        each.append(_all(name, options, key))
    turns = itertools.zip_longest(*each)
    return [found for turn in turns for found in turn if found is not None]


def _in_order(name: str, options: Options, seed: int, key: str) -> Iterator[Candidate]:
    count = _combinations(options)
    if count is None or count > LARGEST_GRID:
        return _one_by_one(name, options, seed, key)
    listed = _all(name, options, key)
    return iter(sorted(listed, key=lambda found: derive(seed, found.identity())))


def _combinations(options: Options) -> int | None:
    """At most so many candidates; None: without end."""
    values = [option.values() for option in options.values()]
    return None if None in values else math.prod(len(some or []) for some in values)


def _all(name: str, options: Options, key: str) -> list[Candidate]:
    """Every combination that the conditions allow, each candidate once."""
    chosen: list[dict[str, Any]] = [{}]
    for parameter, option in options.items():
        values = option.values() or []
        chosen = [
            wider
            for so_far in chosen
            for wider in (
                [{**so_far, parameter: value} for value in values]
                if option.holds(so_far)
                else [so_far]
            )
        ]
    distinct: dict[str, Candidate] = {}
    for so_far in chosen:
        found = candidate(name, so_far, f"{key}.{name}")
        distinct.setdefault(found.identity(), found)
    return list(distinct.values())


def _one_by_one(name: str, options: Options, seed: int, key: str) -> Iterator[Candidate]:
    seen: set[str] = set()
    repeated = 0
    for number in itertools.count():
        if repeated == TRIES:
            return
        generator = numpy_generator(seed, "candidate of a space", name, number)
        values: dict[str, Any] = {}
        for parameter, option in options.items():
            if option.holds(values):
                values[parameter] = option.pick(generator)
        found = candidate(name, values, f"{key}.{name}")
        repeated = repeated + 1 if found.identity() in seen else 0
        if not repeated:
            seen.add(found.identity())
            yield found
