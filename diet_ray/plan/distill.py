"""What jobs/distill.py will do."""

from __future__ import annotations

from diet_ray import progress
from diet_ray.config import RunConfig
from diet_ray.distill.context import stage_uri
from diet_ray.evaluation.check import check_cells
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import Blocks
from diet_ray.plan import estimates
from diet_ray.plan.expected import blocks_of
from diet_ray.plan.pace import Pace, on_a_worker
from diet_ray.plan.steps import HEAD, Step, render, roughly

MANY_ROWS = 5_000_000
"""Historical rows beyond which a check that nobody asked for deserves a word."""


def say_plan(config: RunConfig) -> None:
    """Log the job's steps with their times. Raises UserError for what the job would refuse."""
    progress.logger.info(HEAD, on_a_worker(_in_words, config))


def _in_words(config: RunConfig) -> str:
    blocks = blocks_of(config)
    steps = plan(config, blocks, Pace(config, blocks))
    return render(steps, _notes(config, blocks, steps[-1]))


def plan(config: RunConfig, blocks: Blocks, pace: Pace) -> list[Step]:
    """Preparation, reference, set, check."""
    return [*until_distilled(config, blocks, pace), check_step(config, blocks, pace)]


def until_distilled(config: RunConfig, blocks: Blocks, pace: Pace) -> list[Step]:
    """What every job needs that judges a set of its own."""
    return [
        estimates.preparation(config, blocks, pace),
        estimates.reference_model(config, blocks, pace),
        estimates.distillation(config, blocks, pace),
    ]


def check_step(config: RunConfig, blocks: Blocks, pace: Pace) -> Step:
    """The check of the set."""
    run = Run(config, blocks, stage_uri(config, len(blocks.historical)))
    cells = [study_cell.cell for study_cell in check_cells(run)]
    return estimates.trainings("Check on the test block", cells, pace)


def _notes(config: RunConfig, blocks: Blocks, check: Step) -> list[str]:
    notes, resources = [], config.resources
    if resources.reference_gpu or resources.meta_worker_gpus or resources.scoring_gpus:
        notes.append("Measured on a CPU: what runs on GPUs takes less.")
    asked_for = "methods" in config.evaluation.model_fields_set
    if not asked_for and blocks.historical_rows > MANY_ROWS and check.seconds:
        notes.append(
            f"The check trains every candidate on all {blocks.historical_rows:,} historical rows, "
            f"{config.evaluation.seeds} times: about {roughly(check.seconds)} in all. Without full "
            "data: --set evaluation.methods='[warm, random, distilled]'; no check: "
            "--set evaluation.methods='[]'."
        )
    return notes
