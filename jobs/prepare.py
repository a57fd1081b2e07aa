"""Prepare a raw log: encode it into time blocks and publish them below the run's output.

    python jobs/prepare.py --config configs/quickstart.yaml
    python jobs/prepare.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure

`jobs/distill.py` does this too when blocks are missing. For a table (Parquet or CSV) without a
configuration yet, a first one, to be corrected, comes from

    python jobs/prepare.py --suggest my/ratings.csv --output my.yaml
"""

import argparse
import sys

from diet_ray import runtime, storage
from diet_ray.config import RunConfig, parse_command_line
from diet_ray.errors import UserError
from diet_ray.logs.prepare import prepare, summarise
from diet_ray.logs.suggest import suggest

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


def write_suggestion(path: str, output: str | None) -> None:
    """A first configuration of the table at `path`, printed or written to a file."""
    try:
        text = suggest(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if output is None:
        print(text, end="")
    else:
        storage.write_bytes(output, text.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--suggest", metavar="PATH")
    parser.add_argument("--output", metavar="FILE")
    options, others = parser.parse_known_args()
    if options.suggest is not None:
        write_suggestion(options.suggest, options.output)
    else:
        runtime.run_job(prepare_and_show, parse_command_line(__doc__, FIRST_KEYS))
