"""A driver that SIGKILLs itself as soon as a file appears: python killed_driver.py <arguments>.

Arguments: the configuration as JSON, the blocks' folder, the file, the address of a running Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import ray

from diet_ray.config import RunConfig
from diet_ray.distill.stream import distill_stream
from diet_ray.logs.blocks import open_blocks


def kill_this_process_when(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    configuration, blocks_uri, awaited, address = sys.argv[1:]
    config = RunConfig.model_validate_json(configuration)
    threading.Thread(target=kill_this_process_when, args=(awaited,), daemon=True).start()
    ray.init(address=address, log_to_driver=False)
    distill_stream(config, open_blocks(blocks_uri))
    sys.exit("nobody killed this driver")
