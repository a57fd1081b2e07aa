"""A driver that SIGKILLs itself once some cells are done: python killed_driver.py <arguments>.

Arguments: the configuration as JSON, the blocks' folder, the distilled set, the number of cells,
the address of a running Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray

from diet_ray.config import RunConfig
from diet_ray.evaluation.benchmark import run_benchmark
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import open_blocks


def kill_this_process_when(folder: str, cells: int) -> None:
    while len(list(Path(folder).rglob("*.json"))) < cells:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    configuration, blocks_uri, distilled, cells, address = sys.argv[1:]
    config = RunConfig.model_validate_json(configuration)
    arguments = config.place("evaluation", "cells"), int(cells)
    threading.Thread(target=kill_this_process_when, args=arguments, daemon=True).start()
    ray.init(address=address, log_to_driver=False)
    run_benchmark(Run(config, open_blocks(blocks_uri), distilled))
    sys.exit("nobody killed this driver")
