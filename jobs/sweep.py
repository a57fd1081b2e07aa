"""Search architectures: train many candidates on the distilled set, rank them on validation.

    python jobs/distill.py --config configs/quickstart.yaml    # makes the set, once
    python jobs/sweep.py --config configs/quickstart.yaml
    python jobs/sweep.py --config configs/quickstart.yaml --set search.trials=4
    python jobs/sweep.py --config configs/quickstart.yaml --verify 9
    ray job submit --working-dir . -- python jobs/sweep.py --config configs/quickstart.yaml

Needs the distilled set that jobs/distill.py made with the same configuration (with --quick, if the
sweep is), or another one as search.distilled; then the configuration needs no logs. --verify also
trains some candidates on full data, to say how far to trust the order; --finish 3 makes models of
the best. What is done already is not done again.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.pipeline import search_architectures
from diet_ray.plan import quick
from diet_ray.plan.sweep import say_plan
from diet_ray.search.sweep import check_space

FIRST_KEYS = [
    "output",
    "search.distilled",
    "search.space",
    "search.trials",
    "search.algorithm",
    "search.stop",
    "search.score",
    "search.verify",
    "search.finish",
    "evaluation.cotrain.steps",
    "evaluation.cotrain.seeds",
    "evaluation.cotrain.batch_size",
]

SHORT = {"--verify": "search.verify", "--finish": "search.finish"}

if __name__ == "__main__":
    command = parse_command_line(__doc__, FIRST_KEYS, shorthands=SHORT, quick=quick.SWEEP)
    runtime.run_job(search_architectures, command, check=check_space, plan=say_plan)
