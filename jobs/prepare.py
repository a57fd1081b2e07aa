"""Prepare a raw log: encode it into time blocks and publish them below the run's output."""

from __future__ import annotations

import sys

from diet_ray.config import ConfigError, parse_command_line
from diet_ray.logs.blocks import BlocksError
from diet_ray.logs.prepare import prepare, summarise
from diet_ray.logs.sources import LogsError
from diet_ray.progress import start_logging
from diet_ray.runtime import connect
from diet_ray.storage import StorageError


def main() -> int:
    """Run the job; 2 means that log, configuration or storage must be changed first."""
    config = parse_command_line(__doc__ or "")
    start_logging()
    try:
        with connect():
            blocks = prepare(config)
    except (LogsError, BlocksError, ConfigError, StorageError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(summarise(blocks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
