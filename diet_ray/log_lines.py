"""The form of a line of the log: for people, or, where DIET_RAY_LOG=json, an object each.

A variable of the environment and no key of the configuration: who collects the lines is a matter
of the place where a job runs, not of the run, and lines come before there is a configuration.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType

from diet_ray import whereabouts

VARIABLE = "DIET_RAY_LOG"
FORMS = ("text", "json")


def as_json() -> bool:
    """Whether lines are objects."""
    return os.environ.get(VARIABLE) == "json"


def doubt() -> str | None:
    """What is wrong with the variable's value, if anything; lines are text then."""
    value = os.environ.get(VARIABLE) or FORMS[0]
    if value in FORMS:
        return None
    return f"{VARIABLE}={value}: not known, lines are text; set it to {' or '.join(FORMS)}"


def formatter() -> logging.Formatter:
    """Of the form that is wanted."""
    return (
        JsonFormatter() if as_json() else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    )


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, message; run, stage, round and step where known; the
    traceback, if there is one, as exception."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        known = {key: v for key, v in asdict(whereabouts.here()).items() if v is not None}
        told = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps({**told, **known}, ensure_ascii=False)


def say(text: str, level: int = logging.ERROR) -> None:
    """A line on standard error that no switched-off logger swallows: the last words of a job."""
    line = formatter().format(_record(text, level)) if as_json() else text
    print(line, file=sys.stderr, flush=True)


def tell_exceptions() -> None:
    """From here on, an error that nobody handles is an object, too, if lines are."""
    if as_json():
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    record = _record(f"{kind.__name__}: {error}", logging.CRITICAL)
    record.exc_info = (kind, error, trace)
    print(formatter().format(record), file=sys.stderr, flush=True)


def _record(text: str, level: int) -> logging.LogRecord:
    return logging.LogRecord("diet_ray", level, "", 0, text, None, None)
