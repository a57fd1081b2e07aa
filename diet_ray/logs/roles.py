"""What the columns of a table may be: its time, its tasks, its fields; judged by names and values.

A guess for people to correct. It errs towards leaving a column out of the fields, since a field
that is known only after the interaction makes every result worthless.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from diet_ray.logs.encoder import MISSING
from diet_ray.logs.sources.expression import parse_task
from diet_ray.logs.sources.source import RESERVED, LogsError
from diet_ray.logs.sources.values import as_numbers, as_text, as_time_ms

FEW_MISSING = 0.001  # the share of unusable rows at which preparing stops by default
NEARLY_ALL = 0.95  # of the rows with a value of their own
CONTINUOUS = 100  # values of a number with fractions from which on it is a measurement
LONG_TEXT = 30  # characters on average
MANY_WORDS = 4
ROWS_A_VALUE = 20  # from which on a sample tells whether a value comes back
MOST = 0.5
MIXED_EXPECTED = 10  # groups with both labels, from which on it tells something that none is mixed
FEW_MIXED = 0.01
HISTORY = 0.7  # of the rows are early, where early and late ones are compared
RATING_VALUES = 11
GOOD_RATING = 0.8  # of the highest one
MOST_ACTIONS = 20

TIME_NAME = re.compile(r"time|date|(^|_)(ts|dt|day|hour|at|when|created)($|_)", re.IGNORECASE)
COUNTED_TIME = re.compile(r"time|time_?stamp|ts", re.IGNORECASE)
# Times that belong to the user or the item, not to the interaction.
OTHER_TIME = re.compile(
    r"birth|regist|signup|join|releas|publish|upload|updat|expir", re.IGNORECASE
)
FEEDBACK_NAME = re.compile(
    r"dwell|duration|stay|play_?time|play_?duration|watch|read_?time|listen|complet|progress"
    r"|revenue|gmv|elapsed|(^|_)(ctr|cvr)($|_)|time_(ms|s|sec|seconds)$",
    re.IGNORECASE,
)
RATING_NAME = re.compile(r"rating|(^|_)(rate|stars?|score|overall)($|_)", re.IGNORECASE)
ACTION_NAME = re.compile(r"action|behaviou?r|event|interaction|feedback", re.IGNORECASE)
ENTITY_NAME = re.compile(
    r"(^|_)(id|uid|iid|user|item|video|movie|book|song|track|article|news|product|sku|ad|author"
    r"|customer|member|session|query|shop|seller|brand)($|_|id)|[a-z](Id|ID)$|id$"
)
TRUE_WORDS = ({"true", "false"}, {"t", "f"}, {"yes", "no"}, {"y", "n"})
FIRST_MS, LAST_MS = 631_152_000_000, 4_102_444_800_000  # 1990 to 2100
FAR_MS = 60_000_000_000_000  # from 1970, some 1900 years: no calendar of ours goes further
MS_PER_UNIT = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
NUMBER_PATTERNS = {8: ["%Y%m%d", "%y%m%d%H"], 12: ["%Y%m%d%H%M"], 14: ["%Y%m%d%H%M%S"]}  # by digits
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
TEXT_PATTERNS = [
    *("%Y-%m-%d", "%Y/%m/%d"),
    *(
        f"%Y{mark}%m{mark}%d{between}{clock}{zone}"
        for mark in "-/"
        for between in " T"
        for clock in CLOCKS
        for zone in ("", "%z", " %z", " UTC")
    ),
]
PATTERN_ROWS = 1_000  # on which a pattern is tried before it is on all rows


@dataclass(frozen=True)
class Column:
    """A column of a sample: n rows.

    text: (n,) string, None for a type that cannot be a field. numbers: (n,) float64, None where a
    value that is there is no number. distinct: values that occur, a missing one as another.
    """

    name: str
    raw: pa.ChunkedArray
    text: pa.ChunkedArray | None
    numbers: pa.ChunkedArray | None
    distinct: int

    @property
    def complete(self) -> bool:
        """Whether hardly a value is missing."""
        return self.raw.null_count <= FEW_MISSING * len(self.raw)


@dataclass(frozen=True)
class Time:
    """A column that holds times: (n,) int64 milliseconds, null where it holds none.

    `sure` unless it may as well be a number in the range of times.
    """

    name: str
    unit: str
    ms: pa.ChunkedArray
    sure: bool


@dataclass
class Roles:
    """What the columns are, in the table's order. left_out: other column -> why it is no field."""

    time: Time | None
    fields: dict[str, str] = field(default_factory=dict)  # name -> what is to be said about it
    tasks: dict[str, str] = field(default_factory=dict)  # name -> expression
    rates: dict[str, float] = field(default_factory=dict)  # task -> share of ones
    labels: set[str] = field(default_factory=set)  # columns that tasks are made of
    feedback: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_roles(rows: pa.Table, whole: bool, timezone: str) -> Roles:
    """The roles of the columns of a sample (of a whole table, if `whole`).

    Without a time column, or without tasks or fields, that part of the answer is empty.
    """
    columns = [look_at(name, rows[name]) for name in rows.column_names]
    found = [time for column in columns if (time := time_of(column, timezone))]
    sure = [time for time in found if time.sure]
    time = max(sure or found, key=_likeliness, default=None)
    roles = Roles(time)
    if time is not None:
        roles.left_out = {t.name: "another time" for t in sure}
        roles.left_out[time.name] = "the time of the interaction"
    others = [column for column in columns if column.name not in roles.left_out]
    entities = [c for c in others if c.text is not None and ENTITY_NAME.search(c.name)]
    for column in others:
        _add_tasks(column, entities, rows.column_names, roles)
    for column in others:
        _add_field(column, whole, roles)
    return roles


def _add_tasks(
    column: Column, entities: Sequence[Column], names: Sequence[str], roles: Roles
) -> None:
    """What a column tells of the interaction's outcome."""
    for wanted, expression, rate in tasks_of(column, entities):
        if parses(expression, column.name, names):
            task = _free_name(wanted, column.name, [*names, *roles.tasks])
            roles.tasks[task], roles.rates[task] = expression, rate
            roles.labels.add(column.name)
    if column.name in roles.labels or FEEDBACK_NAME.search(column.name):
        roles.feedback.append(column.name)


def _add_field(column: Column, whole: bool, roles: Roles) -> None:
    """A field, with what is to be said about it, or a column that is left out."""
    if column.name in roles.labels:
        return
    reason = why_no_field(column, whole)
    if reason:
        roles.left_out[column.name] = reason
        return
    roles.fields[column.name] = f"{column.distinct:,} values"
    tells = whole or column.distinct * ROWS_A_VALUE < len(column.raw)
    unseen = unseen_later(column, roles.time) if roles.time and tells else 0.0
    if unseen > MOST:
        told = f"{unseen:.0%} of the later rows hold a value that the earlier ones lack"
        if ENTITY_NAME.search(column.name):
            roles.fields[column.name] += f"; {told}"
        else:
            del roles.fields[column.name]
            roles.left_out[column.name] = told


def look_at(name: str, raw: pa.ChunkedArray) -> Column:
    """What can be said about a column by itself."""
    if kinds.is_dictionary(raw.type):
        raw = raw.cast(raw.type.value_type)
    try:
        text, numbers = as_text(raw), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # such as a list, or bytes
        return Column(name, raw, None, None, 0)
    if not kinds.is_temporal(raw.type):
        found = as_numbers(raw)
        numbers = found if found.null_count == text.null_count < len(text) else None
    return Column(name, raw, text, numbers, pc.count_distinct(text, mode="all").as_py())


def time_of(column: Column, timezone: str) -> Time | None:
    """The times that a column holds in nearly every row, if it does."""
    if column.text is None or not column.complete or column.text.null_count == len(column.text):
        return None
    if kinds.is_timestamp(column.raw.type) or kinds.is_date(column.raw.type):
        unit: str | None = "ms"  # its type says more
    elif column.numbers is not None:
        unit = _number_unit(column, timezone)
    else:
        written = re.match(r"\d{4}[-/]\d", column.text.drop_null()[0].as_py() or "")
        unit = _pattern(column.text, TEXT_PATTERNS, timezone) if written else None
    if unit is None:
        return None
    ms = as_time_ms(column.raw, unit, timezone)
    far = pc.any(pc.greater(pc.abs(ms), FAR_MS)).as_py()
    if far or ms.null_count > column.text.null_count or ms.null_count == len(ms):
        return None
    recent = pc.min(ms).as_py() >= FIRST_MS and TIME_NAME.search(column.name) is not None
    return Time(column.name, unit, ms, sure=column.numbers is None or recent)


def _number_unit(column: Column, timezone: str) -> str | None:
    assert column.text is not None
    low, high = pc.min_max(column.numbers).as_py().values()
    for unit, ms in MS_PER_UNIT.items():
        if low * ms >= FIRST_MS and high * ms <= LAST_MS:
            return unit
    lengths = pc.unique(pc.utf8_length(column.text.drop_null())).to_pylist()
    patterns = NUMBER_PATTERNS.get(lengths[0], []) if len(lengths) == 1 else []
    # Else at best seconds since the log's own beginning.
    counted = "s" if COUNTED_TIME.fullmatch(column.name) and low >= 0 else None
    return _pattern(column.text, patterns, timezone) or counted


def _pattern(text: pa.ChunkedArray, patterns: Sequence[str], timezone: str) -> str | None:
    """The first pattern in which all of the first rows are written."""
    few = text.drop_null().slice(0, PATTERN_ROWS)
    return next((p for p in patterns if not as_time_ms(few, p, timezone).null_count), None)


def _likeliness(time: Time) -> tuple[bool, bool, int]:
    """The more of the interaction, and the finer, the better."""
    named = TIME_NAME.search(time.name) is not None
    return not OTHER_TIME.search(time.name), named, pc.count_distinct(time.ms).as_py()


def tasks_of(column: Column, entities: Sequence[Column]) -> Iterator[tuple[str, str, float]]:
    """Name, expression and share of ones of each task that a column may be."""
    if column.text is None or not column.complete:
        return
    for name, expression, ones in _labels_of(column):
        present = ones.drop_null().to_numpy(zero_copy_only=False)
        rate = float(present.mean()) if len(present) else 0.0
        others = [entity for entity in entities if entity.name != column.name]
        if 0 < rate < 1 and not _belongs_to_one(ones, others):
            yield name, expression, rate


def _labels_of(column: Column) -> Iterator[tuple[str, str, pa.ChunkedArray]]:
    """Name, expression and labels (n,) bool."""
    assert column.text is not None
    text, numbers, name = column.text, column.numbers, column.name
    few = column.distinct <= max(RATING_VALUES, MOST_ACTIONS)
    values = pc.unique(text.drop_null()).to_pylist() if few else []
    words = {value.lower() for value in values}
    if numbers is not None and set(pc.unique(numbers.drop_null()).to_pylist()) == {0.0, 1.0}:
        yield name, name, pc.equal(numbers, 1.0)
    elif len(values) == 2 and words in TRUE_WORDS:
        true = next(value for value in values if value.lower() in ("true", "t", "yes", "y"))
        yield name, f"{name} == {true!r}", pc.equal(text, true)
    elif RATING_NAME.search(name) and numbers is not None and 3 <= len(values) <= RATING_VALUES:
        levels = sorted(pc.unique(numbers.drop_null()).to_pylist())
        good = min((v for v in levels[1:] if v >= GOOD_RATING * levels[-1]), default=levels[1])
        yield "like", f"{name} >= {good:g}", pc.greater_equal(numbers, good)
    elif ACTION_NAME.search(name) and 2 <= len(values) <= MOST_ACTIONS:
        for value in values:
            if numbers is not None:
                number = float(value)
                yield f"{name}_{number:g}", f"{name} == {number:g}", pc.equal(numbers, number)
            else:
                yield value, f"{name} == {value!r}", pc.equal(text, value)


def _belongs_to_one(ones: pa.ChunkedArray, entities: Sequence[Column]) -> bool:
    """Whether rows of one user (item, ..) never differ in it: a feature of hers, no outcome."""
    labels = ones.fill_null(False).to_numpy().astype(float)
    rate = labels.mean()
    for entity in entities:
        assert entity.text is not None
        codes = entity.text.combine_chunks().dictionary_encode(null_encoding="encode").indices
        rows = np.bincount(codes.to_numpy())
        shares = np.bincount(codes.to_numpy(), labels) / rows
        mixed = ((shares > 0) & (shares < 1)).sum()
        expected = (1 - rate**rows - (1 - rate) ** rows).sum()
        if expected >= MIXED_EXPECTED and mixed < FEW_MIXED * expected:
            return True
    return False


def parses(expression: str, column: str, columns: Sequence[str]) -> bool:
    """Whether the expression is understood, and as one about this column."""
    try:
        return parse_task("suggested", expression, columns).column == column
    except LogsError:
        return False


def _free_name(wanted: str, column: str, taken: Sequence[str]) -> str:
    """A task's name; that of its own column is free, since no field has it."""
    name = re.sub(r"[/\\]", "_", wanted).strip() or "label"
    others = {*RESERVED, *(other for other in taken if not other == wanted == column)}
    free = (f"{name}{'_' * bool(n)}{n or ''}" for n in itertools.count())
    return next(candidate for candidate in free if candidate not in others)


def why_no_field(column: Column, whole: bool) -> str | None:
    """The reason for which a column had better be no field, by itself; the first that applies."""
    name = column.name
    if column.text is None:
        return f"type {column.raw.type}: only columns with one value per row can be used"
    own_values = column.distinct > NEARLY_ALL * len(column.raw)
    reasons = {
        "a name that blocks cannot use; rename it first": not usable_name(name),
        "constant": column.distinct <= 1,
        "known only after the interaction, by its name": FEEDBACK_NAME.search(name),
        "feedback, by its name": RATING_NAME.search(name),
        "nearly every row has a value of its own": own_values
        and (whole or not ENTITY_NAME.search(name)),
        "free text": _free_text(column),
        "a measurement; values must come back: put it into bins first": _measured(column),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def usable_name(name: str) -> bool:
    """Whether a block can have a column of this name."""
    return name not in ("", *RESERVED) and "/" not in name and "\\" not in name


def _free_text(column: Column) -> bool:
    if column.numbers is not None or column.distinct <= CONTINUOUS:
        return False
    words = pc.mean(pc.count_substring(column.text, " ")).as_py() + 1
    return words >= MANY_WORDS or pc.mean(pc.utf8_length(column.text)).as_py() > LONG_TEXT


def _measured(column: Column) -> bool:
    if column.numbers is None or column.distinct <= CONTINUOUS:
        return False
    return pc.any(pc.not_equal(column.numbers, pc.floor(column.numbers))).as_py()


def unseen_later(column: Column, time: Time) -> float:
    """The share of the later rows that hold a value which no earlier one holds."""
    assert column.text is not None
    ms = time.ms.fill_null(0).to_numpy()
    later = ms >= np.quantile(ms, HISTORY)
    values = np.array(column.text.fill_null(MISSING).to_pylist(), dtype=object)
    return 1 - float(np.isin(values[later], np.unique(values[~later])).mean())
