"""The distilled set on disk, readable by any Parquet reader.

Layout: ``distilled/stage=<t>/rows-00000.parquet``.. (`files.py` has their columns) and then
``_manifest.json``, which makes the stage visible. A row is stored as the ids of the real row that
it started from, its soft labels, and a delta where one was learned; its embedding is E(anchor) +
delta, E the reference's table. The manifest states shapes, the reference that the rows belong to
and where it lies, the configuration and versions, a checksum per file, and a summary for people.

``_ranking.safetensors`` holds the rest of what makes the folder all that ranking a candidate needs
(`ranking.py`), a sample of m rows of the validation block: ``ids`` (m, F) int32, 0 for an id that
no anchor of the set has, ``labels`` (m, K) uint8, 0 or 1, and ``taught`` (m, K) float32, the
reference's soft labels.

Names are chosen for foreign readers: what is no distilled row begins with an underscore and does
not end in ``.parquet``, which hides it from those that open the whole folder, and no column is
called like the folder's key ``stage``, which some of them put in a column's place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from diet_ray import documents, storage, tensor_files
from diet_ray.config import NetworkSize
from diet_ray.logs.blocks import Rows
from diet_ray.memory.files import (
    ArtifactError,
    RowFiles,
    anchors_of,
    anew,
    checked_bytes,
    tensor_of,
)
from diet_ray.memory.rows import SyntheticRows
from diet_ray.version import __version__

FORMAT = 7
_MANIFEST = "_manifest.json"
_RANKING = "_ranking.safetensors"
MOST_ROWS = 10**13
"""Of a set; a manifest that states more is damaged."""
_LIBRARIES = ("torch", "ray", "pyarrow", "numpy")


def _with_ratio(made_from: dict[str, Any]) -> dict[str, Any]:
    memory = made_from.get("memory")
    ratio = memory.get("ratio") if isinstance(memory, dict) else None
    if not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ValueError("states no memory.ratio between 0 and 1")
    return made_from


@dataclass(frozen=True)
class _Stored:
    """How a manifest says that columns are stored."""

    label: Literal["float32", "float16"]
    delta: Literal["float32", "float16"]


@dataclass(frozen=True)
class _Ranking:
    """What a manifest says of ``_ranking.safetensors``."""

    validation_rows: int
    of: int
    full_rows: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What ``_manifest.json`` holds."""

    format: int
    summary: str
    stage: int
    rows: Annotated[int, Field(ge=0, le=MOST_ROWS)]
    rows_per_file: Annotated[int, Field(gt=0, le=MOST_ROWS)]
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    embedding_dim: NetworkSize
    reference: str
    reference_folder: str
    made_from: Annotated[dict[str, Any], AfterValidator(_with_ratio)]
    stored: _Stored
    versions: dict[str, str]
    sha256: tuple[str, ...]
    ranking: _Ranking | None


@dataclass(frozen=True)
class Description:
    """What a published stage says about itself."""

    stage: int
    rows: int
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    embedding_dim: int
    reference: str  # identity of phi_t
    reference_uri: str  # its folder
    made_from: dict[str, Any]  # the keys of the configuration that determine the rows

    @property
    def log_rows(self) -> int:
        """About how many historical rows the set stands for, by its share of them."""
        return max(round(self.rows / self.made_from["memory"]["ratio"]), 1)


@dataclass(frozen=True)
class RankingData:
    """Rows to judge on, and what a cost is a share of."""

    rows: Rows  # a sample of the validation block; 0 for ids that no anchor of the set has
    taught: np.ndarray  # (m, K) float32, phi_t's logits of it
    of: int  # rows of the block
    full_rows: int  # that one full training visits: all historical blocks and the subsequent one


def published(uri: str) -> bool:
    """Whether the stage in this folder is whole."""
    return storage.exists(storage.join(uri, _MANIFEST))


def clear(uri: str) -> None:
    """Remove what an earlier attempt left of a stage, its manifest first."""
    storage.remove(storage.join(uri, _MANIFEST))
    storage.remove(uri)


def publish(files: RowFiles, description: Description, ranking: RankingData | None = None) -> None:
    """Make a stage visible whose row files are written.

    Without what ranking needs the set can be trained on, but not ranked on by itself.
    """
    uri = files.uri
    manifest = {
        "format": FORMAT,
        "summary": _summary(description, ranking),
        "stage": description.stage,
        "rows": description.rows,
        "rows_per_file": files.rows_per_file,
        "fields": description.fields,
        "tasks": description.tasks,
        "embedding_dim": description.embedding_dim,
        "reference": description.reference,
        "reference_folder": storage.relative(description.reference_uri, uri),
        "made_from": description.made_from,
        "stored": {"label": files.label_type, "delta": files.delta_type},
        "versions": {"diet_ray": __version__, **{name: version(name) for name in _LIBRARIES}},
        "sha256": files.checksums,
        "ranking": None if ranking is None else _publish_ranking(uri, ranking),
    }
    documents.write_sealed(storage.join(uri, _MANIFEST), manifest)


def _publish_ranking(uri: str, ranking: RankingData) -> dict[str, Any]:
    tensors: dict[str, np.ndarray] = {
        "ids": ranking.rows.ids.astype(np.int32),
        "labels": ranking.rows.labels.astype(np.uint8),
        "taught": ranking.taught.astype(np.float32),
    }
    checksum = tensor_files.write(storage.join(uri, _RANKING), tensors)
    counts = {"of": ranking.of, "full_rows": ranking.full_rows}
    return {"validation_rows": len(ranking.rows), **counts, "sha256": checksum}


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


def describe(uri: str) -> Description:
    """What a published stage says about itself. Raises ArtifactError."""
    manifest = _manifest(uri)
    names = ("stage", "rows", "fields", "tasks", "embedding_dim", "reference", "made_from")
    folder = storage.resolve(manifest.reference_folder, uri)
    return Description(reference_uri=folder, **{name: getattr(manifest, name) for name in names})


def summary(uri: str) -> str:
    """What a published stage tells people, some lines. Raises ArtifactError."""
    return _manifest(uri).summary


def full_rows(uri: str) -> int | None:
    """Rows that one full training visits on the log of a published stage; None for a stage that
    was published without what ranking needs. Raises ArtifactError."""
    stated = _manifest(uri).ranking
    return None if stated is None else stated.full_rows


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


def _manifest(uri: str) -> _Manifest:
    path = storage.join(uri, _MANIFEST)
    try:
        manifest = documents.read_sealed(path, anew(uri))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file; name a published stage such as distilled/stage=3"
        ) from None
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest.get('format')} is not {FORMAT}; distil again"
        )
    found = documents.parsed(manifest, _Manifest, path, anew(uri))
    if len(found.sha256) != math.ceil(found.rows / found.rows_per_file):
        raise ArtifactError(
            f"{path}: sha256: {len(found.sha256)} checksums for {found.rows} rows in files of "
            f"{found.rows_per_file}; {anew(uri)}"
        )
    return found


def open_files(uri: str) -> RowFiles:
    """The files of a published stage. Raises ArtifactError."""
    manifest = _manifest(uri)
    return RowFiles(
        uri=uri,
        rows=manifest.rows,
        rows_per_file=manifest.rows_per_file,
        fields=manifest.fields,
        embedding_dim=manifest.embedding_dim,
        label_type=manifest.stored.label,
        delta_type=manifest.stored.delta,
        checksums=manifest.sha256,
    )


def missing_files(uri: str) -> list[str]:
    """Names of a published stage's files that are not there, by one listing. Raises
    ArtifactError."""
    files, stated = open_files(uri), _manifest(uri).ranking
    named = [files.name(number) for number in range(files.count)]
    there = storage.sizes(uri)
    return [n for n in [*named, *([_RANKING] if stated else [])] if n not in there]


def check_content(uri: str) -> None:
    """Whether every file of a published stage is what its manifest says, one at a time in memory.

    It reads the stage: a second or less for a gigabyte on a local disk. Raises ArtifactError.
    """
    files, stated = open_files(uri), _manifest(uri).ranking
    for number in range(files.count):
        files.read(number, columns=[])
    if stated is not None:
        checked_bytes(storage.join(uri, _RANKING), stated.sha256)


def checksums(uri: str) -> dict[str, str]:
    """SHA-256 of every file of rows: equal checksums mean equal rows. Raises ArtifactError."""
    files = open_files(uri)
    return {files.name(number): found for number, found in enumerate(files.checksums)}


def ranking_checksum(uri: str) -> str | None:
    """SHA-256 of what a published stage holds for ranking, if it does."""
    stated = _manifest(uri).ranking
    return None if stated is None else stated.sha256


def read(uri: str) -> SyntheticRows:
    """All rows of a published stage, checked against its checksums. Raises ArtifactError."""
    files = open_files(uri)
    return files.slice(0, files.rows)


def read_taught(uri: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows' anchors, int32 (n, F), and the reference's labels of them, float32 (n, K), alone.

    Checked as by `read`. Raises ArtifactError.
    """
    files = open_files(uri)
    columns = [*(f"anchor_{name}" for name in files.fields), "taught"]
    tables = [files.read(number, columns) for number in range(files.count)]
    anchors = np.concatenate([anchors_of(table, files.fields) for table in tables])
    return anchors, np.concatenate([tensor_of(table, "taught") for table in tables])


def read_ranking_data(uri: str) -> RankingData:
    """What a published stage holds for ranking; its sample's row ids only count.

    Raises ArtifactError, also for a stage that was published without it.
    """
    stated = _manifest(uri).ranking
    if stated is None:
        raise ArtifactError(
            f"{storage.join(uri, _MANIFEST)}: the set holds no validation sample to judge on; "
            "name a stage that jobs/distill.py published"
        )
    path = storage.join(uri, _RANKING)
    checked_bytes(path, stated.sha256)
    arrays = tensor_files.read(path)
    ids, labels = arrays["ids"].astype(np.int64), arrays["labels"].astype(np.float32)
    rows = Rows(np.arange(len(ids)), ids, labels)
    return RankingData(rows, arrays["taught"], stated.of, stated.full_rows)
