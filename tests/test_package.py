"""What `import diet_ray` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import diet_ray
from diet_ray import library

ROOT = Path(__file__).parents[1]

HEAVY = ("ray", "torch", "pandas", "scipy", "sklearn", "matplotlib", "optuna")


def printed(code: str) -> str:
    """By a Python of its own."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_import_loads_nothing_heavy() -> None:
    """Every worker process of a cluster pays for it too."""
    assert printed(f"import sys, diet_ray; print(sys.modules.keys() & {set(HEAVY)})") == "set()"


def test_the_function_keeps_the_name_that_it_shares_with_a_room() -> None:
    """Importing a room puts it into the package, unless it is there already."""
    code = "import diet_ray, diet_ray.pipeline, diet_ray.distill.stream; print({})"
    assert printed(code.format("diet_ray.distill.__module__")) == "diet_ray.library"


def test_everything_offered_is_there_and_explained() -> None:
    for name in diet_ray.__all__:
        offered = getattr(diet_ray, name)
        assert isinstance(offered, str) or inspect.getdoc(offered)
    assert diet_ray.distill is library.distill
    assert diet_ray.sweep is library.sweep
