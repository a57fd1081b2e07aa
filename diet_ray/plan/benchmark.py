"""What jobs/benchmark.py will do."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from diet_ray import progress
from diet_ray.config import RunConfig
from diet_ray.distill.context import stage_uri
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.studies import Studies, all_arms
from diet_ray.evaluation.tuning import Tuned, protocols_tried, tune, tuning_cells
from diet_ray.logs.blocks import Blocks
from diet_ray.plan import estimates
from diet_ray.plan.distill import until_distilled
from diet_ray.plan.expected import blocks_of
from diet_ray.plan.pace import Pace, on_a_worker
from diet_ray.plan.steps import HEAD, PUBLISHED, Step, render
from diet_ray.training.reference import reference_uri


def say_plan(config: RunConfig) -> None:
    """Log the job's steps with their times. Raises UserError for what the job would refuse."""
    progress.logger.info(HEAD, on_a_worker(_in_words, config))


def _in_words(config: RunConfig) -> str:
    blocks = blocks_of(config)
    return render(plan(config, blocks, Pace(config, blocks)))


def plan(config: RunConfig, blocks: Blocks, pace: Pace) -> list[Step]:
    """The run's own set, the tuning of the protocols, the studies' other sets and trainings.

    Protocols that are not chosen yet are taken to be the first of those tried. The measurement of
    costs, minutes at most, is not counted.
    """
    run, arms = Run(config, blocks, stage_uri(config, len(blocks.historical))), all_arms(config)
    tried = [cell for cells in tuning_cells(run, arms).values() for cell in cells]
    tuning = estimates.trainings("Tuning of the protocols", tried, pace)
    first = {arm: protocols_tried(config, arm[0])[0] for arm in arms}
    tuned = Tuned(first, pd.DataFrame()) if tuning.seconds else tune(run, arms)
    others: dict[str, tuple[RunConfig, bool]] = {}  # by output: and whether it is distilled

    def note(other: RunConfig, _: Blocks, distilled: bool) -> str:
        others[other.output] = other, distilled
        return stage_uri(other, len(blocks.historical)) if distilled else ""

    cells = [study_cell.cell for study_cell in Studies(run, tuned, note).cells()]
    return [
        *until_distilled(config, blocks, pace),
        tuning,
        _other_sets(run, list(others.values()), pace),
        estimates.trainings("Studies", cells, pace),
    ]


def _other_sets(run: Run, others: Sequence[tuple[RunConfig, bool]], pace: Pace) -> Step:
    """References, each folder's once, and distilled sets."""
    title, seen, steps = "The studies' other sets", {reference_uri(run.config, 1)}, list[Step]()
    for config, distilled in others:
        if reference_uri(config, 1) not in seen:
            seen.add(reference_uri(config, 1))
            steps.append(estimates.reference_model(config, run.blocks, pace))
        if distilled:
            steps.append(estimates.distillation(config, run.blocks, pace))
    left = [step for step in steps if step.seconds]
    if not left:
        return Step(title, PUBLISHED if steps else "none")
    sets = sum(distilled for _, distilled in others)
    references = len(seen) - 1
    amount = f"{sets} sets, {references} references, {len(left)} of them to make"
    return Step(title, amount, sum(step.seconds for step in left))
