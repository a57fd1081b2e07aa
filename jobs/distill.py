"""Distil a behaviour log: prepare blocks, train the reference, distil, check.

    python jobs/distill.py --config configs/quickstart.yaml
    python jobs/distill.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure
    ray job submit --working-dir . -- python jobs/distill.py --config configs/quickstart.yaml

What is published already is not computed again; a run that was killed goes on where it was.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.pipeline import check_networks, distill_logs

FIRST_KEYS = [
    "output",
    "logs.source",
    "logs.path",
    "logs.intervals.historical",
    "memory.ratio",
    "distill.outer_steps",
    "models.embedding_dim",
    "reference.network",
    "reference.batch_size",
    "evaluation.methods",
    "evaluation.candidates",
    "evaluation.seeds",
    "resources.meta_workers",
]

if __name__ == "__main__":
    command = parse_command_line(__doc__, FIRST_KEYS)
    runtime.run_job(distill_logs, command, check=check_networks)
