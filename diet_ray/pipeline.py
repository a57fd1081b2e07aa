"""What the jobs call, where all rooms meet.

`distill_logs`: raw behaviour logs in, a distilled set with a measured recovered gap out.
`benchmark_logs`: the same, and the paper's tables and figures about it.
`search_architectures`: a distilled set in, a leaderboard out, checked and finished as asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import pandas as pd

from diet_ray import progress, runtime, storage
from diet_ray.config import ConfigError, NetworkConfig, RunConfig, describe_fit, fit
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.parts import recipe_name
from diet_ray.distill.stream import distill_stream
from diet_ray.evaluation import benchmark, studies
from diet_ray.evaluation.check import Checked, as_json, check, render, render_html
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import Blocks
from diet_ray.logs.prepare import prepare
from diet_ray.logs.sources import open_source
from diet_ray.memory import artifact
from diet_ray.models.candidate import Candidate
from diet_ray.models.check import check_network, check_proxy
from diet_ray.models.registry import DenseNetwork, is_whole, parameters_of
from diet_ray.report import figures
from diet_ray.report.benchmark import publish
from diet_ray.report.figures import verification_figure
from diet_ray.search.finish import Finished, check_reference, finish
from diet_ray.search.finish import render as render_finished
from diet_ray.search.run import open_run
from diet_ray.search.sweep import Swept, fitted, sweep
from diet_ray.search.verify import Verification, points, verify
from diet_ray.search.verify import render as render_verification
from diet_ray.training.metrics import check_measurable
from diet_ray.training.stream import check_device, train_reference

ANY_ROWS = 1
"""Before the blocks are there; what is left to the log's size is valid at every size."""


@dataclass(frozen=True, repr=False)
class Distilled:
    """What a distillation leaves behind; prints as what the set says of itself, and its check."""

    uri: str  # of S_T
    summary: str  # some lines
    checked: Checked
    recipe: str  # what the check's table calls `distilled`

    @property
    def table(self) -> pd.DataFrame:
        """The check's, a row per candidate and method; empty where it is switched off."""
        return self.checked.lines

    @property
    def verdict(self) -> str:
        """On the distilled set against a random selection, a sentence; empty without both."""
        return self.checked.verdict

    def __repr__(self) -> str:
        return f"{self.summary}\nFolder: {self.uri}\n{render(self.checked, self.recipe)}"

    def _repr_html_(self) -> str:
        told = escape(f"{self.summary}\nFolder: {self.uri}").replace("\n", "<br>")
        checked = render_html(self.checked, self.recipe)
        return f"<p>{told}</p>{checked}"


def distill_logs(config: RunConfig) -> Distilled:
    """Prepare, train the reference, distil every stage, check. Skips whatever is published."""
    validate(config)
    run = _distilled_run(*_fitted_and_blocks(config))
    checked = check(run)
    _report(run.config, run.blocks, run.distilled, checked)
    summary = artifact.summary(run.distilled)
    return Distilled(run.distilled, summary, checked, recipe_name(run.config))


def benchmark_logs(config: RunConfig) -> str:
    """Distil, then train and judge every cell of the configured studies; publish the report.

    Returns the URI of the report's page. Skips whatever is published.
    """
    validate(config)
    benchmark.validate(fit(config, ANY_ROWS))
    config, blocks = _fitted_and_blocks(config)
    benchmark.validate(config)  # again: a name can also be that of a network chosen by size
    benchmark.check_sizes(config, blocks)
    found = benchmark.run_benchmark(_distilled_run(config, blocks))
    folder = config.place("benchmark", "report")
    page = publish(
        folder,
        found.results.set_index("key"),
        found.logits,
        found.labels,
        found.costs,
        found.tried,
        studies.parts_of_variants(config),
        recipe_name(config),
        seed=config.seed,
        groups=found.users,
        fidelity=found.fidelity,
    )
    progress.logger.info("Benchmark: %s; results: %s", page, config.place("benchmark"))
    return page


@dataclass(frozen=True, repr=False)
class Searched:
    """What a search leaves behind; prints as the leaderboard and what followed it."""

    swept: Swept
    verified: Verification | None  # None where it is switched off
    finished: list[Finished]

    @property
    def table(self) -> pd.DataFrame:
        """A row per candidate, best first: the columns of ``leaderboard.parquet``."""
        return self.swept.table

    @property
    def best(self) -> Candidate:
        """The first of the leaderboard. Raises SearchError without a candidate that was judged."""
        return self.swept.best

    def best_network(self) -> DenseNetwork:
        """The best as a freshly started Torch module: embeddings (B, F, d) to logits (B, K)."""
        return self.swept.best_network()

    @property
    def uri(self) -> str:
        """Of the leaderboard."""
        return self.swept.uri

    def __repr__(self) -> str:
        return "\n\n".join([repr(self.swept), *self._followed()])

    def _repr_html_(self) -> str:
        followed = "".join(f"<pre>{escape(text)}</pre>" for text in self._followed())
        return self.swept._repr_html_() + followed

    def _followed(self) -> list[str]:
        verified = [render_verification(self.verified)] if self.verified else []
        return verified + ([render_finished(self.finished)] if self.finished else [])


def search_architectures(config: RunConfig) -> Searched:
    """Sweep over a distilled set; train some candidates on full data too (`search.verify`), finish
    the best (`search.finish`). Skips whatever is published.

    Raises ConfigError before the sweep if the run's blocks or reference are missing for what
    follows it.
    """
    config, search = fitted(config), config.search
    if search.verify:
        open_run(config, "search.verify")
    if search.finish:
        check_reference(open_run(config, "search.finish"))
    swept = sweep(config)
    verified = None
    if search.verify:
        verified = verify(config, swept.lines)
        drawn = verification_figure(points(verified), search.ranked_by, verified.sentence)
        figures.publish(drawn, config.place("search"), "verify")
    return Searched(swept, verified, finish(config, swept.lines) if search.finish else [])


def _fitted_and_blocks(config: RunConfig) -> tuple[RunConfig, Blocks]:
    """Blocks of which a set can be distilled and on which AUC is defined, and the configuration
    with what it left to their size."""
    blocks = prepare(config)
    fitted = fit(config, blocks.historical_rows)
    chosen = describe_fit(config, fitted)
    if chosen:
        progress.logger.info(
            "Chosen to fit %s historical rows, as the configuration leaves it open:\n  %s",
            f"{blocks.historical_rows:,}",
            "\n  ".join(chosen),
        )
    memory_sizes(fitted, blocks)
    check_measurable(blocks)
    return fitted, blocks


def _distilled_run(config: RunConfig, blocks: Blocks) -> Run:
    train_reference(config, blocks)
    return Run(config, blocks, distill_stream(config, blocks))


def check_networks(config: RunConfig, references: Sequence[NetworkConfig] = ()) -> None:
    """Whether every network that the configuration names can be built, and a class of one's own
    does what is asked of it where it stands. Raises ConfigError.

    references: of a benchmark, beside the run's own.
    """
    config = fit(config, ANY_ROWS)
    inner, candidates = config.distill.inner.networks, config.evaluation.candidates
    named = {
        "reference.network": config.reference.network,
        **{f"benchmark.references.{n}": network for n, network in enumerate(references)},
        **{f"distill.inner.networks.{n}": network for n, network in enumerate(inner)},
        **{f"evaluation.candidates.{n}": network for n, network in enumerate(candidates)},
    }
    for key, network in named.items():
        with _under(key):
            parameters_of(network)
    own = {key: network for key, network in named.items() if is_whole(network)}
    if own:
        source = open_source(config.raw_logs, config.seed)
        for key, network in own.items():
            tried = check_network if key.startswith("evaluation.") else check_proxy
            with _under(key):
                tried(network, config.models, len(source.fields), len(source.tasks))


@contextmanager
def _under(key: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error.__cause__


def check_benchmark(config: RunConfig) -> None:
    """What of a benchmark can be refused without Ray. Raises ConfigError."""
    check_networks(config, config.benchmark.references)
    benchmark.validate(fit(config, ANY_ROWS))


def validate(config: RunConfig) -> None:
    """Everything that can be known to fail before work starts."""
    check_networks(config)
    check_device(config)
    runtime.check_resources(config)


def _report(config: RunConfig, blocks: Blocks, distilled: str, checked: Checked) -> None:
    phases = progress.summary()
    held = sum(storage.size(storage.join(distilled, n)) for n in artifact.checksums(distilled))
    size = {
        "rows": artifact.describe(distilled).rows,
        "historical_rows": blocks.historical_rows,
        "bytes": held,
        "historical_bytes": sum(f.bytes for b in blocks.historical for f in b.fragments),
        "judging_bytes": storage.size(distilled) - held,  # validation rows, and the manifest
    }
    storage.write_json(
        config.place("summary.json"),
        {
            "distilled": distilled,
            "size": size,
            "check": as_json(checked.lines),
            "verdict": checked.verdict,
            "seconds_of_last_run": {title: round(seconds, 1) for title, seconds in phases},
            "configuration": config.model_dump(mode="json", exclude={"output"}),
        },
    )
    say = progress.logger.info
    table = render(checked, recipe_name(config))
    say("Test block, mean over tasks (AUC ± 95%% interval over seeds):\n%s", table)
    for title, seconds in phases:
        if seconds >= 1:
            say("  %-60s %s", title, progress.duration(seconds))
    say(
        "Distilled set: %s: %s rows (%.2f%% of %s), %s (%.1f%% of the blocks' %s); to judge: %s",
        distilled,
        f"{size['rows']:,}",
        100 * size["rows"] / size["historical_rows"],
        f"{size['historical_rows']:,}",
        progress.byte_size(size["bytes"]),
        100 * size["bytes"] / size["historical_bytes"],
        progress.byte_size(size["historical_bytes"]),
        progress.byte_size(size["judging_bytes"]),
    )
