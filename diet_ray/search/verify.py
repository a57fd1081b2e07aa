"""How far to trust a leaderboard: some of its candidates are also trained on full data.

Protocol: candidates spread evenly over the leaderboard, the best and the last among them, are
trained on all blocks from scratch by `evaluation.full_protocol`, with a table as wide and at the
rate that the space gave them, `evaluation.seeds` times each, and judged on the test block. These
are cells of `evaluation`: those that are there are not trained again. What is judged is the
leaderboard's order (a stopped candidate's place, not its score) against full data's mean over
seeds. A correlation over few candidates says next to nothing: below FEWEST_SETTINGS of them there
is none, only pairs. Pairs count if full data itself tells them apart, which needs FEWEST_SEEDS.

Trials have seeds of their own (`trial.FIRST_SEED`): no luck of an initialisation is on both sides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch

from diet_ray import progress, storage
from diet_ray.config import RunConfig
from diet_ray.evaluation.agreement import FEWEST_SETTINGS, Agreement, agreement, intervals
from diet_ray.evaluation.benchmark import RESAMPLES, users_of
from diet_ray.evaluation.cells import Cell, CellResult, read_cell, read_logits
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.pairs import PairsRight, pairs_right, significant_pairs
from diet_ray.evaluation.ranking import regret
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.statistics import Interval, resampled_aucs
from diet_ray.logs.blocks import iterate_batches, read_block
from diet_ray.models.candidate import Candidate
from diet_ray.search.leaderboard import Line, in_words
from diet_ray.search.run import open_run
from diet_ray.training.cotrain import fresh_candidate
from diet_ray.training.model import predict, train_epoch

FORMAT = 1
FEWEST_SEEDS = 3
"""Of two the spread is hardly known, and far too many pairs would count as told apart."""

PROBED_BATCHES = 4
"""Of each candidate, to say how long its training will take; after one that is not counted."""


@dataclass(frozen=True)
class Verified:
    """One candidate on both sides."""

    place: int  # on the leaderboard, from 1
    full_place: int  # among those that are verified, by full data
    line: Line
    full_auc: list[float]  # by seed, on the test block
    full_rows: int  # visited by one full training
    full_seconds: float  # of one, the mean


@dataclass(frozen=True)
class Verification:
    """What full data says of the leaderboard's order."""

    lines: list[Verified]  # in the leaderboard's order
    regret: float  # full data's AUC lost by taking the first of them
    agreement: Agreement | None  # None below FEWEST_SETTINGS candidates
    spearman: Interval | None  # the same; its ends are NaN where every network stands there once
    pairs: PairsRight | None  # None below FEWEST_SEEDS seeds

    @property
    def sentence(self) -> str:
        """How far to trust the order."""
        costs = f"taking the sweep's first costs {self.regret:.4f} of full data's AUC"
        return f"{_correlation(self)}; {_pairs(self.pairs)}; {costs}."


def verify(config: RunConfig, lines: Sequence[Line]) -> Verification:
    """Train `search.verify` of a leaderboard's candidates on full data; publish and print what
    comes out: ``search/verify.json``. Raises ConfigError without the run's blocks."""
    run = open_run(config, "search.verify")
    chosen = spread(lines, config.search.verify)
    cells = [full_cells(run, lines[number].candidate) for number in chosen]
    announce(cells)
    flat = run_grid([cell for own in cells for cell in own], "Full trainings, to verify the order")
    seeds = config.evaluation.seeds
    results = [flat[start : start + seeds] for start in range(0, len(flat), seeds)]
    found = judge(run, [(number + 1, lines[number]) for number in chosen], cells, results)
    storage.write_json(config.place("search", "verify.json"), as_json(config, found))
    progress.logger.info("The sweep's order beside full data's:\n%s", render(found))
    return found


def spread(lines: Sequence[Line], count: int) -> list[int]:
    """Numbers (from 0) of `count` lines, evenly over those that did not fail, with the first and
    the last of them; all if there are fewer."""
    judged = sum(line.error is None for line in lines)
    return sorted(set(np.linspace(0, judged - 1, min(count, judged)).round().astype(int).tolist()))


def full_cells(run: Run, candidate: Candidate) -> list[Cell]:
    """A candidate's trainings on full data, one for each seed."""
    config = run.config
    own = replace(run, config=config.model_copy(update={"models": candidate.models(config.models)}))
    protocol = config.evaluation.protocol_of("full")
    if candidate.learning_rate is not None:
        protocol = protocol.changed({"learning_rate": candidate.learning_rate})
    seeds = range(config.evaluation.seeds)
    return [Cell(own, "full", "", candidate.network, protocol, seed) for seed in seeds]


def announce(cells: Sequence[Sequence[Cell]]) -> None:
    """Say how many trainings are missing, and about how long they take; cells: by candidate."""
    total = sum(map(len, cells))
    missing = [[cell for cell in own if read_cell(cell) is None] for own in cells]
    missing = [own for own in missing if own]
    if not missing:
        progress.logger.info("Verification: all %d full trainings are there already", total)
        return
    config = cells[0][0].run.config
    task = ray.remote(probe).options(num_cpus=config.threads, max_retries=3)
    each = ray.get(task.remote([own[0] for own in missing]))
    together = sum(seconds * len(own) for seconds, own in zip(each, missing, strict=True))
    abreast = config.resources.evaluation_tasks
    progress.logger.info(
        "Verification: %d full trainings of %s rows each, of which %d are there already; the "
        "others will take about %s, %d side by side",
        total,
        f"{cells[0][0].trained_rows:,}",
        total - sum(map(len, missing)),
        progress.duration(together / abreast),
        abreast,
    )


def probe(cells: Sequence[Cell]) -> list[float]:
    """Seconds that each of these would take to train and judge, from a few batches of rows."""
    found = []
    for cell in cells:
        config, blocks = cell.run.config, cell.run.blocks
        torch.set_num_threads(config.threads)
        newest = blocks.block("subsequent")
        sizes, tasks, rate = newest.vocabulary_sizes, len(blocks.tasks), cell.protocol.learning_rate
        model = fresh_candidate(cell.candidate, config.models, sizes, tasks, config.seed, cell.seed)
        batches = list(
            islice(iterate_batches(blocks, newest, cell.protocol.batch_size), 1 + PROBED_BATCHES)
        )
        train_epoch(model, batches[:1], rate)
        started = time.monotonic()
        train_epoch(model, batches, rate)
        trained = time.monotonic()
        predict(model, np.concatenate([batch.ids for batch in batches]))
        predicted = time.monotonic()
        judged = sum(blocks.block(name).rows for name in ("validation", "test"))
        whole = (trained - started) * cell.trained_rows + (predicted - trained) * judged
        found.append(whole / sum(map(len, batches)))
    return found


def judge(
    run: Run,
    chosen: Sequence[tuple[int, Line]],
    cells: Sequence[Sequence[Cell]],
    results: Sequence[Sequence[CellResult]],
) -> Verification:
    """chosen: place and line of every candidate, best first; its cells and results by seed."""
    truth = np.array([[result.test["auc"] for result in own] for own in results]).T
    order = -np.arange(len(chosen), dtype=np.float64)[None]
    families = np.array([line.network for _, line in chosen])
    full_places = np.argsort(np.argsort(-truth.mean(axis=0), kind="stable")) + 1
    lines = [
        Verified(
            place=place,
            full_place=int(full_place),
            line=line,
            full_auc=[result.test["auc"] for result in own],
            full_rows=mine[0].trained_rows,
            full_seconds=mean(result.seconds for result in own),
        )
        for (place, line), full_place, mine, own in zip(
            chosen, full_places, cells, results, strict=True
        )
    ]
    whole, bounds = None, None
    if len(chosen) >= FEWEST_SETTINGS:
        whole = agreement(truth, order)
        bounds = intervals(truth, order, families, run.config.seed)["spearman"]
    pairs = None
    if len(truth) >= FEWEST_SEEDS:
        found = significant_pairs(truth, _resampled(run, cells), run.config.seed)
        pairs = pairs_right(found, order, families)
    lost = float(regret(order[0], truth.mean(axis=0)))
    return Verification(lines, lost, whole, bounds, pairs)


def _resampled(run: Run, cells: Sequence[Sequence[Cell]]) -> np.ndarray:
    """Test AUC on resamples of the users: float64 (S seeds, n candidates, R)."""
    test = read_block(run.blocks, run.blocks.block("test"))
    logits: dict[Hashable, np.ndarray] = {
        cell.key: read_logits(cell) for own in cells for cell in own
    }
    users = users_of(run.config, run.blocks, test)
    with progress.phase(
        "Pairs that full data tells apart, on resamples of the test rows", long=True
    ):
        aucs = resampled_aucs(logits, logits, test.labels, RESAMPLES, run.config.seed, users)
    return np.array([[aucs[cell.key] for cell in own] for own in cells]).swapaxes(0, 1)


def _correlation(found: Verification) -> str:
    count, whole, bounds = len(found.lines), found.agreement, found.spearman
    if whole is None or bounds is None:
        return f"{count} candidates are too few for a correlation ({FEWEST_SETTINGS} at least)"
    told = f"Spearman's correlation with full data over {count} candidates is {whole.spearman:.2f}"
    if math.isnan(bounds.low):
        return told
    chance = "clear of chance" if bounds.low > 0 else "which may be chance"
    return f"{told} [{bounds.low:.2f}, {bounds.high:.2f}], {chance}"


def _pairs(pairs: PairsRight | None) -> str:
    if pairs is None:
        return f"fewer than {FEWEST_SEEDS} seeds (evaluation.seeds) tell no pair of them apart"
    if not pairs.pairs:
        return "full data tells no two of them apart, so there is no order to be right about"
    right = pairs.pairs * pairs.pairs_right
    return f"of {pairs.pairs} pairs that full data tells apart the sweep has {right:g} right"


def as_json(config: RunConfig, found: Verification) -> dict[str, Any]:
    """What ``verify.json`` holds; null for what is undefined."""
    return _defined(
        {
            "format": FORMAT,
            "judged_on": "test",
            "seeds": config.evaluation.seeds,
            "protocol": config.evaluation.protocol_of("full").model_dump(
                include={"batch_size", "learning_rate"}
            ),
            "sentence": found.sentence,
            **asdict(found),
        }
    )


def _defined(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _defined(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def render(found: Verification) -> str:
    """Both orders side by side with their costs, and the sentence."""
    lines = [verified.line for verified in found.lines]
    told = [f"{line.network} {in_words(line, lines)}" for line in lines]
    width = max(len(words) for words in ["candidate", *told])
    head = (
        f"{'place':>5} {'sweep':>5} {'full':>4} {'candidate':<{width}} {'score':>8} {'spread':>7} "
        f"{'full AUC':>8} {'spread':>7} {'cost':>6} {'seconds':>8} {'full s':>8}"
    )
    rows = [head, "-" * len(head)]
    for number, (verified, words) in enumerate(zip(found.lines, told, strict=True), start=1):
        line, aucs = verified.line, verified.full_auc
        cost = "" if line.cost is None else f"{100 * line.cost:.3g}%"
        rows.append(
            f"{verified.place:>5} {number:>5} {verified.full_place:>4} {words:<{width}} "
            f"{line.score:>8.4f} {_spread(line.score_deviation):>7} "
            f"{mean(aucs):>8.4f} {_spread(deviation(aucs)):>7} {cost:>6} {line.seconds:>8.1f} "
            f"{verified.full_seconds:>8.1f}"
        )
    return "\n".join([*rows, found.sentence])


def points(found: Verification) -> pd.DataFrame:
    """A row per candidate: place, network, score, score_deviation, full_auc, full_deviation; NaN
    for a deviation over one seed."""
    rows = [
        {
            "place": verified.place,
            "network": verified.line.network,
            "score": verified.line.score,
            "score_deviation": verified.line.score_deviation,
            "full_auc": mean(verified.full_auc),
            "full_deviation": deviation(verified.full_auc),
        }
        for verified in found.lines
    ]
    return pd.DataFrame(rows).astype({"score_deviation": float, "full_deviation": float})


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation; None with one value."""
    return stdev(values) if len(values) > 1 else None


def _spread(value: float | None) -> str:
    return "" if value is None else f"±{value:.4f}"
