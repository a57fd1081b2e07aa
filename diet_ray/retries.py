"""What a store refuses for the moment is asked again: after random waits, within a budget, counted.

Protocol: `persistently` calls something that can be called again. Failures that pass by themselves
(`transient`) are counted by kind; a process says at its end what it retried. When the budget of a
call is spent, its StorageError names the place, the last failure and the remedy.
"""

from __future__ import annotations

import atexit
import re
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeVar

import tenacity

from diet_ray import telemetry
from diet_ray.errors import StorageError
from diet_ray.progress import duration, logger

T = TypeVar("T")

BUDGET_SECONDS = 150.0
"""Of one call: a store that is gone for a minute is waited for."""
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 10.0
SECONDS_BEFORE_REMARK = 10.0

PASSING = {
    "slow down": r"SLOW_DOWN|THROTTLING|REQUEST_LIMIT_EXCEEDED|HTTP status (429|503)",
    "server error": r"INTERNAL_FAILURE|SERVICE_UNAVAILABLE|HTTP status (500|502|504)",
    "stalled": r"REQUEST_TIMEOUT|curlCode: 28,",
    "cut short": r"curlCode: 18,| bytes came$",
    "connection lost": r"NETWORK_CONNECTION|curlCode: ",
}
"""Kinds of transient failures: what the S3 client's messages hold. The first that fits counts."""

_retried: Counter[str] = Counter()
_lock = threading.Lock()


def transient(error: BaseException) -> str | None:
    """The kind of a failure that passes by itself; None for any other."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | StorageError):
        return None
    kinds = (kind for kind, signs in PASSING.items() if re.search(signs, str(error)))
    return next(kinds, None)


def persistently(call: Callable[[], T], place: str) -> T:
    """What `call` returns, in the end.

    Raises StorageError if transient failures do not end within the budget, and at once what else
    `call` raises.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: transient(error) is not None),
        wait=tenacity.wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
        stop=tenacity.stop_after_delay(BUDGET_SECONDS),
        before_sleep=_Remarks(place),
        retry_error_callback=partial(_give_up, place),
    )
    return retrying(call)


def retried() -> Counter[str]:
    """How often this process tried again, by kind of failure."""
    with _lock:
        return Counter(_retried)


def told() -> str:
    """What was retried, for people; empty if nothing was."""
    kinds = [f"{kind} {count:,}" for kind, count in retried().most_common()]
    return f"Storage was asked again after: {', '.join(kinds)}" if kinds else ""


class _Remarks:
    """Counts the failures of one call, and says once that it takes long."""

    def __init__(self, place: str) -> None:
        self._place, self._said = place, False

    def __call__(self, state: tenacity.RetryCallState) -> None:
        error = _failure(state)
        _count(str(transient(error)))
        telemetry.RETRIES.add(1, what="call to the store")
        if (state.seconds_since_start or 0) > SECONDS_BEFORE_REMARK and not self._said:
            self._said = True
            logger.warning(
                "%s: the store has not answered for %s, it is asked for up to %s (%s)",
                self._place,
                duration(state.seconds_since_start or 0),
                duration(BUDGET_SECONDS),
                _one_line(error),
            )


def _count(kind: str) -> None:
    with _lock:
        if not _retried:
            atexit.register(lambda: logger.warning(told()))
        _retried[kind] += 1


def _give_up(place: str, state: tenacity.RetryCallState) -> NoReturn:
    error = _failure(state)
    message = (
        f"{place}: the store failed {state.attempt_number} times in "
        f"{duration(state.seconds_since_start or 0)}, last with: {_one_line(error)}; check that it "
        "is up and allows so many requests (AWS_ENDPOINT_URL names another), then run again: what "
        "is published is kept"
    )
    logger.warning(message)
    raise StorageError(message) from error


def _failure(state: tenacity.RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
