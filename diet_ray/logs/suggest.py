"""A first configuration for a table that nobody has described yet, for people to correct.

Protocol: a bounded sample of the table is taken (`sample.py`), its columns are judged (`roles.py`),
the time is cut into blocks, and all of it is written as YAML in which each decision has a comment.
The text loads with `load_config`, and a clean table prepares with it as it stands.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.compute as pc
import yaml

from diet_ray.logs.roles import Roles, Time, find_roles
from diet_ray.logs.sample import Sample, extremes, take_sample
from diet_ray.logs.sources.source import LogsError
from diet_ray.logs.sources.values import as_time_ms

TIMEZONE = "UTC"
NAMES = ("historical", "historical", "historical", "subsequent", "validation", "test")
SHARES = (0.7 / 3, 0.7 / 3, 0.7 / 3, 0.2, 0.05, 0.05)  # of the rows, block by block
FULL_ENOUGH = 0.5  # of its share: a boundary may move so far for a round time
ROUND_MS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}
MOST_TASKS = 3
PRECISION = {"minutes": 60_000, "seconds": 1_000}  # to which a clock time is written
PLAIN = re.compile(r"[A-Za-z0-9_./][\w./=*-]*( (>=|==) [\w.]+)?", re.ASCII)
FEWEST_ONES = 20  # and zeros, in the test block: fewer tell no AUC


@dataclass(frozen=True)
class Cut:
    """A block's interval [start, end) in milliseconds, and its share of the sample's rows."""

    start: int
    end: int
    share: float


def suggest(path: str) -> str:
    """A configuration of the table at `path`, as YAML.

    Raises LogsError if there is no table, or none with a time, a label and a field.
    """
    sample = take_sample(path)
    roles = find_roles(sample.rows, sample.whole, TIMEZONE)
    if roles.time is None:
        raise _missing(sample, "a time: Unix seconds (ms, us, ns), or a text such as 2024-01-31")
    if not roles.tasks:
        raise _missing(
            sample, "a label: 0 and 1, a rating, or a text such as action with a few values"
        )
    if not roles.fields:
        raise _missing(sample, "a feature: users, items, or what is known of them")
    bounds = as_time_ms(extremes(sample, roles.time.name), roles.time.unit, TIMEZONE)
    first, last = pc.min_max(bounds).as_py().values()
    times = np.sort(roles.time.ms.drop_null().to_numpy())
    cuts = cut(times, first, last)
    span = f"{_clock(first)} to {_clock(last)}"
    return "\n".join(_lines(sample, roles, roles.time, span, cuts)) + "\n"


def _missing(sample: Sample, what: str) -> LogsError:
    names = ", ".join(sample.rows.column_names)
    return LogsError(
        f"{sample.path}: no column looks like {what} (columns: {names}). Is it a log, with a row "
        "per interaction, and not a table of users or items? Else rename the column, or write the "
        "configuration by hand after configs/movielens_100k.yaml"
    )


def cut(times: np.ndarray, first: int, last: int) -> list[Cut]:
    """The time from `first` to `last` (ms) in six blocks, at the roundest times that do.

    times: (n,) int64 ascending, some of the log's. Every block holds some of them. Raises LogsError
    if there are fewer different times than blocks.
    """
    wanted = np.quantile(times, np.cumsum(SHARES)[:-1], method="nearest")
    for step in ROUND_MS.values():
        inner = np.round(wanted / step).astype(np.int64) * step
        edges = [first // step * step, *inner.tolist(), last // step * step + step]
        if all(a < b for a, b in itertools.pairwise(edges)):
            cuts = _between(times, edges)
            if all(c.share >= FULL_ENOUGH * s for c, s in zip(cuts, SHARES, strict=True)):
                return cuts
    return _between(times, _edges_between_values(times, wanted, first, last))


def _edges_between_values(
    times: np.ndarray, wanted: np.ndarray, first: int, last: int
) -> list[int]:
    """Edges near the wanted ones that leave no block empty, however the times are heaped."""
    values = np.unique(times)
    if len(values) < len(SHARES):
        raise LogsError(
            f"the log has {len(values)} different times, too few for {len(SHARES)} blocks in time "
            "order; is the time column the right one?"
        )
    edges, at = [first], 0
    for number, time in enumerate(wanted):
        latest = len(values) - len(wanted) + number
        at = int(np.clip(np.searchsorted(values, time), at + 1, latest))
        edges.append(int(values[at]))
    return [*edges, last + 1]


def _between(times: np.ndarray, edges: Sequence[int]) -> list[Cut]:
    places = np.searchsorted(times, edges)
    return [
        Cut(a, b, float(j - i) / len(times))
        for (a, b), (i, j) in zip(
            itertools.pairwise(edges), itertools.pairwise(places), strict=True
        )
    ]


def _interval(one: Cut) -> str:
    """As a configuration writes it."""
    if one.start % ROUND_MS["day"] == 0 and one.end % ROUND_MS["day"] == 0:
        first, last = _moment(one.start).date(), (_moment(one.end) - timedelta(days=1)).date()
        return str(first) if first == last else f"{first}..{last}"
    return f"{_clock(one.start)}..{_clock(one.end)}"


def _moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _clock(ms: int) -> str:
    precision = next((unit for unit, step in PRECISION.items() if ms % step == 0), "milliseconds")
    return _moment(ms).replace(tzinfo=None).isoformat(timespec=precision)


def chosen_tasks(roles: Roles, rows: int) -> list[str]:
    """The few tasks, in the table's order, whose labels are the most even; at least one.

    rows: of the whole table. A task too rare to be measured on the test block is not among them
    unless it is the only one.
    """
    evenness = {task: min(rate, 1 - rate) for task, rate in roles.rates.items()}
    best = sorted(evenness, key=lambda task: -evenness[task])[:MOST_TASKS]
    enough = [task for task in best if evenness[task] * SHARES[-1] * rows >= FEWEST_ONES]
    return [task for task in roles.tasks if task in (enough or best[:1])]


def _lines(
    sample: Sample, roles: Roles, time: Time, span: str, cuts: Sequence[Cut]
) -> Iterator[str]:
    name = re.sub(r"\W+", "_", re.sub(r"(\.\w+)+$|/+$", "", sample.path).rpartition("/")[2])
    name = name.strip("_") or "log"
    yield f"# A first guess, from {_seen(sample)}."
    yield "# Correct what is wrong, above all fields that are feedback on the interaction; then"
    yield "#   python jobs/prepare.py --config THIS_FILE"
    yield f"name: {quoted(name)}"
    yield f"output: {quoted(f'results/{name}')}"
    yield ""
    yield "logs:"
    yield "  source: table"
    yield f"  path: {quoted(sample.path)}"
    yield "  table:"
    yield f"    format: {sample.format}"
    if sample.format == "csv":
        yield f"    delimiter: {quoted(sample.delimiter)}"
    yield f"    time_column: {quoted(time.name)}  # {span}"
    yield f"    time_unit: {quoted(time.unit)}"
    yield from _field_lines(roles)
    yield from _task_lines(roles, chosen_tasks(roles, sample.total))
    yield f"  timezone: {TIMEZONE}  # of the intervals, and of times that name no zone"
    yield from _interval_lines(cuts)


def _seen(sample: Sample) -> str:
    files = f"{len(sample.files)} file" + "s" * (len(sample.files) > 1)
    if sample.whole:
        return f"all {sample.total:,} rows of {files}"
    return f"{sample.rows.num_rows:,} of about {sample.total:,} rows of {files}"


def _field_lines(roles: Roles) -> Iterator[str]:
    yield "    fields:"
    for field, told in roles.fields.items():
        yield f"      - {quoted(field)}  # {told}"
    if roles.left_out:
        yield "      # Left out:"
    for column, reason in roles.left_out.items():
        yield f"      #   {quoted(column)}: {reason}"


def _task_lines(roles: Roles, chosen: Sequence[str]) -> Iterator[str]:
    yield "    tasks:"
    entries = {
        task: f"{quoted(task)}: {quoted(expression)}  # {roles.rates[task]:.2%} ones"
        for task, expression in roles.tasks.items()
    }
    for task in chosen:
        yield f"      {entries[task]}"
    others = [entry for task, entry in entries.items() if task not in chosen]
    if others:
        yield f"      # Rarer, or more than {MOST_TASKS}:"
    for entry in others:
        yield f"      # {entry}"
    if roles.feedback:
        told = ", ".join(quoted(column) for column in roles.feedback)
        yield f"    feedback: [{told}]  # never fields"


def _interval_lines(cuts: Sequence[Cut]) -> Iterator[str]:
    yield "  intervals:  # a last day is meant whole, a last clock time is not included"
    for name, blocks in itertools.groupby(zip(NAMES, cuts, strict=True), key=lambda pair: pair[0]):
        told = [f"{_interval(one)}  # {one.share:.0%} of the rows" for _, one in blocks]
        if name == "historical":
            yield "    historical:"
            yield from (f"      - {entry}" for entry in told)
        else:
            yield f"    {name}: {told[0]}"


def quoted(text: str) -> str:
    """A text as YAML that is read as this text, on one line, also within a list or a comment."""
    if PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'
