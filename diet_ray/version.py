"""The package's version, also where it runs without being installed (`ray job submit`)."""

__version__ = "0.1.0"
