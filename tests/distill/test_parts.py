"""What a recipe is called, and which parts of the paper's method it has."""

from __future__ import annotations

from typing import Any

import pytest

from diet_ray.distill.parts import Parts, parts, recipe_name
from tests.made import small_config

STEPS: dict[str, Any] = {"rounds": 2, "outer_steps": 30}
RANDOM: dict[str, Any] = {"new_rows": "random", "keep": 1.0}
WUKONG: dict[str, Any] = {"networks": [{"name": "wukong"}], "start": "fresh"}


@pytest.mark.parametrize(
    ("keep", "hard", "active", "expected"),
    [
        (0.8, 0.1, 0.5, Parts(True, True, True)),
        (0.0, 0.1, 0.5, Parts(False, True, True)),  # nothing is kept
        (1.0, 0.1, 0.5, Parts(False, True, True)),  # everything is
        (0.8, 1.0, 0.5, Parts(True, False, True)),
        (0.8, 0.1, 1.0, Parts(True, True, False)),
    ],
)
def test_a_part_is_on_where_it_selects(
    keep: float, hard: float, active: float, expected: Parts
) -> None:
    distill = {"hard_fraction": hard, "active_fraction": active}
    assert parts(small_config("x", memory={"keep": keep}, distill=distill)) == expected


@pytest.mark.parametrize(
    ("memory", "distill", "name"),
    [
        ({}, {}, "DIET (paper)"),
        ({"keep": 0.5, "percentile": 50}, {"hard_fraction": 0.9}, "DIET (paper)"),
        ({}, {"inner": {"start": "fresh"}}, "DIET, fresh start"),
        ({}, {"inner": WUKONG}, "DIET, fresh start, proxies of its own"),
        (
            {"anchored": True, "truth_blend": 0.3},
            {"unseen": True},
            "DIET, blended labels, anchored rows, unseen targets",
        ),
        (
            RANDOM,
            {"hard_fraction": 1, "active_fraction": 1},
            "random rows + 60 meta-gradient steps, no fusion, no addressing",
        ),
        (
            RANDOM,
            {"hard_fraction": 1, "active_fraction": 1, "outer": {"embedding_step": 0}},
            "random rows + 60 meta-gradient steps on labels, no fusion, no addressing",
        ),
        ({}, {"outer": {"embedding_step": 0}}, "DIET, labels alone"),
        ({}, {"outer_steps": 0}, "boundary rows + the reference's labels"),
        (
            RANDOM,
            {"outer_steps": 0, "hard_fraction": 1, "active_fraction": 1},
            "random rows + the reference's labels, no fusion, no addressing",
        ),
        (
            {"new_rows": "random"},
            {"rounds": 1, "outer_steps": 1},
            "random rows + 1 meta-gradient step",
        ),
        (
            {"keep": 0.0},
            {"active_fraction": 1},
            "boundary rows + 60 meta-gradient steps, no fusion, no memory selection",
        ),
        ({}, {"hard_fraction": 1}, "boundary rows + 60 meta-gradient steps, no target selection"),
    ],
)
def test_a_recipe_is_called_by_what_it_does(
    memory: dict[str, Any], distill: dict[str, Any], name: str
) -> None:
    assert recipe_name(small_config("x", memory=memory, distill={**STEPS, **distill})) == name
