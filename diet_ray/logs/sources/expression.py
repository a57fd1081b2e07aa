"""A task's label as a column of zeros and ones, or as a comparison such as `rating >= 4`.

Grammar: `column`, or `column OP literal` with OP one of >= > <= < == !=, or
`column in [literal, ...]`. A literal is a number, a quoted text, or one bare word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.sources.source import LogsError, nearest
from diet_ray.logs.sources.values import as_numbers, as_text

COMPARISON = re.compile(r"\s*(?P<column>.+?)\s*(?P<operator>>=|<=|==|!=|>|<|\bin\b)(?P<right>.+)")
LITERAL = re.compile(
    r"""\s*(?: (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
             | "(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<word>[^\W\d]\w*) )\s*""",
    re.VERBOSE,
)
COMPARE = {
    ">=": pc.greater_equal,
    ">": pc.greater,
    "<=": pc.less_equal,
    "<": pc.less,
    "==": pc.equal,
    "!=": pc.not_equal,
}
HOW = "write a column, `column >= 4`, `column == 'buy'` or `column in [1, 2]`"

Literal = float | str


@dataclass(frozen=True)
class Task:
    """How a label comes from a column; without operator it is the column itself."""

    column: str
    operator: str = ""
    literals: tuple[Literal, ...] = ()


def parse_task(name: str, text: str, columns: Sequence[str]) -> Task:
    """The task `name` of a table with these columns. Raises LogsError."""
    if text.strip() in columns:
        return Task(text.strip())
    where = f"logs.table.tasks.{name}: {text!r}"
    match = COMPARISON.fullmatch(text)
    column = match["column"] if match else text.strip()
    if column not in columns:
        raise LogsError(f"{where}: no column {column!r}; {nearest(column, columns)} ({HOW})")
    assert match is not None
    literals = _literals(match["right"], match["operator"] == "in", where)
    if match["operator"] not in ("==", "!=", "in") and isinstance(literals[0], str):
        raise LogsError(f"{where}: text has no order; use == or in, or compare with a number")
    return Task(column, match["operator"], literals)


def _literals(text: str, many: bool, where: str) -> tuple[Literal, ...]:
    inner = text.strip()
    if many:
        if not (inner.startswith("[") and inner.endswith("]")):
            raise LogsError(f"{where}: `in` needs a list; {HOW}")
        inner = inner[1:-1]
    literals: list[Literal] = []
    at = 0
    while True:
        match = LITERAL.match(inner, at)
        if match is None:
            raise LogsError(f"{where}: {inner[at:].strip()!r} is not a value; {HOW}")
        literals.append(float(match["number"]) if match["number"] else _text(match))
        at = match.end()
        if at == len(inner):
            break
        if not many or inner[at] != ",":
            raise LogsError(f"{where}: {inner[at:].strip()!r} is left over; {HOW}")
        at += 1
    if len({type(literal) for literal in literals}) > 1:
        raise LogsError(f"{where}: numbers and text in one list; quote all of them or none")
    return tuple(literals)


def _text(match: re.Match[str]) -> str:
    found = (match[group] for group in ("double", "single", "word"))
    return next(text for text in found if text is not None)


def labels(task: Task, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The label of every row as float64; null where the column holds nothing to compare."""
    if not task.operator:
        return as_numbers(column)
    numeric = isinstance(task.literals[0], float)
    values = as_numbers(column) if numeric else as_text(column)
    if task.operator == "in":
        within = pc.is_in(values, value_set=pa.array(task.literals, values.type))
        truth = pc.if_else(pc.is_valid(values), within, None)
    else:
        truth = COMPARE[task.operator](values, pa.scalar(task.literals[0], values.type))
    return truth.cast(pa.uint8()).cast(pa.float64())
