"""Prepare a raw log: encode it into time blocks and publish them below the run's output.

    python jobs/prepare.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure

`jobs/distill.py` does this too when blocks are missing.
"""

from diet_ray import runtime
from diet_ray.config import RunConfig, parse_command_line
from diet_ray.logs.prepare import prepare, summarise


def prepare_and_show(config: RunConfig) -> None:
    """Prepare, and print what came out."""
    print("\n".join(summarise(prepare(config))))


if __name__ == "__main__":
    runtime.run_job(prepare_and_show, parse_command_line(__doc__))
