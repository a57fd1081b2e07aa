"""Errors that quote what they found stay short enough to be read."""

from __future__ import annotations

import pickle

import pytest

from diet_ray.config import ConfigError
from diet_ray.errors import LONGEST_MESSAGE, LONGEST_VALUE, UserError, shortened, shown
from diet_ray.storage import StorageError


@pytest.mark.parametrize("kind", [UserError, ConfigError, StorageError])
def test_a_message_is_cut_in_its_middle(kind: type[UserError]) -> None:
    error = kind("a.csv: row 3: " + "x" * 200_000 + "; repair it")
    assert len(str(error)) <= LONGEST_MESSAGE
    assert str(error).startswith("a.csv: row 3: x")
    assert str(error).endswith("x; repair it")
    assert "characters ..]" in str(error)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - as Ray hands it on
    assert (type(again), str(again)) == (kind, str(error))


@pytest.mark.parametrize("kind", [UserError, ConfigError, StorageError])
def test_an_ordinary_message_is_left_as_it_is(kind: type[UserError]) -> None:
    assert str(kind("memory.ratio: 2: set it to 1 at most")) == (
        "memory.ratio: 2: set it to 1 at most"
    )


def test_what_is_left_out_is_counted() -> None:
    text = "".join(chr(ord("a") + n % 26) for n in range(1_000))
    told = shortened(text, 100)
    assert told == f"{text[:30]} [.. 940 characters ..] {text[-30:]}"
    assert shortened(text, 1_000) == text


def test_any_value_can_be_shown() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert shown("a") == "'a'"
    assert shown(16**5_000) == "int, too large to show"
    assert shown(endless) == "[[...]]"
    assert len(shown("x" * 10_000)) <= LONGEST_VALUE
