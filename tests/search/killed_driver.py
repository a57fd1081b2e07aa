"""A driver that SIGKILLs itself once some trials are kept: python killed_driver.py <arguments>.

Arguments: the configuration as JSON, the number of trials, the address of a running Ray.
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
from diet_ray.search.sweep import sweep


def kill_this_process_when(folder: str, trials: int) -> None:
    while len(list(Path(folder).glob("*.json"))) < trials:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    configuration, trials, address = sys.argv[1:]
    config = RunConfig.model_validate_json(configuration)
    arguments = config.place("search", "trials"), int(trials)
    threading.Thread(target=kill_this_process_when, args=arguments, daemon=True).start()
    ray.init(address=address, log_to_driver=False)
    sweep(config)
    sys.exit("nobody killed this driver")
