"""What `--quick` sets: keys that make a job end in minutes, if the user does not set them.

The job then writes to `<output>-quick`. All jobs make the same set there, so a quick sweep finds
what a quick distillation made. Its numbers say that everything works, not how good it is.
"""

from __future__ import annotations

_SET = (
    "logs.most_rows=60000",
    "distill.rounds=1",
    "distill.outer_steps=8",
    "distill.inner.steps=40",
    "distill.inner.window=10",
)

DISTILL = (*_SET, "evaluation.seeds=2")
BENCHMARK = (
    *_SET,
    "benchmark.studies=[main]",
    "benchmark.labels=[soft]",
    "benchmark.seeds=2",
    "benchmark.tuning.tried=[{}]",
    "benchmark.tuning.tried_without_warm_up=null",
)
SWEEP = (*_SET, "search.trials=6", "evaluation.cotrain.seeds=2")
