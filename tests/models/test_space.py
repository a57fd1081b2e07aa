"""The space: what it refuses, and that draws are fair, distinct and a function of the seed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import ConfigError, NetworkConfig
from diet_ray.models.space import draw, grid, identity

SPACE: dict[str, Any] = {
    "dcn": {"num_cross_layers": [1, 2, 3], "dnn_hidden_units": [[8], [16, 8]]},
    "wukong": {"num_layers": [1, 2], "rank": [2, 4]},
}


KEY = "search.space"


def drawn_of(space: dict[str, Any], count: int = 8, seed: int = 0) -> list[NetworkConfig]:
    return draw(space, count, seed, KEY)


def identities(drawn: list[NetworkConfig]) -> list[str]:
    return [identity(network, KEY) for network in drawn]


def test_the_grid_holds_every_combination_once() -> None:
    found = grid("dcn", SPACE["dcn"], KEY)
    assert [network.parameters for network in found] == [
        {"num_cross_layers": layers, "dnn_hidden_units": units}
        for layers in (1, 2, 3)
        for units in ([8], [16, 8])
    ]


def test_equal_networks_written_differently_count_once() -> None:
    assert len(grid("dcn", {"num_cross_layers": [3, "3", 3]}, KEY)) == 1
    default, written = (grid("dcn", options, KEY) for options in ({}, {"num_cross_layers": [3]}))
    assert len(default) == 1
    assert identities(default) == identities(written)


@given(trials=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_a_draw_is_distinct_fair_and_a_function_of_the_seed(trials: int, seed: int) -> None:
    drawn = drawn_of(SPACE, trials, seed)
    assert len(set(identities(drawn))) == len(drawn) == min(trials, 10)
    counts = [sum(network.name == name for network in drawn) for name in SPACE]
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
    assert sorted(network.name for network in drawn) == ["dcn", "wukong", "wukong", "wukong"]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, ["search.space", "no network"]),
        ({"dnc": {}}, ["search.space", "'dnc'", "did you mean 'dcn'", "wukong"]),
        ({"dcn": {"num_cros_layers": [1]}}, ["num_cros_layers", "'num_cross_layers'"]),
        ({"dcn": {"num_cross_layers": [1, "two"]}}, ["dcn", "num_cross_layers", "'two'"]),
        ({"dcn": {"num_cross_layers": [1, 0]}}, ["num_cross_layers", "0", "greater than 0"]),
        ({"dcn": {"dnn_hidden_units": [[8], []]}}, ["dnn_hidden_units", "at least 1"]),
        ({"dcn": {"num_cross_layers": []}}, ["search.space.dcn.num_cross_layers", "no values"]),
        (
            {"dcn": {"num_cross_layers": list(range(1, 400)), "dnn_hidden_units": [[8]] * 400}},
            ["159,600 combinations", "fewer values"],
        ),
        ({"no.module:Net": {}}, ["no.module:Net", "importable class"]),
    ],
)
def test_what_is_not_valid_is_named(space: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        drawn_of(space)
    for part in told:
        assert part in str(error.value)
