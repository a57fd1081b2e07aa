"""What jobs/sweep.py will do."""

from __future__ import annotations

from collections.abc import Mapping

from diet_ray import progress
from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.logs.blocks import Block, Blocks
from diet_ray.memory import artifact
from diet_ray.models import space
from diet_ray.plan import estimates
from diet_ray.plan.pace import Pace, on_a_worker
from diet_ray.plan.steps import HEAD, PUBLISHED, Step, render
from diet_ray.search.sweep import SPACE, open_set, read_trials, trial_keys


def say_plan(config: RunConfig) -> None:
    """Log how many trials are left and their time. Raises UserError for a set that is not there."""
    progress.logger.info(HEAD, on_a_worker(_in_words, config))


def _in_words(config: RunConfig) -> str:
    return render(plan(config))


def plan(config: RunConfig) -> list[Step]:
    """The trials that are not done yet."""
    search = config.search
    candidates = space.draw(search.space, search.trials, config.seed, SPACE)
    blocks, distilled = open_set(config)
    keys = trial_keys(config, blocks, distilled, candidates)
    done = read_trials(config, keys)
    left = {key: network for key, network in keys.items() if key not in done}
    if not left:
        return [Step("Sweep", PUBLISHED)]
    judged = blocks_like(distilled)
    amount = f"{len(left):,} of {len(keys):,} trials"
    seconds = trial_seconds(config, distilled, judged, left)
    side_by_side = estimates.processes(config, config.resources.evaluation_tasks)
    return [Step("Sweep", amount, estimates.PROCESS_START + seconds / side_by_side)]


def blocks_like(distilled: str) -> Blocks:
    """A block of the rows that judge, in the schema of a published set: all that a trial sees."""
    described, held = artifact.describe(distilled), artifact.read_ranking_data(distilled)
    sizes = dict(zip(described.fields, (held.rows.ids.max(axis=0) + 1).tolist(), strict=True))
    judged = Block("validation", "validation", "", len(held.rows), sizes, {})
    return Blocks(distilled, described.fields, described.tasks, (judged,), 0, "", 0, {}, 0)


def trial_seconds(
    config: RunConfig, distilled: str, judged: Blocks, left: Mapping[str, NetworkConfig]
) -> float:
    """Of all trials together, one after the other."""
    rows, pace = artifact.describe(distilled).rows, Pace(config, judged)
    evaluation, asked = config.evaluation, judged.blocks[0].rows
    titled = [n.model_copy(update={"label": key}) for key, n in left.items()]
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
