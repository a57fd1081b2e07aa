"""A job that asks for actors and ends when all of them live: python asking.py <demands as JSON>.

Demands: a list of `{"count": .., "num_cpus": .., "num_gpus": .., "label_selector": {..}}`.
"""

from __future__ import annotations

import json
import sys

import ray


@ray.remote
class Asker:
    def ready(self) -> bool:
        return True


if __name__ == "__main__":
    ray.init()
    actors = []
    for demand in json.loads(sys.argv[1]):
        count = demand.pop("count")
        actors += [Asker.options(**demand).remote() for _ in range(count)]
    ray.get([actor.ready.remote() for actor in actors])
    print(f"all {len(actors)} are there")
