"""Blocks, a reference and a stage, published without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from diet_ray import storage, tensor_files
from diet_ray.documents import write_sealed
from diet_ray.logs.blocks import Rows
from diet_ray.memory.artifact import Description, RankingData
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training.reference import FORMAT
from tests.made import made_blocks, small_config
from tests.sets import publish_set, random_rows

ROWS, FIELDS, TASKS = 20, 3, 2


class Published(NamedTuple):
    """Folders."""

    blocks: str
    stage: str
    phi: str


def publish(folder: Path) -> Published:
    """All three, as runs leave them behind."""
    blocks = made_blocks(str(folder / "blocks"), rows=60)
    phi = str(folder / "reference" / "t=1")
    _publish_reference(phi, dict(blocks.blocks[0].vocabulary_sizes), blocks.tasks)
    stage, width = str(folder / "distilled" / "stage=1"), small_config("x").models.embedding_dim
    described = Description(
        stage=1,
        rows=ROWS,
        fields=blocks.fields,
        tasks=blocks.tasks,
        embedding_dim=width,
        reference="0" * 64,
        reference_uri=phi,
        made_from={"memory": {"ratio": 0.1}},
    )
    draw = np.random.default_rng(0)
    judged = Rows(
        np.arange(9), draw.integers(0, 9, (9, FIELDS)), np.ones((9, TASKS), dtype=np.float32)
    )
    ranking = RankingData(judged, np.ones((9, TASKS), np.float32), of=60, full_rows=180)
    publish_set(stage, random_rows(ROWS, (FIELDS, width, TASKS)), described, ranking, 8)
    return Published(blocks.uri, stage, phi)


def _publish_reference(uri: str, sizes: dict[str, int], tasks: tuple[str, ...]) -> None:
    config = small_config("x")
    table = EmbeddingTable(sizes, config.models.embedding_dim, 0.01, 5)
    dense = fresh_network(config.reference.network, config.models, FIELDS, TASKS, 5)
    arrays = {f"embedding.{name}": v.numpy() for name, v in table.by_field().items()}
    arrays |= {f"dense.{name}": p.detach().numpy() for name, p in dense.named_parameters()}
    description = {
        "format": FORMAT,
        "stage": 1,
        "identity": tensor_files.write(storage.join(uri, "model.safetensors"), arrays),
        "fields": list(sizes),
        "tasks": tasks,
        "training_loss": 0.5,
        "standard_deviation": 0.01,
        "network": config.reference.network.model_dump(),
        "models": config.models.model_dump(),
        "made_from": {"seed": 5},
    }
    write_sealed(storage.join(uri, "reference.json"), description)
