"""A published set as plain embeddings and labels: for a Torch loop, and for other people's code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_ray import progress, storage
from diet_ray.memory import artifact
from diet_ray.memory.artifact import Description
from diet_ray.memory.files import ArtifactError
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.running import lease
from diet_ray.training.reference import CheckpointError, load_reference


class DistilledDataset(Dataset[tuple[Tensor, Tensor]]):
    """A stage as a torch dataset of (embedding (F, d), soft label (K,) logits); prints as its
    summary.

    embeddings (n, F, d) and labels (n, K) float32, ids (n, F) int64: all of it.
    """

    def __init__(
        self, rows: SyntheticRows, table: EmbeddingTable, description: Description, summary: str
    ) -> None:
        self.description, self._summary = description, summary
        self.embeddings = torch.from_numpy(rows.embeddings(table))
        self.labels = torch.from_numpy(np.array(rows.labels))
        self.ids = torch.from_numpy(rows.anchors.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.embeddings[index], self.labels[index]

    def __repr__(self) -> str:
        return self._summary


def load_distilled(uri: str, reference: str | None = None) -> DistilledDataset:
    """A published stage, such as ``<output>/distilled/stage=3``.

    reference: folder of the reference model that its embeddings are those of; default: where it
    was when the set was distilled. Raises ArtifactError.
    """
    described = artifact.describe(uri)
    table = reference_table(uri, described, reference)
    return DistilledDataset(artifact.read(uri), table, described, artifact.summary(uri))


def reference_table(
    uri: str, described: Description, reference: str | None = None
) -> EmbeddingTable:
    """E of a published stage. Raises ArtifactError if it is not there or another."""
    folder = reference or described.reference_uri
    try:
        found = load_reference(folder)
    except CheckpointError as error:
        raise ArtifactError(
            f"{uri}: its rows are stored as ids and need the reference model of their run: "
            f"{error}; name the folder where it lies now, such as <output>/reference/t=3"
        ) from None
    if found.identity != described.reference:
        raise ArtifactError(
            f"{uri}: belongs to reference {described.reference[:12]}, {folder} holds "
            f"{found.identity[:12]}; name the folder of the run that distilled it"
        )
    return found.table


def export(uri: str, target: str, reference: str | None = None) -> None:
    """Write a published stage into the folder `target` in its plain form, which takes no code of
    ours to read: Parquet with the columns ``embedding`` (fixed-shape tensor F x d), ``label``
    (fixed-shape tensor K, logits), ``anchor_<field>``, ``source_stage`` and ``source_row``, then
    ``_summary.txt``. One file at a time is in memory.

    reference: as for `load_distilled`. Raises ArtifactError, also for a folder that holds Parquet.
    """
    described, files = artifact.describe(uri), artifact.open_files(uri)
    table = reference_table(uri, described, reference)
    plain = replace(files, uri=target)
    with lease.held(target):
        if storage.list_files(target, ".parquet"):
            raise ArtifactError(
                f"{target}: holds Parquet files already, which readers of the folder would take "
                "for rows of the set; name another folder, or remove them"
            )
        with progress.phase(f"Export to {target}", files.rows) as phase:
            for number in range(files.count):
                rows = files.rows_of(files.read(number))
                path = storage.join(target, plain.name(number))
                storage.write_parquet(path, _plain(rows, rows.embeddings(table), described))
                phase.advance(len(rows))
        storage.write_bytes(storage.join(target, "_summary.txt"), artifact.summary(uri).encode())


def _plain(rows: SyntheticRows, embeddings: np.ndarray, described: Description) -> pa.Table:
    return pa.table(
        {
            "embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(embeddings),
            "label": pa.FixedShapeTensorArray.from_numpy_ndarray(rows.labels),
            **{f"anchor_{name}": rows.anchors[:, f] for f, name in enumerate(described.fields)},
            "source_stage": rows.stages,
            "source_row": rows.source_rows,
        }
    )
