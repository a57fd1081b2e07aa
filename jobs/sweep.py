"""Search architectures: train many candidates on the distilled set, rank them on validation.

    python jobs/sweep.py --config configs/kuairand_pure.yaml
    python jobs/sweep.py --config configs/quickstart.yaml --set search.trials=4
    ray job submit --working-dir . -- python jobs/sweep.py --config configs/quickstart.yaml

Needs the distilled set that jobs/distill.py made with the same configuration. Trials that are
done already are not run again.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.search.sweep import sweep

if __name__ == "__main__":
    runtime.run_job(sweep, parse_command_line(__doc__))
