"""Distil a behaviour log: prepare blocks, train the reference, distil, check.

    python jobs/distill.py --config configs/quickstart.yaml
    python jobs/distill.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure
    ray job submit --working-dir . -- python jobs/distill.py --config configs/quickstart.yaml

What is published already is not computed again; a run that was killed goes on where it was.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.pipeline import distill_logs

if __name__ == "__main__":
    runtime.run_job(distill_logs, parse_command_line(__doc__))
