"""Search architectures: train many candidates on the distilled set, rank them on validation.

    python jobs/distill.py --config configs/quickstart.yaml    # makes the set, once
    python jobs/sweep.py --config configs/quickstart.yaml
    python jobs/sweep.py --config configs/quickstart.yaml --set search.trials=4
    ray job submit --working-dir . -- python jobs/sweep.py --config configs/quickstart.yaml

Needs the distilled set that jobs/distill.py made with the same configuration, or another one as
search.distilled. Trials that are done already are not run again.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.search.sweep import sweep

FIRST_KEYS = [
    "output",
    "search.distilled",
    "search.space",
    "search.trials",
    "search.use",
    "search.score",
    "evaluation.cotrain.steps",
    "evaluation.cotrain.seeds",
    "evaluation.cotrain.batch_size",
    "resources.evaluation_tasks",
]

if __name__ == "__main__":
    runtime.run_job(sweep, parse_command_line(__doc__, FIRST_KEYS))
