"""Blocks of any number of rows and ids, made without a log behind them; and runs over them.

Time does not depend on what a row says, so labels are drawn at random. It does depend on how often
an id comes back: ids follow a power law, as a log's do, over all that a field has.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diet_ray import progress, storage
from diet_ray.config import RunConfig, fit
from diet_ray.logs.blocks import ROW_ID, TIME_MS, Block, Blocks, Fragment, Role, write_fragment
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import numpy_generator, torch_generator

FIELDS, TASKS = 7, 3  # as many as the synthetic log has
ROW_GROUP_ROWS = 65_536
FRAGMENT_ROWS = 500_000
POWER = 2.0  # density of the id of rank r is proportional to r ** (1 / POWER - 1)
RATE = 0.2  # of ones
EMBEDDING_STD = 0.02  # of a trained table, as measured on KuaiRand-Pure
FITTED_TO = 10_000_000
"""Rows of the log to whose size a run's networks and batches are fitted, however few there are."""
BYTES_PER_ROW = 8 + 8 + 4 * FIELDS + TASKS  # of a made row in Parquet, before it is compressed

DAYS = [f"2024-01-0{day}" for day in range(1, 7)]
INTERVALS = {
    "historical": DAYS[:3],
    "subsequent": DAYS[3],
    "validation": DAYS[4],
    "test": DAYS[5],
}


def run_config(output: str, **changes: Any) -> RunConfig:
    """A run's configuration, all that it leaves open fitted to FITTED_TO rows.

    changes: sections or keys in the place of the defaults'.
    """
    logs = {"source": "synthetic", "intervals": INTERVALS}
    return fit(RunConfig.model_validate({"logs": logs, **changes, "output": output}), FITTED_TO)


def even_sizes(ids: int) -> dict[str, int]:
    """`ids` shared evenly among the fields, id 0 counted: field -> number of ids."""
    return {f"field_{f}": max(ids // FIELDS, 2) for f in range(FIELDS)}


def made_blocks(
    uri: str,
    rows: list[int],
    ids: int,
    tasks: int = TASKS,
    fragment_rows: int = FRAGMENT_ROWS,
) -> Blocks:
    """Historical blocks of so many rows each, in order, with `ids` ids over all fields.

    Every block's vocabulary is the whole one.
    """
    sizes = even_sizes(ids)
    names = tuple(f"task_{k}" for k in range(tasks))
    blocks, first = [], 0
    with progress.phase("Rows of made blocks", sum(rows)) as phase, ThreadPoolExecutor() as pool:
        for number, count in enumerate(rows, start=1):
            role: Role = "historical"
            name = f"historical-{number}"
            make = partial(_fragment, uri, name, first, count, sizes, names, fragment_rows)
            fragments = []
            for made in pool.map(make, range(-(-count // fragment_rows))):
                fragments.append(made)
                phase.advance(made.rows)
            rates = dict.fromkeys(names, RATE)
            blocks.append(Block(name, role, DAYS[0], count, sizes, rates, tuple(fragments)))
            first += count
    whole = Blocks(
        uri=uri,
        fields=tuple(sizes),
        tasks=names,
        blocks=tuple(blocks),
        row_group_rows=ROW_GROUP_ROWS,
        fingerprint=f"made-{rows}-{ids}-{tasks}-{fragment_rows}",
        source_bytes=0,
        quarantined={},
        outside_intervals=0,
    )
    whole.save()
    return whole


def _fragment(
    uri: str,
    block: str,
    first: int,
    rows: int,
    sizes: dict[str, int],
    tasks: tuple[str, ...],
    fragment_rows: int,
    number: int,
) -> Fragment:
    start = number * fragment_rows
    count = min(fragment_rows, rows - start)
    path = f"{block}/fragment-{number:05d}.parquet"
    place = storage.join(uri, path)
    write_fragment(place, _table(first + start, count, sizes, tasks), ROW_GROUP_ROWS)
    return Fragment(path, count, first + start, -(-count // ROW_GROUP_ROWS), storage.size(place))


def _table(first: int, rows: int, sizes: dict[str, int], tasks: tuple[str, ...]) -> pa.Table:
    draw = numpy_generator(0, "made", first)
    row_ids = np.arange(first, first + rows)
    columns: dict[str, np.ndarray] = {ROW_ID: row_ids, TIME_MS: row_ids}
    for field, size in sizes.items():
        rank = draw.random(rows) ** POWER * (size - 1)
        columns[field] = 1 + rank.astype(np.int32)
    for task in tasks:
        columns[task] = (draw.random(rows) < RATE).astype(np.uint8)
    return pa.table(columns)


@dataclass(frozen=True)
class Dense:
    """A dense network at its start, and rows for it."""

    flat: FlatNetwork
    theta: Tensor  # (P,)
    direction: Tensor  # (P,), any
    embeddings: Tensor  # (B, F, d)
    labels: Tensor  # (B, K), 0 or 1

    def first(self, rows: int) -> Dense:
        """The same with the first rows alone."""
        return replace(self, embeddings=self.embeddings[:rows], labels=self.labels[:rows])


def network_names() -> tuple[str, ...]:
    """Of the networks that measures of dense networks take, in the sizes of FITTED_TO rows."""
    return tuple(network.name for network in run_config("anywhere").evaluation.candidates)


def dense(name: str, rows: int, dtype: torch.dtype = torch.float32) -> Dense:
    """The network called `name`, freshly started, over `rows` random rows."""
    config = run_config("anywhere")
    network = next(n for n in config.evaluation.candidates if n.name == name)
    started = fresh_network(network, config.models, FIELDS, TASKS, 0, "bench").to(dtype)
    draw = torch_generator(0, "bench")
    shape = rows, FIELDS, config.models.embedding_dim
    theta = flatten_parameters(started)
    return Dense(
        flat=FlatNetwork(started),
        theta=theta,
        direction=torch.randn(len(theta), generator=draw, dtype=dtype),
        embeddings=torch.randn(shape, generator=draw, dtype=dtype) * EMBEDDING_STD,
        labels=(torch.rand(rows, TASKS, generator=draw) < RATE).to(dtype),
    )
