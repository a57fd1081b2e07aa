"""A small distillation, watched by a Prometheus: python watched_run.py <output> <name> <scrapes>.

What the node's agent exports meanwhile, in Prometheus' text format, goes to a file every second or
so in the folder <scrapes>. The environment says how often processes report to the agent.
"""

from __future__ import annotations

import sys
import threading
import urllib.request
from pathlib import Path

import ray

from diet_ray import library, progress
from diet_ray.config import make_config

QUICKSTART = str(Path(__file__).parents[1] / "configs/quickstart.yaml")

SMALL = {
    "logs.synthetic.rows": 9_000,
    "logs.synthetic.users": 200,
    "logs.synthetic.items": 150,
    "logs.fragment_rows": 1_000,
    "logs.row_group_rows": 500,
    "logs.intervals.historical": ["2024-01-03"],
    "memory.new_rows": "boundary",  # for which a block is scanned
    "distill.outer_steps": 6,
    "distill.rounds": 1,
}
REPORTS_SECONDS = 3.0  # within which a process has told the agent of what it counted last


def scrape(folder: Path, done: threading.Event) -> None:
    """Read what the agent exports until the run is done."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    number = 0
    while not done.wait(1.0):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                (folder / f"{number:04d}.prom").write_bytes(answer.read())
        except OSError:  # the agent still starts
            continue
        number += 1


if __name__ == "__main__":
    output, name, scrapes = sys.argv[1:]
    progress.start_logging()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    done = threading.Event()
    watcher = threading.Thread(target=scrape, args=(Path(scrapes), done))
    watcher.start()
    library.distill(make_config(QUICKSTART, {**SMALL, "output": output, "name": name}))
    done.wait(REPORTS_SECONDS)
    done.set()
    watcher.join()
    ray.shutdown()
