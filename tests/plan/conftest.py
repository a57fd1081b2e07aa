"""A run as the evaluation's tests have it: two blocks, phi_1 and phi_2, and a distilled set."""

from tests.evaluation.conftest import prepared, trained

__all__ = ["prepared", "trained"]
