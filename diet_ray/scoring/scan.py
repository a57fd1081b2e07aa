"""Score every row of a block, or a stated sample of them, by Ray Data."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

import numpy as np
import pyarrow as pa
import ray.data
import torch
from ray.data import DataContext
from torch import Tensor

from diet_ray import devices, progress, runtime, seeds, storage, telemetry, whereabouts
from diet_ray.config import RunConfig
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Block, Blocks, Fragment, Rows, read_fragment
from diet_ray.scoring.ledger import (
    LOOKS_AT_ONCE,
    Entry,
    read_entries,
    side_car_uri,
    sketch,
    write_entry,
)
from diet_ray.training.reference import Reference
from diet_ray.training.shared_reference import SharedReference, share_reference

SIDE_CAR_ENCODINGS = {"row_id": "DELTA_BINARY_PACKED", "score": "PLAIN"}
FRAGMENTS_AT_ONCE = 2  # that a process holds: one is scored while the other is read or written
MOST_FRAGMENTS = 8
"""Of a task: few enough that progress is told every few seconds; Ray Data lets a worker wait for
a fifth of a second from one task to the next."""
TURNS = 3
"""That workers take at least, where fragments suffice, so that all end at about the same time."""


class ScanError(UserError, ValueError):
    """Scores that cannot be used; the message names file, row, value and remedy."""


class Scoring(Protocol):
    """What a scan applies: `EL2NScoring` or `AlignmentScoring`."""

    @property
    def identity(self) -> str:
        """Equal identities mean equal scores of equal rows."""

    @property
    def reference_uri(self) -> str:
        """Folder of phi_t."""

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        """The function rows -> float32 (n,) on `device`. reference: phi_t."""


@dataclass(frozen=True)
class Sample:
    """A share of a block's rows, drawn by row id: the same rows wherever they are read."""

    fraction: float
    seed: int
    path: tuple[int | str, ...]

    def of(self, rows: Rows) -> Rows:
        """Those of `rows` that belong to the sample."""
        if self.fraction >= 1:
            return rows
        draws = seeds.uniform(self.seed, *self.path, indices=rows.row_ids)
        return rows.take(draws < self.fraction)


ALL_ROWS = Sample(1.0, 0, ())


@dataclass(frozen=True)
class Scan:
    """A finished scan: its side-cars and its ledger; cpus: of a task that reads a side-car."""

    uri: str
    fragments: tuple[Fragment, ...]
    entries: list[Entry]
    cpus: float

    @property
    def group_rows(self) -> dict[int, int]:
        """Scored rows per label group, groups in ascending order."""
        counts: dict[int, int] = {}
        for entry in self.entries:
            for group, rows in entry.group_rows.items():
                counts[group] = counts.get(group, 0) + rows
        return dict(sorted(counts.items()))


def label_groups(labels: np.ndarray) -> np.ndarray:
    """A number per label vector, int32 (n,): task k counts 2^k. labels (n, K) of 0 and 1."""
    return labels.astype(np.int32) @ (1 << np.arange(labels.shape[1], dtype=np.int32))


def scan(
    config: RunConfig,
    blocks: Blocks,
    block: Block,
    scoring: Scoring,
    uri: str,
    sample: Sample = ALL_ROWS,
) -> Scan:
    """Score `block` into the folder `uri`; fragments that its ledger holds are not scored again."""
    fragments = {f.path: f for f in block.fragments}
    identity = f"{scoring.identity}-{sample}"
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        found = pool.map(lambda fragment: _key(blocks, fragment, identity), fragments.values())
        keys = dict(zip(fragments, found, strict=True))
    done = {entry.fragment for entry in read_entries(uri, fragments, keys)}
    waiting = [fragment for path, fragment in fragments.items() if path not in done]
    title = f"Scan of {block.name} ({scoring.identity.partition('-')[0]})"
    with progress.phase(title, block.rows) as phase:
        phase.skip(sum(f.rows for f in block.fragments if f.path in done))
        if waiting:
            with runtime.plain_errors():
                cpus = config.resources.scoring_cpus
                reference = share_reference(scoring.reference_uri, cpus)
                task = ScanTask(config, blocks, block, uri, sample, keys, reference)
                for row in _pipeline(task, scoring, waiting).iter_rows():
                    phase.advance(int(row["rows"]))
                    telemetry.ROWS_SCORED.add(int(row["rows"]))
                    telemetry.durable()
    entries = read_entries(uri, fragments, keys)
    lost = fragments.keys() - {entry.fragment for entry in entries}
    if lost:
        first = side_car_uri(uri, fragments[min(lost)])
        raise ScanError(
            f"{first}: it or its ledger entry is gone again, as are those of {len(lost)} fragments "
            "in all; let no other process write to the folder, and run again"
        )
    return Scan(uri, block.fragments, entries, config.resources.scoring_cpus)


def _key(blocks: Blocks, fragment: Fragment, identity: str) -> str:
    return f"{storage.fingerprint(storage.join(blocks.uri, fragment.path))}-{identity}"


@dataclass(frozen=True)
class ScanTask:
    """All that a worker needs beside the scoring."""

    config: RunConfig
    blocks: Blocks
    block: Block
    uri: str
    sample: Sample
    keys: dict[str, str]
    reference: SharedReference


def _pipeline(task: ScanTask, scoring: Scoring, waiting: list[Fragment]) -> ray.data.Dataset:
    """Tasks on CPUs, whose processes Ray keeps from one scan to the next; on GPUs a pool of actors,
    since Ray ends the process of a task that had a GPU."""
    resources = task.config.resources
    low, high = (min(count, len(waiting)) for count in resources.scoring_workers)
    tasks = max(math.ceil(len(waiting) / MOST_FRAGMENTS), min(len(waiting), TURNS * high))
    parts = np.array_split([fragment.path for fragment in waiting], tasks)
    fragments = runtime.one_task_each([{"fragments": paths.tolist()} for paths in parts])
    if not resources.scoring_gpus:
        return fragments.map_batches(
            score_fragments,
            fn_args=(task, scoring),
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(high),
            num_cpus=resources.scoring_cpus,
        )
    pool = ray.data.ActorPoolStrategy(min_size=low, max_size=high, max_tasks_in_flight_per_actor=2)
    context = DataContext.get_current().copy()
    # a pool whose actors are all busy is one to enlarge
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    with DataContext.current(context):
        return fragments.map_batches(
            FragmentScorer,
            fn_constructor_args=(task, scoring),
            batch_size=1,
            compute=pool,
            num_cpus=resources.scoring_cpus,
            num_gpus=resources.scoring_gpus,
        )


Batch = dict[str, np.ndarray]


def score_fragments(batch: Batch, task: ScanTask, scoring: Scoring) -> Batch:
    """What a task does: as a `FragmentScorer`, made for its batch."""
    return FragmentScorer(task, scoring)(batch)


# Threads stay with the process from task to task: what the allocator keeps for one that has ended
# is not used again by the next, and a process would grow with every scan.
@cache
def _scoring_thread(torch_threads: int) -> Executor:
    """That scores; torch counts threads for each thread that calls it."""
    return ThreadPoolExecutor(1, "scorer", torch.set_num_threads, (torch_threads,))


@cache
def _fragment_threads() -> Executor:
    """That read and write."""
    return ThreadPoolExecutor(FRAGMENTS_AT_ONCE, "fragment")


class FragmentScorer:
    """Reads its own Parquet, writes scores and ledger entries, returns only counts.

    A batch is a list of fragments. Two are worked on at once, each by a thread that returns when
    its ledger entry is written. All scoring is done by one thread more, in turn, so that a fragment
    is read or written while another is scored.
    """

    def __init__(self, task: ScanTask, scoring: Scoring) -> None:
        whereabouts.enter(run=task.config.name)
        self._task = task
        self._device = devices.use_device(task.config.resources.scoring_gpus, task.config.threads)
        self._score = scoring.load(task.reference.open(), self._device)
        self._fragments = {fragment.path: fragment for fragment in task.block.fragments}

    def __call__(self, batch: Batch) -> Batch:
        fragments = [self._fragments[str(path)] for path in batch["fragments"][0]]
        scorer = _scoring_thread(self._task.config.threads)
        list(_fragment_threads().map(partial(self._score_fragment, scorer), fragments))
        return {"rows": np.array([sum(fragment.rows for fragment in fragments)])}

    def _score_fragment(self, scorer: Executor, fragment: Fragment) -> None:
        task = self._task
        rows = task.sample.of(read_fragment(task.blocks, task.block, fragment))
        scores = scorer.submit(self._score_rows, rows).result()
        _check_scores(scores, rows, fragment)
        groups = label_groups(rows.labels)
        table = pa.table({"row_id": rows.row_ids, "group": groups, "score": scores})
        side_car = side_car_uri(task.uri, fragment)
        checksum = storage.write_parquet(side_car, table, encodings=SIDE_CAR_ENCODINGS)
        k = task.config.scoring.sketch_k
        present, counts = (found.tolist() for found in np.unique(groups, return_counts=True))
        entry = Entry(
            fragment=fragment.path,
            key=task.keys[fragment.path],
            rows=len(rows),
            group_rows=dict(zip(present, counts, strict=True)),
            group_sketches={g: sketch(scores[groups == g], k) for g in present},
            side_car_bytes=storage.size(side_car),
            side_car_sha256=checksum,
        )
        write_entry(task.uri, fragment, entry)

    def _score_rows(self, rows: Rows) -> np.ndarray:
        step = self._task.config.scoring.batch_rows
        parts = [
            self._score(rows.take(slice(start, start + step)))
            for start in range(0, len(rows), step)
        ]
        return torch.cat([torch.zeros(0, device=self._device), *parts]).cpu().numpy()


def _check_scores(scores: np.ndarray, rows: Rows, fragment: Fragment) -> None:
    """Ranks are only defined among numbers."""
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ScanError(
            f"{fragment.path}: row {rows.row_ids[bad[0]]}: its score is {scores[bad[0]]}, as are "
            f"those of {len(bad)} rows in all; the reference has diverged: lower "
            "reference.learning_rate and train it again"
        )
