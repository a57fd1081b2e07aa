"""The distillation as a job that says where it is: python driver.py --config <file>.

It prints `at <stage> <phase>` whenever a phase of `plan.py` begins.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from diet_ray import pipeline, runtime
from diet_ray.config import parse_command_line
from diet_ray.distill import addressing, boundary, stage, stream

BEGINNINGS: list[tuple[ModuleType, str, str]] = [
    (pipeline, "prepare", "preparation"),
    (pipeline, "train_reference", "reference"),
    (boundary, "scan", "scan"),
    (addressing, "scan", "scan"),
    (stage, "_round", "meta-gradients"),
    (stage, "_end", "publishing"),
]
"""The functions with which phases begin, where they are called."""

stages: list[int] = []
"""That this process has begun."""


def announced(begin: Callable[..., Any], phase: str) -> Callable[..., Any]:
    def announcing(*arguments: Any) -> Any:
        print(f"at {stages[-1] if stages else 0} {phase}", flush=True)
        return begin(*arguments)

    return announcing


def noted(begin: Callable[..., Any]) -> Callable[..., Any]:
    def noting(config: Any, blocks: Any, number: int, workers: Any) -> Any:
        stages.append(number)
        return begin(config, blocks, number, workers)

    return noting


if __name__ == "__main__":
    for module, name, phase in BEGINNINGS:
        setattr(module, name, announced(getattr(module, name), phase))
    stream.distill_stage = noted(stream.distill_stage)
    command = parse_command_line(__doc__, [])
    runtime.run_job(pipeline.distill_logs, command, check=pipeline.check_networks)
