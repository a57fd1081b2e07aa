"""Small encoded blocks with a planted signal, and a configuration of small networks.

The blocks have the form that `diet_ray.logs.blocks` states, but no log behind them: every id of
every field carries a hidden liking per task, and a row's labels are drawn from their sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from diet_ray import storage
from diet_ray.config import RunConfig
from diet_ray.logs.blocks import (
    ROW_ID,
    TIME_MS,
    Block,
    Blocks,
    Fragment,
    Role,
    Rows,
    write_fragment,
)

ROW_GROUP_ROWS = 40
FRAGMENT_ROWS = 100
FIRST_IDS = 12  # of every field in the first block, id 0 counted
NEW_IDS = 4  # that each later training block adds
DAY_MS = 86_400_000


def made_rows(
    rows: int, sizes: dict[str, int], tasks: int, seed: int, first_row_id: int = 0
) -> Rows:
    """Rows whose labels follow the hidden likings; id 0 is left out."""
    likings = np.random.default_rng(10_000).normal(size=(len(sizes), 1_000, tasks)) * 1.5
    draw = np.random.default_rng([seed, first_row_id])
    ids = np.stack([draw.integers(1, size, rows) for size in sizes.values()], axis=1)
    logits = sum(likings[f, ids[:, f]] for f in range(len(sizes))) - 0.5
    labels = draw.random((rows, tasks)) < 1 / (1 + np.exp(-logits))
    return Rows(np.arange(rows) + first_row_id, ids, labels.astype(np.float32))


def made_blocks(
    uri: str,
    rows: int = 240,
    fields: int = 3,
    tasks: int = 2,
    seed: int = 0,
    historical: int = 3,
    fragment_rows: int = FRAGMENT_ROWS,
) -> Blocks:
    """Blocks of `rows` rows each, published at `uri`, `historical` of them before the other three.

    The vocabularies grow from block to block up to the subsequent one; a few rows of validation
    and test hold id 0.
    """
    field_names = tuple(f"field_{f}" for f in range(fields))
    task_names = tuple(f"task_{k}" for k in range(tasks))
    blocks = []
    for number, (name, role) in enumerate(_names_and_roles(historical)):
        grown = FIRST_IDS + NEW_IDS * min(number, historical)
        sizes = {field: grown + f for f, field in enumerate(field_names)}
        made = made_rows(rows, sizes, tasks, seed, first_row_id=number * rows)
        if role in ("validation", "test"):
            made.ids[:: rows // 7 or 1, 0] = 0
        fragments = tuple(_write_fragments(uri, name, made, field_names, task_names, fragment_rows))
        rates = dict(zip(task_names, made.labels.mean(axis=0).tolist(), strict=True))
        blocks.append(Block(name, role, f"day {number}", rows, sizes, rates, fragments))
    found = Blocks(
        uri=uri,
        fields=field_names,
        tasks=task_names,
        blocks=tuple(blocks),
        row_group_rows=ROW_GROUP_ROWS,
        fingerprint=f"made-{rows}-{fields}-{tasks}-{seed}-{historical}-{fragment_rows}",
        source_bytes=0,
        quarantined={},
        outside_intervals=0,
    )
    found.save()
    return found


def _names_and_roles(historical: int) -> Iterator[tuple[str, Role]]:
    for number in range(1, historical + 1):
        yield f"historical-{number}", "historical"
    yield "subsequent", "subsequent"
    yield "validation", "validation"
    yield "test", "test"


def _write_fragments(
    uri: str,
    name: str,
    rows: Rows,
    fields: tuple[str, ...],
    tasks: tuple[str, ...],
    fragment_rows: int,
) -> Iterator[Fragment]:
    for number, start in enumerate(range(0, len(rows), fragment_rows)):
        part = rows.take(slice(start, start + fragment_rows))
        path = f"{name}/fragment-{number:05d}.parquet"
        columns = {ROW_ID: part.row_ids, TIME_MS: part.row_ids * (DAY_MS // 1_000)}
        columns |= {field: part.ids[:, f].astype(np.int32) for f, field in enumerate(fields)}
        columns |= {task: part.labels[:, k].astype(np.uint8) for k, task in enumerate(tasks)}
        place = storage.join(uri, path)
        write_fragment(place, pa.table(columns), ROW_GROUP_ROWS)
        groups = -(-len(part) // ROW_GROUP_ROWS)
        yield Fragment(path, len(part), int(part.row_ids[0]), groups, storage.size(place))


SMALL: dict[str, Any] = {
    "name": "made",
    "seed": 5,
    "logs": {
        "source": "synthetic",
        "intervals": {
            "historical": ["2024-01-01", "2024-01-02", "2024-01-03"],
            "subsequent": "2024-01-04",
            "validation": "2024-01-05",
            "test": "2024-01-06",
        },
    },
    "models": {
        "embedding_dim": 4,
        "mmoe": {"experts": 2, "expert_units": [8], "gate_units": [4], "tower_units": [4]},
    },
    "reference": {
        "network": {"name": "dcn", "parameters": {"num_cross_layers": 2, "dnn_hidden_units": [8]}},
        "batch_size": 32,
        "learning_rate": 0.01,
        "logical_shards": 2,
    },
    "scoring": {"batch_rows": 64},
    # Every part of the method is on, as in the paper.
    "memory": {"ratio": 0.05, "keep": 0.8, "new_rows": "boundary", "anchored": False},
    "distill": {
        "rounds": 2,
        "outer_steps": 4,
        "logical_shards": 2,
        "hard_fraction": 0.1,
        "active_fraction": 0.5,
        "unseen": False,
        "commit_every": 2,
        "target_batch": 32,
        "inner": {
            "networks": [],
            "start": "previous_reference",
            "learning_rate": 1e-3,
            "steps": 6,
            "window": 3,
            "batch_size": 16,
        },
        "outer": {"embedding_step": 0.15, "label_step": 0.03},
    },
    "evaluation": {
        "candidates": [
            {"name": "dcn", "parameters": {"num_cross_layers": 2, "dnn_hidden_units": [8]}},
            {
                "name": "wukong",
                "parameters": {
                    "num_layers": 1,
                    "fmb_features": 2,
                    "lcb_features": 2,
                    "rank": 2,
                    "fmb_units": [8],
                    "mlp_hidden_units": [8],
                },
            },
        ],
        "seeds": 1,
        "protocol": {
            "batch_size": 64,
            "warm_up_batch_size": 16,
            "learning_rate": 0.01,
            "warm_up_learning_rate": 0.01,
            "epochs": 2,
        },
        "cotrain": {"batch_size": 16, "learning_rate": 0.01, "steps": 6, "seeds": 2},
    },
    "resources": {"scoring_workers": [1, 1], "meta_workers": 1},
}


def small_config(output: str, **overrides: Any) -> RunConfig:
    """A run over made blocks; `overrides` are merged in, such as `memory={"keep": 0.5}`."""
    return RunConfig.model_validate({**_merged(SMALL, overrides), "output": output})


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = base.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        merged[key] = _merged(known, value) if both else value
    return merged
