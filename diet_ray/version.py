"""The package's version, also where it runs without being installed (`ray job submit`).

It is part of every key and `made_from`: raise it with any change after which the same inputs train
to other bits.
"""

__version__ = "0.6.0"
