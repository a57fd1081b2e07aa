"""Published sets without a distillation."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from diet_ray.memory import artifact
from diet_ray.memory.artifact import Description, RankingData
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows


def random_rows(
    count: int, shape: tuple[int, int, int] = (3, 4, 2), moved: float = 0.5, seed: int = 0
) -> SyntheticRows:
    """Rows of shape (F, d, K), about the share `moved` of them with a delta; no two are alike."""
    draw = np.random.default_rng(seed)
    fields, width, tasks = shape
    has_delta = draw.random(count) < moved
    return SyntheticRows(
        anchors=draw.integers(1, 100, (count, fields)).astype(np.int32),
        labels=draw.normal(size=(count, tasks)).astype(np.float32),
        taught=draw.normal(size=(count, tasks)).astype(np.float32),
        stages=draw.integers(1, 4, count).astype(np.int32),
        source_rows=draw.choice(2**20, count, replace=False),
        moved=has_delta,
        deltas=draw.normal(size=(int(has_delta.sum()), fields, width)).astype(np.float32),
    )


def assert_same(found: SyntheticRows, expected: SyntheticRows) -> None:
    """To the bit, types and shapes included."""
    for name in (field.name for field in fields(SyntheticRows)):
        array, other = getattr(expected, name), getattr(found, name)
        assert other.dtype == array.dtype, name
        assert other.shape == array.shape, name
        assert other.tobytes() == array.tobytes(), name


def files_of(
    uri: str, rows: SyntheticRows, fields: tuple[str, ...], rows_per_file: int = 65_536
) -> RowFiles:
    """The rows, written into a folder as float32."""
    target = RowFiles(
        uri=uri,
        rows=len(rows),
        rows_per_file=rows_per_file,
        fields=fields,
        embedding_dim=rows.deltas.shape[2],
    )
    sums = [
        target.write(number, rows.take(slice(*target.bounds(number))))
        for number in range(target.count)
    ]
    return replace(target, checksums=tuple(sums))


def publish_set(
    uri: str,
    rows: SyntheticRows,
    description: Description,
    ranking: RankingData | None = None,
    rows_per_file: int = 65_536,
) -> None:
    """The rows as a stage; of the sample to judge on the ids that no anchor has become 0."""
    artifact.clear(uri)
    files = files_of(uri, rows, description.fields, rows_per_file)
    if ranking is not None:
        ids = ranking.rows.ids
        known = [np.isin(ids[:, f], rows.anchors[:, f]) for f in range(ids.shape[1])]
        masked = np.where(np.stack(known, axis=1), ids, 0)
        ranking = replace(ranking, rows=replace(ranking.rows, ids=masked))
    artifact.publish(files, description, ranking)
