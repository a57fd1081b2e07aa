"""Whether a staged log can be prepared; if not, what is wrong with it and what to do."""

from __future__ import annotations

import logging
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from diet_ray import storage, telemetry
from diet_ray.config import LogsConfig
from diet_ray.errors import LONGEST_VALUE, shortened
from diet_ray.logs.cleaning import NO_TIME, bad_label
from diet_ray.logs.sources import LogsError
from diet_ray.logs.staged_log import StagedLog
from diet_ray.logs.staging import QUARANTINE

logger = logging.getLogger("diet_ray")

MISREAD = 0.5
"""Share of unusable rows from which on they are not bad, but misread."""


def check_rows(logs: LogsConfig, uri: str, staged: StagedLog) -> None:
    """Whether few enough rows are unusable; those are told. Raises LogsError.

    uri: of the blocks folder.
    """
    reasons, rows = staged.quarantined, staged.rows
    bad = sum(reasons.values())
    telemetry.QUARANTINED_ROWS.set(bad)
    if not bad:
        return
    told = ", ".join(f"{count:,} with {reason!r}" for reason, count in reasons.items())
    place = storage.join(uri, QUARANTINE)
    logger.info("quarantined %s of %s rows in %s: %s", f"{bad:,}", f"{rows:,}", place, told)
    limit = logs.bad_rows_limit
    if bad > limit * rows:
        first = staged.first_bad
        assert first is not None
        raise LogsError(
            f"{bad:,} of {rows:,} rows cannot be used, more than logs.bad_rows_limit={limit:g} "
            f"allows: {told}. The first is row {first['row']} of "
            f"{first['file']}: {first['reason']}: {shortened(first['raw'], LONGEST_VALUE)}. All "
            f"are in {place}; {_remedy(logs, reasons, bad / rows)}"
        )


def _remedy(logs: LogsConfig, reasons: dict[str, int], share: float) -> str:
    """For a log of which this share of the rows is unusable; most of them, if it was misread."""
    if share <= MISREAD:
        limit = min(1.0, float(np.ceil(share * 1000)) / 1000)
        return f"repair the log, or go on without them by --set logs.bad_rows_limit={limit:g}"
    worst = max(reasons, key=lambda reason: reasons[reason])
    if logs.table is None:
        return "is it the raw file, whole and as it was downloaded?"
    if worst == NO_TIME:
        return (
            f"logs.table.time_unit {logs.table.time_unit!r} is not how column "
            f"{logs.table.time_column!r} writes times: set it to s, ms, us, ns or a strptime "
            "pattern such as '%Y-%m-%d %H:%M:%S'"
        )
    for task, text in logs.table.tasks.items():
        if worst == bad_label(task):
            return (
                f"logs.table.tasks.{task}: {text!r} does not give 0 and 1: write an expression "
                "that does, such as action == 'buy' or rating >= 4"
            )
    return "set logs.table.delimiter to what separates the values, or repair the log"


def check_no_block_is_empty(logs: LogsConfig, staged: StagedLog) -> None:
    """Whether every interval has rows. Raises LogsError, which tells the times of the log."""
    intervals = logs.intervals.named()
    empty = [f"{name} ({i})" for name, i in intervals if not staged.block_rows.get(name)]
    if not empty:
        return
    if staged.first_ms is None or staged.last_ms is None:
        raise LogsError(f"{logs.path}: the log has no usable row")
    zone = ZoneInfo(logs.timezone)
    first, last = (_told(ms, zone) for ms in (staged.first_ms, staged.last_ms))
    raise LogsError(
        f"logs.intervals: no row in {', '.join(empty)}; the log goes from {first} to {last} "
        f"({logs.timezone}): move the interval, or check the time column's unit and logs.timezone"
    )


def _told(ms: int, zone: ZoneInfo) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="seconds")
    except (OverflowError, ValueError):  # beyond the calendar's years 1 to 9999
        return f"{ms:,} ms from 1970"
