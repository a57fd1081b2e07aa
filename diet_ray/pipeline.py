"""The main job: raw behaviour logs in, a distilled set with a measured recovered gap out."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from diet_ray import progress, runtime, storage
from diet_ray.config import RunConfig
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.stream import distill_stream
from diet_ray.evaluation.check import Line, check, render
from diet_ray.logs.blocks import Blocks
from diet_ray.logs.prepare import prepare
from diet_ray.memory import artifact
from diet_ray.models.registry import parameters_of
from diet_ray.training.metrics import check_measurable
from diet_ray.training.reference import train_reference


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    distilled: str  # URI of S_T
    lines: list[Line]  # the check's table


def distill_logs(config: RunConfig) -> Outcome:
    """Prepare, train the reference, distil every stage, check. Skips whatever is published."""
    validate(config)
    blocks = prepare(config)
    memory_sizes(config, blocks)
    check_measurable(blocks)
    train_reference(config, blocks)
    distilled = distill_stream(config, blocks)
    lines = check(config, blocks, distilled)
    _report(config, blocks, distilled, lines)
    return Outcome(distilled, lines)


def validate(config: RunConfig) -> None:
    """Everything that can be known to fail before work starts."""
    for network in (config.reference.network, *config.evaluation.candidates):
        parameters_of(network)
    runtime.check_resources(config)
    storage.check_writable(config.output)


def _report(config: RunConfig, blocks: Blocks, distilled: str, lines: list[Line]) -> None:
    phases = progress.summary()
    size = {
        "rows": artifact.describe(distilled).rows,
        "historical_rows": blocks.historical_rows,
        "bytes": storage.size(distilled),
        "historical_bytes": sum(f.bytes for b in blocks.historical for f in b.fragments),
    }
    storage.write_json(
        config.place("summary.json"),
        {
            "distilled": distilled,
            "size": size,
            "check": [asdict(line) for line in lines],
            "seconds_of_last_run": {title: round(seconds, 1) for title, seconds in phases},
            "configuration": config.model_dump(mode="json", exclude={"output"}),
        },
    )
    say = progress.logger.info
    say("Test block, mean over tasks (AUC ± 95%% interval over seeds):\n%s", render(lines))
    for title, seconds in phases:
        if seconds >= 1:
            say("  %-60s %s", title, progress.duration(seconds))
    say(
        "Distilled set: %s: %s rows (%.2f%% of %s), %s (%.0f%% of the blocks' %s)",
        distilled,
        f"{size['rows']:,}",
        100 * size["rows"] / size["historical_rows"],
        f"{size['historical_rows']:,}",
        progress.byte_size(size["bytes"]),
        100 * size["bytes"] / size["historical_bytes"],
        progress.byte_size(size["historical_bytes"]),
    )
