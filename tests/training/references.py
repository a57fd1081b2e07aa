"""A trained reference of three stages, and copies of it."""

from __future__ import annotations

from pathlib import Path

from diet_ray import storage
from diet_ray.config import RunConfig
from diet_ray.training.reference import reference_uri
from tests.made import small_config

STAGES = 3


def copy_of(trained: RunConfig, folder: Path, stages: int) -> RunConfig:
    """The same run elsewhere, with its first `stages` checkpoints only."""
    config = small_config(str(folder))
    for stage in range(1, stages + 1):
        for name in ("model.safetensors", "reference.json"):
            place = storage.join(reference_uri(trained, stage), name)
            storage.write_bytes(
                storage.join(reference_uri(config, stage), name), storage.read_bytes(place)
            )
    return config


def tensors(config: RunConfig) -> list[bytes]:
    return [
        storage.read_bytes(storage.join(reference_uri(config, stage), "model.safetensors"))
        for stage in range(1, STAGES + 1)
    ]
