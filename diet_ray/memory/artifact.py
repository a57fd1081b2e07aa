"""The distilled set on disk, readable by any Parquet reader.

Layout: ``distilled/stage=<t>/rows-00000.parquet``.. and then ``_manifest.json``, which makes the
stage visible. Columns: ``embedding`` (Arrow fixed-shape tensor F x d), ``label`` (fixed-shape
tensor K, logits), ``source_stage``, ``source_row`` and ``anchor`` (the stage that added the row,
the real row it started from, and that row's ids, a fixed-shape tensor F). The manifest states
shapes, the reference that the rows belong to, the configuration and versions, a checksum per
file, and a summary for people.

``_ranking.safetensors`` holds what makes the folder all that ranking a candidate needs
(`ranking.py`): ``row_taught`` (n, K) float32, the reference's own soft labels of the rows, logits,
as they were before others were learned; and a sample of m rows of the validation block: ``ids``
(m, F) int32, 0 for an id that no anchor of the set has, ``labels`` (m, K) uint8, 0 or 1, and
``taught`` (m, K) float32, the reference's soft labels.

Names are chosen for foreign readers: what is no distilled row begins with an underscore and does
not end in ``.parquet``, which hides it from those that open the whole folder, and no column is
called like the folder's key ``stage``, which some of them put in a column's place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_ray import storage
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Rows
from diet_ray.memory.rows import SyntheticRows
from diet_ray.version import __version__

FORMAT = 6
ROWS_PER_FILE = 65_536
_MANIFEST = "_manifest.json"
_RANKING = "_ranking.safetensors"
_LIBRARIES = ("torch", "ray", "pyarrow", "numpy")


class ArtifactError(UserError, ValueError):
    """A distilled set that is damaged or does not fit; the message names file and remedy."""


@dataclass(frozen=True)
class Description:
    """What a published stage says about itself."""

    stage: int
    rows: int
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    embedding_dim: int
    reference: str  # identity of phi_t
    made_from: dict[str, Any]  # the keys of the configuration that determine the rows

    @property
    def log_rows(self) -> int:
        """About how many historical rows the set stands for, by its share of them."""
        return max(round(self.rows / self.made_from["memory"]["ratio"]), 1)


@dataclass(frozen=True)
class RankingData:
    """What ranking needs beside the rows: phi_t's labels of theirs, and rows to judge on."""

    row_taught: np.ndarray  # (n, K) float32, phi_t's logits of the set's own rows
    rows: Rows  # a sample of the validation block
    taught: np.ndarray  # (m, K) float32, phi_t's logits of it
    of: int  # rows of the block
    full_rows: int  # that one full training visits: all historical blocks and the subsequent one


def published(uri: str) -> bool:
    """Whether the stage in this folder is whole."""
    return storage.exists(storage.join(uri, _MANIFEST))


def publish(
    uri: str,
    rows: SyntheticRows,
    description: Description,
    ranking: RankingData | None = None,
) -> None:
    """Write a stage: data first, manifest last; what an earlier attempt left there is removed.

    Without what ranking needs the set can be trained on, but not ranked on by itself.
    """
    storage.remove(storage.join(uri, _MANIFEST))
    storage.remove(uri)
    files = {}
    for number, start in enumerate(range(0, len(rows), ROWS_PER_FILE)):
        name = f"rows-{number:05d}.parquet"
        part = rows.take(slice(start, start + ROWS_PER_FILE))
        files[name] = storage.write_parquet(storage.join(uri, name), _table(part))
    manifest = {
        "format": FORMAT,
        "summary": _summary(description, ranking),
        "stage": description.stage,
        "rows": description.rows,
        "fields": description.fields,
        "tasks": description.tasks,
        "embedding_dim": description.embedding_dim,
        "reference": description.reference,
        "made_from": description.made_from,
        "schema": {name: str(kind) for name, kind in zip(*_schema(rows), strict=True)},
        "versions": {"diet_ray": __version__, **{name: version(name) for name in _LIBRARIES}},
        "sha256": files,
        "ranking": None if ranking is None else _publish_ranking(uri, rows, ranking),
    }
    storage.write_json(storage.join(uri, _MANIFEST), manifest)


def _publish_ranking(uri: str, rows: SyntheticRows, ranking: RankingData) -> dict[str, Any]:
    ids = ranking.rows.ids.astype(np.int32)
    for field in range(ids.shape[1]):
        ids[~np.isin(ids[:, field], rows.anchors[:, field]), field] = 0
    tensors: dict[str, np.ndarray] = {
        "row_taught": ranking.row_taught.astype(np.float32),
        "ids": ids,
        "labels": ranking.rows.labels.astype(np.uint8),
        "taught": ranking.taught.astype(np.float32),
    }
    checksum = storage.write_tensors(storage.join(uri, _RANKING), tensors)
    counts = {"validation_rows": len(ids), "of": ranking.of, "full_rows": ranking.full_rows}
    return {**counts, "sha256": checksum}


def _summary(description: Description, ranking: RankingData | None) -> str:
    """A sentence per line."""
    fields, tasks = description.fields, description.tasks
    told = [
        f"Distilled set, stage {description.stage}: {description.rows:,} rows of {len(fields)} "
        f"fields of width {description.embedding_dim}.",
        f"Fields: {', '.join(fields)}.",
        f"Tasks: {', '.join(tasks)}.",
    ]
    if ranking is not None:
        share = description.rows / ranking.full_rows
        told += [
            f"Rows: {100 * share:.3g}% of the {ranking.full_rows:,} that a full training visits.",
            f"Judges: {len(ranking.rows):,} of the {ranking.of:,} rows of the validation block.",
        ]
    return "\n".join(told)


def _schema(rows: SyntheticRows) -> tuple[list[str], list[pa.DataType]]:
    schema = _table(rows.take(slice(0, 1))).schema
    return schema.names, schema.types


def _table(rows: SyntheticRows) -> pa.Table:
    return pa.table(
        {
            "embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(rows.embeddings),
            "label": pa.FixedShapeTensorArray.from_numpy_ndarray(rows.labels),
            "source_stage": rows.stages,
            "source_row": rows.source_rows,
            "anchor": pa.FixedShapeTensorArray.from_numpy_ndarray(rows.anchors),
        }
    )


def describe(uri: str) -> Description:
    """What a published stage says about itself. Raises ArtifactError."""
    manifest = _manifest(uri)
    names = ("stage", "rows", "embedding_dim", "reference", "made_from")
    fields, tasks = tuple(manifest["fields"]), tuple(manifest["tasks"])
    return Description(fields=fields, tasks=tasks, **{name: manifest[name] for name in names})


def summary(uri: str) -> str:
    """What a published stage tells people, some lines. Raises ArtifactError."""
    return str(_manifest(uri)["summary"])


def full_rows(uri: str) -> int | None:
    """Rows that one full training visits on the log of a published stage; None for a stage that
    was published without what ranking needs. Raises ArtifactError."""
    stated = _manifest(uri)["ranking"]
    return None if stated is None else int(stated["full_rows"])


def check_fits(uri: str, fields: Sequence[str], embedding_dim: int) -> None:
    """Whether networks over these fields and of this width can train on a published stage.

    Raises ArtifactError.
    """
    found = describe(uri)
    if (len(found.fields), found.embedding_dim) != (len(fields), embedding_dim):
        raise ArtifactError(
            f"{uri}: its rows have {len(found.fields)} fields of width {found.embedding_dim}, this "
            f"configuration's networks take {len(fields)} fields of width {embedding_dim}; set "
            "logs.fields and models.embedding_dim as they were when it was distilled, or distil "
            "again with another output"
        )


def _manifest(uri: str) -> dict[str, Any]:
    path = storage.join(uri, _MANIFEST)
    try:
        manifest = storage.read_json(path)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file; name a published stage such as distilled/stage=3"
        ) from None
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest.get('format')} is not {FORMAT}; distil again"
        )
    return manifest


def checksums(uri: str) -> dict[str, str]:
    """SHA-256 of every file of a published stage: equal checksums mean equal rows."""
    return dict(_manifest(uri)["sha256"])


def ranking_checksum(uri: str) -> str | None:
    """SHA-256 of what a published stage holds for ranking, if it does."""
    stated = _manifest(uri)["ranking"]
    return None if stated is None else str(stated["sha256"])


def read(uri: str) -> SyntheticRows:
    """All rows of a published stage, checked against its checksums. Raises ArtifactError."""
    parts = [
        SyntheticRows(
            embeddings=table["embedding"].combine_chunks().to_numpy_ndarray(),
            labels=table["label"].combine_chunks().to_numpy_ndarray(),
            stages=table["source_stage"].to_numpy(),
            source_rows=table["source_row"].to_numpy(),
            anchors=table["anchor"].combine_chunks().to_numpy_ndarray(),
        )
        for table in _tables(uri)
    ]
    return SyntheticRows.concatenate(parts)


def read_anchors(uri: str) -> np.ndarray:
    """The rows' anchors alone, int32 (n, F), checked as by `read`. Raises ArtifactError."""
    parts = [t["anchor"].combine_chunks().to_numpy_ndarray() for t in _tables(uri, ["anchor"])]
    return np.concatenate(parts)


def _tables(uri: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for name, checksum in sorted(checksums(uri).items()):
        with storage.open_parquet(_checked(uri, name, checksum)) as file:
            yield file.read(columns)


def read_ranking_data(uri: str) -> RankingData:
    """What a published stage holds for ranking; its sample's row ids only count.

    Raises ArtifactError, also for a stage that was published without it.
    """
    stated = _manifest(uri)["ranking"]
    if stated is None:
        raise ArtifactError(
            f"{storage.join(uri, _MANIFEST)}: the set holds no validation sample to judge on; "
            "name a stage that jobs/distill.py published"
        )
    arrays = storage.read_tensors(_checked(uri, _RANKING, stated["sha256"]))
    ids, labels = arrays["ids"].astype(np.int64), arrays["labels"].astype(np.float32)
    rows = Rows(np.arange(len(ids)), ids, labels)
    counts = stated["of"], stated["full_rows"]
    return RankingData(arrays["row_taught"], rows, arrays["taught"], *counts)


def _checked(uri: str, name: str, checksum: str) -> str:
    """URI of a stage's file, if it is what the manifest says. Raises ArtifactError."""
    path = storage.join(uri, name)
    try:
        found = hashlib.sha256(storage.read_bytes(path)).hexdigest()
    except FileNotFoundError:
        found = "missing"
    if found != checksum:
        raise ArtifactError(
            f"{path}: its content is not what {_MANIFEST} says (SHA-256 {found}); remove the "
            "stage's folder and distil it again"
        )
    return path


class DistilledDataset(Dataset[tuple[Tensor, Tensor]]):
    """A stage as a torch dataset of (embedding (F, d), soft label (K,) logits); prints as its
    summary."""

    def __init__(self, rows: SyntheticRows, description: Description, summary: str) -> None:
        self.description, self._summary = description, summary
        self.embeddings, self.labels = (
            torch.from_numpy(np.array(array)) for array in (rows.embeddings, rows.labels)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.embeddings[index], self.labels[index]

    def __repr__(self) -> str:
        return self._summary


def load_distilled(uri: str) -> DistilledDataset:
    """A published stage, such as ``<output>/distilled/stage=3``. Raises ArtifactError."""
    return DistilledDataset(read(uri), describe(uri), summary(uri))
