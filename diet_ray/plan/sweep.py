"""What jobs/sweep.py will do."""

from __future__ import annotations

from collections.abc import Sequence

from diet_ray import progress
from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.logs.blocks import Block, Blocks
from diet_ray.memory import artifact
from diet_ray.models import space
from diet_ray.plan import estimates
from diet_ray.plan.pace import Pace, on_a_worker
from diet_ray.plan.steps import HEAD, PUBLISHED, Step, render
from diet_ray.search.kept import Trials
from diet_ray.search.proposals import SPACE, listed, proposals
from diet_ray.search.run import open_run
from diet_ray.search.sweep import open_set


def say_plan(config: RunConfig) -> None:
    """Log how many trials are left and their time. Raises UserError for a set that is not there."""
    progress.logger.info(HEAD, on_a_worker(_in_words, config))


def _in_words(config: RunConfig) -> str:
    return render(plan(config))


def plan(config: RunConfig) -> list[Step]:
    """The trials that are not done yet, the candidates to verify, and those to finish."""
    blocks, distilled = open_set(config)
    judged = blocks_like(distilled)
    pace = Pace(config, judged)
    steps = [_trials(config, Trials(config, blocks, distilled), distilled, judged, pace)]
    if config.search.verify:
        full = artifact.full_rows(distilled) or 0
        steps.append(_trainings(config, "Verify on full data", config.search.verify, full, pace))
    if config.search.finish:
        newest = open_run(config, "search.finish").blocks.block("subsequent").rows
        steps.append(_trainings(config, "Finish the best", config.search.finish, newest, pace))
    return steps


def _trials(config: RunConfig, trials: Trials, distilled: str, judged: Blocks, pace: Pace) -> Step:
    search, source = config.search, proposals(config)
    known = {key for key, (candidate, _) in trials.read().items() if source.belongs(candidate)}
    # TPE's candidates are not known before their turn; others of the space stand for them
    drawn = listed(config) or space.draw(search.space, search.trials, config.seed, SPACE)
    left = [candidate.network for candidate in drawn if trials.key(candidate) not in known]
    left = left[: max(min(search.trials, len(drawn)) - len(known), 0)]
    if not left:
        return Step("Sweep", PUBLISHED)
    seconds = trial_seconds(config, distilled, judged, pace, left)
    side_by_side = estimates.processes(config, len(left))
    amount = f"{len(left):,} of {len(known) + len(left):,} trials"
    return Step("Sweep", amount, estimates.PROCESS_START + seconds / side_by_side)


def _trainings(config: RunConfig, title: str, count: int, rows: int, pace: Pace) -> Step:
    """Of so many candidates on the log itself; which ones they are only the sweep will tell."""
    drawn = space.draw(config.search.space, count, config.seed, SPACE)
    seeds = config.evaluation.seeds
    protocol = config.evaluation.protocol_of("full")
    trained = [c.network for c in drawn]
    seconds = sum(rows * pace.training(network, protocol.batch_size) for network in trained)
    side_by_side = estimates.processes(config, config.resources.evaluation_tasks)
    amount = f"{count * seeds:,} trainings of {rows:,} rows"
    return Step(title, amount, estimates.PROCESS_START + seeds * seconds / side_by_side)


def blocks_like(distilled: str) -> Blocks:
    """A block of the rows that judge, in the schema of a published set: all that a trial sees."""
    described, held = artifact.describe(distilled), artifact.read_ranking_data(distilled)
    sizes = dict(zip(described.fields, (held.rows.ids.max(axis=0) + 1).tolist(), strict=True))
    judged = Block("validation", "validation", "", len(held.rows), sizes, {})
    return Blocks(distilled, described.fields, described.tasks, (judged,), 0, "", 0, {}, 0)


def trial_seconds(
    config: RunConfig, distilled: str, judged: Blocks, pace: Pace, left: Sequence[NetworkConfig]
) -> float:
    """Of all trials together, one after the other."""
    rows, asked = artifact.describe(distilled).rows, judged.blocks[0].rows
    evaluation = config.evaluation
    titled = [n.model_copy(update={"label": str(number)}) for number, n in enumerate(left)]
    stand_in = estimates.stand_ins(titled)
    total = 0.0
    for network in stand_in.values():
        if config.search.use == "cotrain":
            total += pace.co_training(network, evaluation.cotrain, rows)
            total += evaluation.cotrain.seeds * asked * pace.prediction(network)
        else:
            protocol = evaluation.protocol
            epoch = rows * pace.warm_up(network, protocol.warm_up_batch_size)
            epoch += asked * pace.prediction(network)
            total += evaluation.seeds * protocol.epochs * epoch
    return total
