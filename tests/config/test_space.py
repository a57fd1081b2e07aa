"""Options in YAML: short forms, what is refused, and that draws are fair and within bounds."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diet_ray.config import OptionConfig
from diet_ray.config.space import check_conditions, options_of
from diet_ray.seeds import numpy_generator


def option(text: str) -> OptionConfig:
    return OptionConfig.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1, 2]", [1, 2]),
        ("[[64, 32], [8]]", [[64, 32], [8]]),
        ("8", [8]),
        ("true", [True]),
        ("{choice: [a, b]}", ["a", "b"]),
        ("{integer: [2, 4]}", [2, 3, 4]),
        ("{integer: [3, 3]}", [3]),
    ],
)
def test_short_and_long_forms_name_the_same_values(text: str, values: list[Any]) -> None:
    assert list(option(text).values() or []) == values


def test_a_range_has_no_list_of_values() -> None:
    assert option("{range: [0.1, 1]}").values() is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "no values"),
        ("{}", "found none; give one of choice, range and integer"),
        ("{choice: [1], integer: [1, 2]}", "found choice and integer"),
        ("{range: [2, 1]}", "2 to 1 is empty"),
        ("{integer: [5, 4]}", "5 to 4 is empty"),
        ("{range: [0, 1], log: true}", "log needs ends above 0, found 0"),
        ("{choice: [1, 2], log: true}", "log means nothing to a choice"),
        ("{integer: [1.5, 2]}", "valid integer"),
        ("{range: [a, 2]}", "valid number"),
        ("{range: [1]}", "range.1"),
        ("{rang: [1, 2]}", "rang"),
        ("{range: [1, .inf]}", "finite"),
    ],
)
def test_what_names_no_values_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        option(text)


@given(
    low=st.floats(1e-6, 10), width=st.floats(0, 100), log=st.booleans(), number=st.integers(0, 99)
)
def test_draws_lie_within_their_range(low: float, width: float, log: bool, number: int) -> None:
    made = OptionConfig(range=(low, low + width), log=log)
    drawn = made.pick(numpy_generator(0, "test", number))
    assert low * (1 - 1e-9) <= drawn <= (low + width) * (1 + 1e-9)
    assert made.pick(numpy_generator(0, "test", number)) == drawn


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_are_drawn_as_often_as_the_scale_says(log: bool) -> None:
    made = OptionConfig(integer=(1, 8), log=log)
    counts = Counter(made.pick(numpy_generator(0, "test", number)) for number in range(4_000))
    whole = math.log(8.5 / 0.5) if log else 8
    for value in range(1, 9):
        owned = math.log((value + 0.5) / (value - 0.5)) if log else 1
        expected = 4_000 * owned / whole
        assert counts[value] == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_a_range_on_a_log_scale_is_even_in_the_logarithm() -> None:
    made = OptionConfig(range=(1e-4, 1e-2), log=True)
    drawn = [made.pick(numpy_generator(0, "test", number)) for number in range(2_000)]
    assert sum(value < 1e-3 for value in drawn) == pytest.approx(1_000, abs=4 * math.sqrt(500))


@pytest.mark.parametrize(
    ("when", "values", "holds"),
    [
        ({}, {}, True),
        ({"gate": True}, {"gate": True}, True),
        ({"gate": True}, {"gate": False}, False),
        ({"gate": True}, {}, False),
        ({"depth": [2, 3]}, {"depth": 3}, True),
        ({"depth": [2, 3], "gate": True}, {"depth": 3, "gate": False}, False),
    ],
)
def test_conditions(when: dict[str, Any], values: dict[str, Any], holds: bool) -> None:
    assert OptionConfig(choice=[1], when=when).holds(values) is holds


def test_a_condition_names_what_stands_before_it() -> None:
    later = OptionConfig(choice=[1], when={"b": 1})
    with pytest.raises(ValueError, match=r"net\.a: when names 'b'.*before it stand: none"):
        check_conditions({"net": {"a": later, "b": OptionConfig(choice=[1])}})
    shared = {"*": {"b": OptionConfig(choice=[1])}, "net": {"a": later}}
    assert check_conditions(shared) == shared


def test_options_of_every_network_come_first_and_give_way() -> None:
    every, own, other = (OptionConfig(choice=[n]) for n in range(3))
    space = {"*": {"rate": every}, "one": {"depth": other}, "two": {"rate": own}}
    assert options_of(space) == {"one": {"rate": every, "depth": other}, "two": {"rate": own}}
    assert list(options_of(space)["one"]) == ["rate", "depth"]
