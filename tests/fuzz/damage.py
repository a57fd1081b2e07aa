"""What is done to good inputs, and what may come of it: an answer, or an error of ours.

`FUZZ_CASES` in the environment is the number of cases of each test; the few of a normal run are
always the same.
"""

from __future__ import annotations

import copy
import functools
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from diet_ray.errors import LONGEST_MESSAGE, UserError

CASES = int(os.environ.get("FUZZ_CASES", "40"))
ROOM = 2 << 30
"""Bytes that a case may take beside what the process has."""

fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    derandomize="FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def only_our_errors() -> Iterator[None]:
    """Within bounded memory; a user's error is an answer, of readable length."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (own + ROOM, before[1]))
    told = "nothing went wrong"
    try:
        yield
    except UserError as error:
        told = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 0 < len(told.strip()) <= LONGEST_MESSAGE


SNIPPETS = [
    b"\0",
    b"\n",
    b'"',
    b",",
    b"[",
    b"{",
    b": ",
    b"\xff\xfe",
    b"nan",
    b"-1",
    b"9" * 5_000,
    b"\xe2\x82",
    b"null",
    b"true",
    b"1e999",
    b"'",
    b"&a",
    b"*a",
    b"!!",
    b"2024-13-45",
]

Change = Callable[[bytes], bytes]


def _at(content: bytes, place: float) -> int:
    return int(place * len(content))


def _flip(place: float, bit: int) -> Change:
    def change(content: bytes) -> bytes:
        if not content:
            return content
        at = min(_at(content, place), len(content) - 1)
        return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]

    return change


def _cut(place: float, length: float) -> Change:
    return lambda c: c[: _at(c, place)] + c[_at(c, place) + max(1, _at(c, length)) :]


def _insert(place: float, piece: bytes) -> Change:
    return lambda c: c[: _at(c, place)] + piece + c[_at(c, place) :]


def _overwrite(place: float, piece: bytes) -> Change:
    return lambda c: c[: _at(c, place)] + piece + c[_at(c, place) + len(piece) :]


def _repeat(place: float, length: float) -> Change:
    return lambda c: c[: _at(c, place) + _at(c, length)] + c[_at(c, place) :]


_place = st.floats(0, 1)
_piece = st.sampled_from(SNIPPETS) | st.binary(min_size=1, max_size=12)
_change = (
    st.builds(_flip, _place, st.integers(0, 7))
    | st.builds(_cut, _place, _place)
    | st.builds(_insert, _place, _piece)
    | st.builds(_overwrite, _place, _piece)
    | st.builds(_repeat, _place, st.floats(0, 0.2))
)
damages = st.lists(_change, min_size=1, max_size=3).map(
    lambda changes: lambda content: functools.reduce(lambda c, f: f(c), changes, content)
)
"""Functions from a file's content to a damaged one."""

values: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**8, 10**12, 10**30, 2**63, 1e-9, 1e300])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", " ", "~", "$HOME", "s3://", "a\0b", "../..", "%Q", "x" * 5_000])
    | st.just([])
    | st.just({})
    | st.lists(st.none() | st.integers() | st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5))
)
"""What somebody may write where something else belongs."""


def places_in(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values of a tree, but for the tree itself."""
    if not isinstance(tree, dict | list):
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        yield from places_in(value, (*path, key))


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of the tree with another value there; without a path, the value."""
    if not path:
        return value
    changed = copy.deepcopy(tree)
    holder = functools.reduce(lambda inner, key: inner[key], path[:-1], changed)
    holder[path[-1]] = value
    return changed


def without(tree: Any, path: tuple[Any, ...]) -> Any:
    """A copy of the tree without what lies there."""
    changed = copy.deepcopy(tree)
    holder = functools.reduce(lambda inner, key: inner[key], path[:-1], changed)
    del holder[path[-1]]
    return changed


@st.composite
def changed_trees(draw: st.DrawFn, tree: Any) -> Any:
    """A tree with a value exchanged, left out, or added."""
    paths = list(places_in(tree))
    kind = draw(st.sampled_from(["exchange", "leave out", "add", "root"]))
    if kind == "root":
        return draw(values)
    path = draw(st.sampled_from(paths))
    if kind == "leave out":
        return without(tree, path)
    if kind == "add" and isinstance(path[-1], str):
        return with_value(tree, (*path[:-1], "more"), 1)
    return with_value(tree, path, draw(values))
