"""The leaderboard: a sweep's candidates, best first, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from diet_ray import storage
from diet_ray.config import NetworkConfig, RunConfig, Score
from diet_ray.memory import artifact
from diet_ray.search.trial import Outcome

FORMAT = 2


@dataclass(frozen=True)
class Line:
    """One candidate. Metrics are means over its seeds, None for a failed trial."""

    network: str
    parameters: dict[str, Any]
    dense_parameters: int | None
    score: float | None  # what the order is by, higher is better
    score_deviation: float | None  # standard deviation over seeds; None with one seed
    validation_auc: float | None
    validation_logloss: float | None
    taught_auc: float | None  # against the reference's soft labels; None after a warm-up
    epochs: float | None  # that a warm-up kept; the mean over seeds
    seconds: float
    error: str | None = None


def leaderboard(results: Sequence[tuple[NetworkConfig, Outcome]], score: Score) -> list[Line]:
    """Lines by the score, the higher first; equal ones by LogLoss; failed trials last."""
    return sorted((_line(network, outcome, score) for network, outcome in results), key=_rank)


def _line(network: NetworkConfig, outcome: Outcome, score: Score) -> Line:
    failed = outcome.error is not None
    scores = outcome.scores(score)
    taught = outcome.taught_auc
    return Line(
        network=network.name,
        parameters=network.parameters,
        dense_parameters=outcome.dense_parameters,
        score=None if failed else mean(scores),
        score_deviation=stdev(scores) if len(scores) > 1 else None,
        validation_auc=None if failed else mean(m.auc for m in outcome.judged),
        validation_logloss=None if failed else mean(m.logloss for m in outcome.judged),
        taught_auc=mean(taught) if taught else None,
        epochs=None if failed or taught else mean(outcome.kept),
        seconds=outcome.seconds,
        error=outcome.error,
    )


def _rank(line: Line) -> tuple[bool, float, float]:
    if line.score is None or line.validation_logloss is None:
        return True, 0.0, 0.0
    return False, -line.score, line.validation_logloss


def publish(config: RunConfig, distilled: str, lines: Sequence[Line]) -> str:
    """Write ``search/leaderboard.json``, with what it was made from; returns its URI."""
    found = artifact.describe(distilled)
    content = {
        "format": FORMAT,
        "judged_on": "validation",
        "score": score_of(config),
        "seed": config.seed,
        "search": config.search.model_dump(mode="json"),
        "protocol": protocol_of(config),
        "distilled": {
            "stage": found.stage,
            "rows": found.rows,
            "reference": found.reference,
            "sha256": artifact.checksums(distilled),
        },
        "lines": [asdict(line) for line in lines],
    }
    uri = config.place("search", "leaderboard.json")
    storage.write_json(uri, content)
    return uri


def score_of(config: RunConfig) -> Score:
    """What the candidates are ranked by."""
    return config.search.score or ("taught" if config.search.use == "cotrain" else "auc")


def protocol_of(config: RunConfig) -> dict[str, Any]:
    """How a trial trains."""
    if config.search.use == "cotrain":
        return config.evaluation.cotrain.model_dump()
    return config.evaluation.protocol.model_dump(exclude={"batch_size", "learning_rate"})


def render(lines: Sequence[Line]) -> str:
    """As text; where a network has several lines, only what differs between them is shown."""
    told = [_in_words(line, lines) for line in lines]
    name_width = max(len(word) for word in ["network", *(line.network for line in lines)])
    width = max(len(word) for word in ["hyper-parameters", *told])
    head = (
        f"{'':>3} {'network':<{name_width}} {'hyper-parameters':<{width}} "
        f"{'size':>10} {'score':>8} {'seeds':>7} {'AUC':>7} {'LogLoss':>8} {'epoch':>6} "
        f"{'seconds':>8}"
    )
    rows = [head, "-" * len(head)]
    for place, (line, parameters) in enumerate(zip(lines, told, strict=True), start=1):
        start = f"{place:>3} {line.network:<{name_width}} {parameters:<{width}} "
        if line.error is not None:
            rows.append(f"{start}failed: {line.error}")
            continue
        deviation = line.score_deviation
        spread = "" if deviation is None else f"±{deviation:.4f}"
        epoch = "" if line.epochs is None else f"{line.epochs:g}"
        rows.append(
            f"{start}{line.dense_parameters:>10,} {line.score:>8.4f} {spread:>7} "
            f"{line.validation_auc:>7.4f} {line.validation_logloss:>8.4f} {epoch:>6} "
            f"{line.seconds:>8.1f}"
        )
    return "\n".join(rows)


def _in_words(line: Line, lines: Sequence[Line]) -> str:
    """`num_cross_layers=2 dnn_hidden_units=128,64`."""
    rivals = [other.parameters for other in lines if other.network == line.network]
    words = []
    for name, value in line.parameters.items():
        if len(rivals) == 1 or any(parameters[name] != value for parameters in rivals):
            shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words.append(f"{name}={shown}")
    return " ".join(words) or "-"
