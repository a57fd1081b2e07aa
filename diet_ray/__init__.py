"""Streaming dataset distillation for recommender systems, on Ray.

The rooms, in the order of the data's flow: `logs`, `models`, `training`, `scoring`, `memory`,
`distill`, `evaluation`, `search`, `report`, `plan`; `pipeline` runs them from raw logs to a
distilled set and its benchmark. `library` is what this package offers to a program or a notebook:

    found = diet_ray.distill("configs/quickstart.yaml")
    swept = diet_ray.sweep({"dcn": {"num_cross_layers": [1, 2, 3]}}, distilled=found.uri)
    swept.best
"""

import diet_ray.distill  # noqa: F401 - a room loaded later would take the function's name
from diet_ray.config import RunConfig, load_config
from diet_ray.library import distill, export, load_distilled, load_finished, sweep
from diet_ray.progress import start_logging
from diet_ray.version import __version__

__all__ = [
    "RunConfig",
    "__version__",
    "distill",
    "export",
    "load_config",
    "load_distilled",
    "load_finished",
    "start_logging",
    "sweep",
]
