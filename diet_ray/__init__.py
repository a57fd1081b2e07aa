"""Streaming dataset distillation for recommender systems, on Ray.

The rooms, in the order of the data's flow: `logs`, `models`, `training`, `scoring`, `memory`,
`distill`, `evaluation`, `search`, `report`; `pipeline` runs them from raw logs to a distilled set
and its benchmark.
"""

from diet_ray.config import RunConfig, load_config
from diet_ray.memory.artifact import load_distilled
from diet_ray.version import __version__

__all__ = ["RunConfig", "__version__", "load_config", "load_distilled"]
