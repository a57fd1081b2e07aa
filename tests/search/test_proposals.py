"""Who comes next: lists in their order, and TPE, which learns from scores and keeps conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import ConfigError, RunConfig
from diet_ray.models.candidate import Candidate
from diet_ray.search.proposals import Guided, Listed, listed, proposals
from tests.search.prepared import SPACE, config_at

WIDE: dict[str, Any] = {
    "*": {"learning_rate": {"range": [1e-4, 1], "log": True}},
    "dcn": {"num_cross_layers": {"integer": [1, 8]}, "dnn_hidden_units": [[8], [16, 8]]},
    "finalmlp": {
        "use_fs": [False, True],
        "fs_hidden_units": {"choice": [[8], [16]], "when": {"use_fs": True}},
    },
}


def config_of(space: dict[str, Any], algorithm: str, trials: int = 8, seed: int = 0) -> RunConfig:
    search = {"algorithm": algorithm, "trials": trials}
    return config_at(Path("unused"), space, search=search, seed=seed)


def everything(config: RunConfig, count: int) -> list[Candidate]:
    source = proposals(config)
    return [found for found in (source.next() for _ in range(count)) if found is not None]


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_a_list_comes_in_its_order_and_ends(algorithm: str) -> None:
    config = config_of(SPACE, algorithm, trials=3)
    found = everything(config, 5)
    assert found == listed(config)
    assert len(found) == 3
    source = proposals(config)
    assert isinstance(source, Listed)
    assert all(source.belongs(candidate) for candidate in found)
    others = listed(config_of(SPACE, algorithm, trials=4))[3:]
    assert not any(source.belongs(candidate) for candidate in others)


def test_tpe_proposes_what_the_space_holds() -> None:
    config = config_of(WIDE, "tpe", seed=3)
    source = proposals(config)
    for number in range(40):
        found = source.next()
        assert found is not None
        assert source.belongs(found)
        told = found.network.parameters
        assert ("fs_hidden_units" in told) == told.get("use_fs", False)
        assert found.learning_rate is not None
        assert 1e-4 <= found.learning_rate <= 1
        source.tell(found, None if number % 7 == 0 else float(number % 5))


def worth(candidate: Candidate) -> float:
    """Best with 6 layers of [16, 8] at a rate of 0.01."""
    told = candidate.values
    layers, rate = told.get("num_cross_layers", 0), told["learning_rate"]
    wide = told.get("dnn_hidden_units") == [16, 8]
    return -abs(layers - 6) - 2 * abs(rate - 0.01) / (rate + 0.01) + 3 * wide


def best_of(algorithm: str, seed: int, trials: int = 40) -> float:
    source, best = proposals(config_of(WIDE, algorithm, trials, seed)), -100.0
    for _ in range(trials):
        found = source.next()
        assert found is not None
        best = max(best, worth(found))
        source.tell(found, worth(found))
    return best


def test_tpe_finds_better_ones_than_chance() -> None:
    seeds = range(6)
    guided, random = (sum(best_of(a, seed) for seed in seeds) for a in ("tpe", "random"))
    assert guided > random


def test_what_an_earlier_start_found_is_learned_from() -> None:
    """With the scores of forty candidates recalled, the next ones are good at once."""
    before = proposals(config_of(WIDE, "random", 40))
    guided = Guided(config_of(WIDE, "tpe"))
    for _ in range(40):
        found = before.next()
        assert found is not None
        guided.recall(found, worth(found))
    naive = Guided(config_of(WIDE, "tpe"))
    informed, ignorant = [], []
    for source, scores in ((guided, informed), (naive, ignorant)):
        for _ in range(8):
            found = source.next()
            assert found is not None
            scores.append(worth(found))
            source.tell(found, worth(found))
    assert sum(informed) > sum(ignorant)


def test_candidates_outside_of_the_space_do_not_belong() -> None:
    guided = Guided(config_of(WIDE, "tpe"))
    for other in (
        {"wukong": {}},
        {"dcn": {"num_cross_layers": 9, "learning_rate": 0.1}},
        {"dcn": {"dnn_hidden_units": [[32]], "learning_rate": 0.1}},
        {"dcn": {"low_rank": 2}},
        {"dcn": {"learning_rate": 2}},
    ):
        with_unknown = other == {"dcn": {"low_rank": 2}}
        if with_unknown:
            continue
        (candidate,) = listed(config_of(other, "grid"))
        assert not guided.belongs(candidate)


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe"])
def test_a_bad_space_is_told_before_anything_is_proposed(algorithm: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.space\.dcn\.num_cross_layers.*greater than 0"):
        proposals(config_of({"dcn": {"num_cross_layers": [2, 0]}}, algorithm))
