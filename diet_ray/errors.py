"""The errors that a user can mend.

Protocol: whoever finds one raises its room's subclass of :class:`UserError`, with a message that
names file, field, value and remedy. A job prints the message alone and ends with status 2; any
other exception is a defect of ours and keeps its traceback.
"""

LONGEST_MESSAGE = 4_000
"""Characters; a message may quote what it found, and a file may hold anything."""
LONGEST_VALUE = 300
"""Of a value that a message quotes."""
MARK_LENGTH = 40
"""At most, of what says how much was left out."""


class UserError(Exception):
    """Base of all errors whose message tells the user what to do."""

    def __init__(self, message: object) -> None:
        super().__init__(shortened(str(message), LONGEST_MESSAGE))


class DivergedError(UserError, ArithmeticError):
    """A training whose numbers are no longer finite; the message names it and what to lower."""


class StorageError(UserError, OSError):
    """A file that cannot be read or written; the message names the file and the remedy."""


def shortened(text: str, most: int) -> str:
    """The text; of one longer than `most` characters, its two ends."""
    if len(text) <= most:
        return text
    end = (most - MARK_LENGTH) // 2
    return f"{text[:end]} [.. {len(text) - 2 * end:,} characters ..] {text[-end:]}"


def shown(value: object) -> str:
    """How a message quotes a value."""
    try:
        return shortened(repr(value), LONGEST_VALUE)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list in itself
        return f"{type(value).__name__}, too large to show"
