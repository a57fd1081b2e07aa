"""Prepare a raw log: encode it into time blocks and publish them below the run's output.

    python jobs/prepare.py --config configs/quickstart.yaml
    python jobs/prepare.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure

`jobs/distill.py` does this too when blocks are missing.
"""

from diet_ray import runtime
from diet_ray.config import RunConfig, parse_command_line
from diet_ray.logs.prepare import prepare, summarise

FIRST_KEYS = [
    "output",
    "logs.source",
    "logs.path",
    "logs.timezone",
    "logs.intervals.historical",
    "logs.intervals.subsequent",
    "logs.intervals.validation",
    "logs.intervals.test",
    "logs.table.fields",
    "logs.table.tasks",
    "logs.bad_rows_limit",
]


def prepare_and_show(config: RunConfig) -> None:
    """Prepare, and print what came out."""
    print("\n".join(summarise(prepare(config))))


if __name__ == "__main__":
    runtime.run_job(prepare_and_show, parse_command_line(__doc__, FIRST_KEYS))
