"""The space: what it refuses, and that draws are fair, distinct and a function of the seed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from diet_ray.config import ConfigError, Space
from diet_ray.models import space as spaces
from diet_ray.models.candidate import Candidate
from diet_ray.models.space import draw, grid

SPACE: dict[str, Any] = {
    "dcn": {"num_cross_layers": [1, 2, 3], "dnn_hidden_units": [[8], [16, 8]]},
    "wukong": {"num_layers": [1, 2], "rank": [2, 4]},
}


KEY = "search.space"


def made(space: dict[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(space)


def drawn_of(space: dict[str, Any], count: int = 8, seed: int = 0) -> list[Candidate]:
    return draw(made(space), count, seed, KEY)


def grid_of(space: dict[str, Any]) -> list[Candidate]:
    return grid(made(space), KEY)


def identities(drawn: list[Candidate]) -> list[str]:
    return [candidate.identity() for candidate in drawn]


def test_the_grid_holds_every_combination_once() -> None:
    found = grid_of({"dcn": SPACE["dcn"]})
    assert [candidate.network.parameters for candidate in found] == [
        {"num_cross_layers": layers, "dnn_hidden_units": units}
        for layers in (1, 2, 3)
        for units in ([8], [16, 8])
    ]


def test_equal_networks_written_differently_count_once() -> None:
    assert len(grid_of({"dcn": {"num_cross_layers": [3, "3", 3]}})) == 1
    default, written = (grid_of({"dcn": o}) for o in ({}, {"num_cross_layers": [3]}))
    assert len(default) == 1
    assert identities(default) == identities(written)


@given(trials=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_a_draw_is_distinct_fair_and_a_function_of_the_seed(trials: int, seed: int) -> None:
    drawn = drawn_of(SPACE, trials, seed)
    assert len(set(identities(drawn))) == len(drawn) == min(trials, 10)
    counts = [sum(found.network.name == name for found in drawn) for name in SPACE]
    assert max(counts) - min(counts) <= 1 or min(counts) == 4
    assert drawn_of(SPACE, trials, seed) == drawn
    assert drawn_of(SPACE, 12, seed)[: len(drawn)] == drawn


def test_another_seed_draws_others() -> None:
    draws = {tuple(identities(drawn_of(SPACE, 2, seed))) for seed in range(20)}
    assert len(draws) > 5


def test_more_values_keep_the_order_of_the_others() -> None:
    wider = {"dcn": {**SPACE["dcn"], "num_cross_layers": [1, 2, 3, 4]}}
    before = identities(drawn_of({"dcn": SPACE["dcn"]}, 100))
    after = identities(drawn_of(wider, 100))
    assert [known for known in after if known in before] == before


def test_a_network_without_options_appears_once() -> None:
    drawn = drawn_of({"dcn": {}, "wukong": {"num_layers": [1, 2, 3]}})
    assert sorted(found.network.name for found in drawn) == ["dcn", "wukong", "wukong", "wukong"]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, ["search.space", "no network"]),
        ({"dnc": {}}, ["search.space", "'dnc'", "did you mean 'dcn'", "wukong"]),
        ({"dcn": {"num_cros_layers": [1]}}, ["num_cros_layers", "'num_cross_layers'"]),
        ({"dcn": {"num_cross_layers": [1, "two"]}}, ["dcn", "num_cross_layers", "'two'"]),
        ({"dcn": {"num_cross_layers": [1, 0]}}, ["num_cross_layers", "0", "greater than 0"]),
        ({"dcn": {"dnn_hidden_units": [[8], []]}}, ["dnn_hidden_units", "at least 1"]),
        ({"dcn": {"learning_rate": [0.1, 0]}}, ["learning_rate", "0", "greater than 0"]),
        ({"dcn": {"embedding_dim": [2.5]}}, ["embedding_dim", "2.5", "valid integer"]),
        ({"dcn": {"num_cross_layers": {"integer": [0, 3]}}}, ["num_cross_layers", "greater than"]),
        ({"dcn": {"num_cross_layers": {"range": [1.5, 3]}}}, ["num_cross_layers", "integer"]),
        ({"no.module:Net": {}}, ["no.module:Net", "importable class"]),
    ],
)
def test_what_is_not_valid_is_named(space: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        drawn_of(space)
    for part in told:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_cross_layers": {"integer": [1, 500]}, "dnn_hidden_units": [[8]] * 400}, "200,000"),
        ({"learning_rate": {"range": [0.1, 1]}}, "learning_rate: a range has no end of values"),
    ],
)
def test_a_grid_without_end_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        grid_of({"dcn": options})


WIDE: dict[str, Any] = {
    "*": {"learning_rate": {"range": [1e-4, 1e-2], "log": True}, "embedding_dim": [4, 8]},
    "dcn": {"num_cross_layers": {"integer": [1, 4]}},
    "finalmlp": {
        "use_fs": [False, True],
        "fs_hidden_units": {"choice": [[8], [16]], "when": {"use_fs": True}},
    },
}


@given(count=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_a_draw_from_ranges_is_distinct_and_a_function_of_the_seed(count: int, seed: int) -> None:
    drawn = drawn_of(WIDE, count, seed)
    assert len(set(identities(drawn))) == len(drawn) == count
    assert drawn_of(WIDE, 12, seed)[:count] == drawn
    for found in drawn:
        assert found.learning_rate is not None
        assert 1e-4 <= found.learning_rate <= 1e-2
        assert found.embedding_dim in (4, 8)
        assert not {"learning_rate", "embedding_dim"} & set(found.network.parameters)
        if found.network.name == "finalmlp":
            told = found.network.parameters
            assert ("fs_hidden_units" in told) == told["use_fs"]


def test_a_condition_leaves_out_what_it_does_not_allow() -> None:
    found = grid_of({"finalmlp": WIDE["finalmlp"]})
    assert [candidate.network.parameters for candidate in found] == [
        {"use_fs": False},
        {"use_fs": True, "fs_hidden_units": [8]},
        {"use_fs": True, "fs_hidden_units": [16]},
    ]


def test_more_than_can_be_listed_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "LARGEST_GRID", 5)
    drawn = drawn_of({"dcn": SPACE["dcn"]}, 100)
    assert len(set(identities(drawn))) == len(drawn) == 6  # all there are
    assert drawn_of({"dcn": SPACE["dcn"]}, 3) == drawn[:3]


def test_own_keys_make_another_candidate() -> None:
    options = {"learning_rate": [0.1, 0.2], "embedding_dim": [4, 8]}
    found = grid_of({"dcn": options})
    assert [(c.learning_rate, c.embedding_dim) for c in found] == list(
        itertools.product([0.1, 0.2], [4, 8])
    )
    assert len(set(identities(found))) == 4
