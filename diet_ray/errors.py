"""The errors that a user can mend.

Protocol: whoever finds one raises its room's subclass of :class:`UserError`, with a message that
names file, field, value and remedy. A job prints the message alone and ends with status 2; any
other exception is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """Base of all errors whose message tells the user what to do."""


class DivergedError(UserError, ArithmeticError):
    """A training whose numbers are no longer finite; the message names it and what to lower."""


class StorageError(UserError, OSError):
    """A file that cannot be read or written; the message names the file and the remedy."""
