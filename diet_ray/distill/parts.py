"""What of the paper's method a configuration switches on, and what tables call it.

DIET is a whole: boundary rows, fusion, both addressings, meta-gradients that start at the previous
reference. A recipe that leaves parts of it out is not DIET, and no table should say so.
"""

from __future__ import annotations

from typing import NamedTuple

from diet_ray.config import RunConfig


class Parts(NamedTuple):
    """The three parts that the paper's Table 4 switches off."""

    fusion: bool
    target_selection: bool
    memory_selection: bool


def parts(config: RunConfig) -> Parts:
    """What a configuration has on.

    A selection that takes all is none, and neither is one that takes nothing: a memory that keeps
    every old row (`memory.keep` 1) chooses among them as little as one that keeps none (0).
    """
    return Parts(
        fusion=0 < config.memory.keep < 1,
        target_selection=config.distill.hard_fraction < 1,
        memory_selection=config.distill.active_fraction < 1,
    )


def recipe_name(config: RunConfig) -> str:
    """A short name for how the set is distilled.

    "DIET (paper)" if everything is as in the paper; "DIET, fresh start, .." if all parts are on but
    done in other ways; else the parts that are there and those that are not, such as "random rows
    + 60 meta-gradient steps, no fusion, no addressing", or "random rows + the reference's labels,
    .." without a step. Steps are those of one stage.
    """
    missing, other = _missing_parts(parts(config)), _other_ways(config)
    steps = config.distill.steps_of_stage
    if steps and not missing and config.memory.new_rows == "boundary":
        return ", ".join(["DIET", *other]) if other else "DIET (paper)"
    rows = {"boundary": "boundary rows", "random": "random rows"}[config.memory.new_rows]
    if not steps:
        return ", ".join([f"{rows} + the reference's labels", *missing])
    plural = "s" if steps > 1 else ""
    labels = "" if config.distill.outer.embedding_step else " on labels"
    return ", ".join([f"{rows} + {steps} meta-gradient step{plural}{labels}", *missing])


def _missing_parts(found: Parts) -> list[str]:
    names = {
        "no fusion": found.fusion,
        "no addressing": found.target_selection or found.memory_selection,
        "no target selection": found.target_selection or not found.memory_selection,
        "no memory selection": found.memory_selection or not found.target_selection,
    }
    return [name for name, there in names.items() if not there]


def _other_ways(config: RunConfig) -> list[str]:
    """Where a recipe with all parts does them differently from the paper."""
    memory, inner = config.memory, config.distill.inner
    names = {
        f"{inner.start} start": inner.start != "previous_reference",
        "proxies of its own": any(
            not network.same_as(config.reference.network) for network in inner.networks
        ),
        "blended labels": memory.truth_blend > 0,
        "anchored rows": memory.anchored,
        "labels alone": config.distill.outer.embedding_step == 0,
        "unseen targets": config.distill.unseen,
    }
    return [name for name, differs in names.items() if differs]
