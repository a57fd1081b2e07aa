"""The leaderboard: a sweep's candidates, best first, as text, as JSON and as Parquet.

Those that were judged by all seeds come first, by their score. Then come those that the sweep
stopped after fewer seeds, also by their score: it is less sure, and low, since it was the reason
to stop, so it stands below no score that was seen through. Failed trials are last.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from diet_ray import storage
from diet_ray.config import NetworkConfig, RunConfig, Score
from diet_ray.memory import artifact
from diet_ray.models.candidate import Candidate
from diet_ray.search.kept import protocol_of
from diet_ray.search.places import like_places
from diet_ray.search.trial import Outcome

FORMAT = 3

LINE_WIDTH = 150  # characters in a terminal; longer hyper-parameters go on below
NARROWEST = 24  # of the hyper-parameters' column, however long the networks' names are


@dataclass(frozen=True)
class Line:
    """One candidate. Metrics are means over its seeds, None for a failed trial."""

    network: str
    parameters: dict[str, Any]
    embedding_dim: int | None  # of its table, where the space names widths
    learning_rate: float | None  # where the space names rates
    dense_parameters: int | None
    flop: float | None  # of a row's way forward through the dense network
    score: float | None  # what the order is by, higher is better
    score_deviation: float | None  # standard deviation over seeds; None with one seed
    seeds: int  # that judge it
    stopped: bool  # judged by fewer seeds than others
    places: tuple[int, int] | None  # from which it is not distinguishable (`places.py`)
    validation_auc: float | None
    validation_logloss: float | None
    taught_auc: float | None  # against the reference's soft labels; None after a warm-up
    epochs: float | None  # that a warm-up kept; the mean over seeds
    trained_rows: int  # visited by all of its seeds
    cost: float | None  # those, over the rows of one full training
    seconds: float
    error: str | None = None
    diverged: int = 0  # of its seeds

    @property
    def candidate(self) -> Candidate:
        """What stands on this line."""
        network = NetworkConfig(name=self.network, parameters=self.parameters)
        return Candidate(network, self.embedding_dim, self.learning_rate)

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The network's, and the table's and the training's where the space names them."""
        own = {"embedding_dim": self.embedding_dim, "learning_rate": self.learning_rate}
        return self.parameters | {name: value for name, value in own.items() if value is not None}


def leaderboard(
    results: Sequence[tuple[Candidate, Outcome]], score: Score, full_rows: int | None
) -> list[Line]:
    """Lines by the score, the higher first; equal ones by LogLoss; the stopped, then the failed
    last.

    full_rows: that one full training visits, for the cost (`artifact.full_rows`).
    """
    most = max((len(outcome.scores(score)) for _, outcome in results), default=0)
    made = [
        (_line(candidate, outcome, score, full_rows), outcome.scores(score))
        for candidate, outcome in results
    ]
    made.sort(key=lambda one: _rank(one[0]))
    ranges = _ranges([scores for line, scores in made if line.error is None], most)
    places = [*ranges, *[None] * (len(made) - len(ranges))]
    return [replace(line, places=own) for (line, _), own in zip(made, places, strict=True)]


def _line(candidate: Candidate, outcome: Outcome, score: Score, full_rows: int | None) -> Line:
    failed = outcome.error is not None
    scores = outcome.scores(score)
    taught = outcome.taught_auc
    rows = outcome.trained_rows
    return Line(
        network=candidate.network.name,
        parameters=candidate.network.parameters,
        embedding_dim=candidate.embedding_dim,
        learning_rate=candidate.learning_rate,
        dense_parameters=outcome.dense_parameters,
        flop=outcome.flop,
        score=None if failed else mean(scores),
        score_deviation=stdev(scores) if len(scores) > 1 else None,
        seeds=len(scores),
        stopped=outcome.stopped,
        places=None,
        validation_auc=None if failed else mean(m.auc for m in outcome.judged),
        validation_logloss=None if failed else mean(m.logloss for m in outcome.judged),
        taught_auc=mean(taught) if taught else None,
        epochs=None if failed or taught else mean(outcome.kept),
        trained_rows=rows,
        cost=rows / full_rows if rows and full_rows else None,
        seconds=outcome.seconds,
        error=outcome.error,
        diverged=sum(metrics.diverged for metrics in outcome.judged),
    )


def _rank(line: Line) -> tuple[bool, bool, float, float]:
    if line.score is None or line.validation_logloss is None:
        return True, False, 0.0, 0.0
    return False, line.stopped, -line.score, line.validation_logloss


def _ranges(scores: Sequence[Sequence[float]], most: int) -> Sequence[tuple[int, int] | None]:
    """By place; scores: of every place's candidate by seed, the first ones of `most`."""
    if not scores:
        return []
    table = np.full((len(scores), most), np.nan)
    for place, own in enumerate(scores):
        table[place, : len(own)] = own
    return like_places(table) or [None] * len(scores)


def publish(config: RunConfig, distilled: str, lines: Sequence[Line]) -> str:
    """Write ``search/leaderboard.json``, with what it was made from, and the lines alone as
    ``leaderboard.parquet``; returns the URI of the first."""
    found = artifact.describe(distilled)
    content = {
        "format": FORMAT,
        "judged_on": "validation",
        "score": config.search.ranked_by,
        "seed": config.seed,
        "search": config.search.model_dump(mode="json"),
        "protocol": protocol_of(config),
        "distilled": {
            "stage": found.stage,
            "rows": found.rows,
            "full_rows": artifact.full_rows(distilled),
            "reference": found.reference,
            "sha256": artifact.checksums(distilled),
        },
        "lines": [asdict(line) for line in lines],
    }
    storage.write_parquet(config.place("search", "leaderboard.parquet"), as_table(lines))
    uri = config.place("search", "leaderboard.json")
    storage.write_json(uri, content)
    return uri


_SCHEMA = pa.schema(
    {
        "place": pa.int64(),  # from 1; null for a failed trial
        "first_like_place": pa.int64(),
        "last_like_place": pa.int64(),
        "network": pa.string(),
        "parameters": pa.string(),  # JSON
        "embedding_dim": pa.int64(),
        "learning_rate": pa.float64(),
        "dense_parameters": pa.int64(),
        "flop": pa.float64(),
        "score": pa.float64(),
        "score_deviation": pa.float64(),
        "seeds": pa.int64(),
        "diverged": pa.int64(),
        "stopped": pa.bool_(),
        "validation_auc": pa.float64(),
        "validation_logloss": pa.float64(),
        "taught_auc": pa.float64(),
        "epochs": pa.float64(),
        "trained_rows": pa.int64(),
        "cost": pa.float64(),
        "seconds": pa.float64(),
        "error": pa.string(),
    }
)


def as_table(lines: Sequence[Line]) -> pa.Table:
    """The lines with flat columns."""
    rows = []
    for place, line in enumerate(lines, start=1):
        first, last = line.places or (None, None)
        flat = {
            "place": place if line.error is None else None,
            "first_like_place": first,
            "last_like_place": last,
            "parameters": json.dumps(line.parameters, sort_keys=True),
        }
        rows.append(asdict(line) | flat)
    return pa.Table.from_pylist(rows, _SCHEMA)


def as_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """The same table in pandas, as `leaderboard.parquet` holds it."""
    whole: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype()}
    return as_table(lines).to_pandas(types_mapper=whole.get)


def render_html(lines: Sequence[Line]) -> str:
    """As `render`, as an HTML table."""
    rows = []
    for place, line in enumerate(lines, start=1):
        begun = {"place": place, "like": _like(line), "network": line.network}
        told = {"failed": line.error} if line.error else _numbers(line)
        rows.append(begun | {"hyper-parameters": in_words(line, lines)} | told)
    table = pd.DataFrame(rows).to_html(index=False, na_rep="")
    return table + "".join(f"<p>{escape(note)}</p>" for note in _notes(lines))


def render(lines: Sequence[Line]) -> str:
    """As text; where a network has several lines, only what differs between them is shown."""
    told = [in_words(line, lines) for line in lines]
    name_width = max(len(word) for word in ["network", *(line.network for line in lines)])
    numbers = " ".join(f"{name:>{width}}" for name, width in _WIDTHS.items())
    start = f"{'':>3} {'like':>7} {'network':<{name_width}} "
    room = max(LINE_WIDTH - len(start) - len(numbers) - 1, NARROWEST)
    width = min(max(len(word) for word in ["hyper-parameters", *told]), room)
    head = f"{start}{'hyper-parameters':<{width}} {numbers}"
    rows = [head, "-" * len(head)]
    for place, (line, words) in enumerate(zip(lines, told, strict=True), start=1):
        first, *others = textwrap.wrap(words, width, break_on_hyphens=False)
        begun = f"{place:>3} {_like(line):>7} {line.network:<{name_width}} {first:<{width}} "
        numbers = " ".join(f"{text:>{_WIDTHS[name]}}" for name, text in _numbers(line).items())
        rows.append(begun + (f"failed: {line.error}" if line.error else numbers))
        rows += [" " * len(start) + words for words in others]
    return "\n".join([*rows, *_notes(lines)])


_WIDTHS = {
    "size": 6,
    "FLOP/row": 8,
    "score": 8,
    "spread": 7,
    "AUC": 7,
    "LogLoss": 8,
    "seeds": 5,
    "cost": 6,
    "seconds": 8,
}


def _numbers(line: Line) -> dict[str, str]:
    """By column, of one that did not fail."""
    return {
        "size": _short(line.dense_parameters),
        "FLOP/row": _short(line.flop),
        "score": _four_digits(line.score),
        "spread": "" if line.score_deviation is None else f"±{line.score_deviation:.4f}",
        "AUC": _four_digits(line.validation_auc),
        "LogLoss": _four_digits(line.validation_logloss),
        "seeds": f"{line.seeds}{'*' if line.stopped else ''}{'!' if line.diverged else ''}",
        "cost": "" if line.cost is None else f"{100 * line.cost:.3g}%",
        "seconds": f"{line.seconds:.1f}",
    }


def _four_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _like(line: Line) -> str:
    return "{}-{}".format(*line.places) if line.places else ""


def _notes(lines: Sequence[Line]) -> list[str]:
    """What a reader must know of the columns."""
    judged = [line for line in lines if line.error is None]
    notes = []
    if any(line.places for line in judged):
        notes.append(
            "like: places from which noise over the seeds does not tell it (95%; the draw of the "
            "set's rows comes on top)."
        )
    elif judged:
        notes.append("With one seed each nothing tells noise from order: give them more seeds.")
    if any(line.stopped for line in judged):
        notes.append(
            "*: stopped early, so it stands after those that were judged by all seeds; its score "
            "is of the seeds done."
        )
    if any(line.diverged for line in judged):
        notes.append(
            "!: a training of it diverged (a logit that is no number), and counts as a model that "
            "answers one half to every row: AUC .5."
        )
    return notes


def _short(count: float | None) -> str:
    """`12.3k`, `4.56M`; empty for None."""
    if count is None:
        return ""
    for unit in ("", "k", "M", "G"):
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"


def in_words(line: Line, lines: Sequence[Line]) -> str:
    """`num_cross_layers=2 dnn_hidden_units=128,64`: what tells it from its network's others."""
    rivals = [other.hyper_parameters for other in lines if other.network == line.network]
    words = []
    for name, value in line.hyper_parameters.items():
        if len(rivals) == 1 or any(other.get(name) != value for other in rivals):
            shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words.append(f"{name}={shown}")
    return " ".join(words) or "-"
