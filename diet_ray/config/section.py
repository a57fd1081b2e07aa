"""What all sections of a configuration share: types, errors, and how errors are told."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from diet_ray import storage
from diet_ray.errors import UserError, shown


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}, which is no number; write one")
    return value


LONGEST_NAME = 255
"""Bytes of a file's or a folder's, on any filesystem of ours."""


def _place(value: str) -> str:
    """An absolute place, which is the same in every process."""
    if not value.strip():
        raise ValueError("is empty; name a folder, or any URI")
    if value.startswith("~") or "$" in value or "\0" in value:
        raise ValueError(
            "no shell reads a configuration, so ~ and $VARIABLES mean nothing; write the path out"
        )
    if any(len(part.encode()) > LONGEST_NAME for part in value.split("/")):
        raise ValueError(f"holds a name of more than {LONGEST_NAME} bytes; name a shorter one")
    return storage.absolute(value)


# Every number has both bounds, which are checked before anything is allocated for it. The upper
# ones are beyond what anyone runs, and keep a slip of the pen from taking a machine's memory.
_NUMBER = BeforeValidator(_no_truth_value)
LARGEST = 1e9

Number = Annotated[float, _NUMBER, Field(ge=-LARGEST, le=LARGEST)]
NonNegative = Annotated[float, _NUMBER, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, _NUMBER, Field(gt=0, le=LARGEST)]
Fraction = Annotated[float, _NUMBER, Field(gt=0, le=1)]
Share = Annotated[float, _NUMBER, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, _NUMBER, Field(ge=0, lt=1)]
Percentile = Annotated[float, _NUMBER, Field(gt=0, lt=100)]

Integer = Annotated[int, _NUMBER, Field(ge=-(10**18), le=10**18)]
PositiveInt = Annotated[int, _NUMBER, Field(gt=0, le=1_000_000)]
"""Of steps, seeds, processes, the rows of a batch."""
NonNegativeInt = Annotated[int, _NUMBER, Field(ge=0, le=1_000_000)]
NetworkSize = Annotated[int, _NUMBER, Field(gt=0, le=16_384)]
"""Of units, layers, heads, the width of a vector."""
RowCount = Annotated[int, _NUMBER, Field(gt=0, le=10**13)]
"""Of a log, which nobody holds."""
HeldCount = Annotated[int, _NUMBER, Field(gt=0, le=10**8)]
"""Of rows, users, items that one process holds."""
Buckets = Annotated[int, _NUMBER, Field(gt=0, le=10**9)]
"""Ids of a hashed field, below what an int32 holds."""

Place = Annotated[str, AfterValidator(_place)]
"""A path or any URI."""

T = TypeVar("T")
if TYPE_CHECKING:
    Fitted = Annotated[T, "fitted"]
else:
    Fitted = T | None
FITTED: Any = None
"""The default of a `Fitted` key: `config/fitting.py` puts a value that fits the log's size in its
place before anything is trained. So its type is that value's; only what reads a configuration
before the log is prepared can meet None."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run; the message names file, key, value and remedy."""


class Section(BaseModel):
    """A group of keys; unknown ones are refused, values are not coerced silently later on."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


FORMER = {
    "benchmark.fidelity_seeds": "benchmark.fidelity.full_seeds",
    "benchmark.settings": "benchmark.fidelity.settings",
    "benchmark.space": "benchmark.fidelity.space",
    "distill.outer.clip_memory": "distill.outer.clip_window",
    "evaluation.batch_size": "evaluation.protocol.batch_size",
    "evaluation.cotrain.passes": "evaluation.cotrain.steps",
    "evaluation.epochs": "evaluation.protocol.epochs",
    "evaluation.learning_rate": "evaluation.protocol.learning_rate",
    "evaluation.warm_up_batch_size": "evaluation.protocol.warm_up_batch_size",
    "resources.scoring_actors": "resources.scoring_workers",
    "search.seeds": "evaluation.cotrain.seeds",
}
"""Keys of earlier versions: what says the same now."""


def describe_errors(
    error: ValidationError, schema: type[BaseModel], where: str | Callable[[str], str]
) -> str:
    """A validation error as lines that name file, key, value and remedy.

    where: what every line begins with, or a function from a key's path to that.
    """
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        begin = where if isinstance(where, str) else where(key)
        start = f"{begin}: {key}:" if key else f"{begin}:"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{start} unknown key{_nearest(schema, problem['loc'])}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = problem["input"]
            told = "" if isinstance(given, dict | Section) else f" {shown(given)}"
            lines.append(f"{start}{told} {message}".replace(":  ", ": "))
    return "\n".join(lines)


def _nearest(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    now = FORMER.get(".".join(map(str, location)))
    if now:
        return f", of an earlier version; now it is {now!r}"
    for part in location[:-1]:
        if isinstance(part, str) and part in schema.model_fields:
            inner = section_in(schema.model_fields[part].annotation)
            schema = inner or schema
    known = list(schema.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The group of keys that a field holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (section_in(argument) for argument in typing.get_args(annotation))
    return next((section for section in inner if section is not None), None)
