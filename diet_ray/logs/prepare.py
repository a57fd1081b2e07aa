"""Preparing a log: two passes with Ray Data, then the manifest.

Protocol: see the room's docstring. Whatever is published below the blocks folder is whole, and a
function of the log and the configuration alone. So a killed preparation continues where it was,
and its result is byte-identical whatever the number of processes. `staging/run.json` says for
which log and configuration the unfinished work is; work for another one is begun anew. Published
blocks are never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.data import Dataset

from diet_ray import storage
from diet_ray.config import LogsConfig, RunConfig
from diet_ray.logs.blocks import (
    FORMAT,
    Block,
    Blocks,
    Role,
    check_whole,
    open_blocks,
    published,
)
from diet_ray.logs.doubts import doubts, unseen_table
from diet_ray.logs.encoder import Encoder
from diet_ray.logs.extending import Extended, SharedIndex, extend_vocabularies
from diet_ray.logs.fragments import (
    Encoding,
    FragmentWriter,
    Plan,
    finished,
    fragment_limit,
    plan_block,
    unseen_rows,
    written_sizes,
)
from diet_ray.logs.quality import check_no_block_is_empty, check_rows
from diet_ray.logs.sources import LogsError, Part, Source, open_source
from diet_ray.logs.staged_log import StagedLog, staged_log, total
from diet_ray.logs.staging import (
    QUARANTINE,
    STAGING,
    STAGING_FORMAT,
    StagedFile,
    Stager,
    Window,
    is_staged,
    read_ledger,
)
from diet_ray.progress import byte_size, phase
from diet_ray.runtime import one_task_each, plain_errors

logger = logging.getLogger("diet_ray")

LAST_ROLES: dict[str, Role] = {
    "subsequent": "subsequent",
    "validation": "validation",
    "test": "test",
}
# Blocks, of the last roles, that add nothing to a vocabulary.
JUDGING = ("validation", "test")
# What may change without changing a block.
NOT_DETERMINING = ("path", "bad_rows_limit")


@dataclass(frozen=True)
class _Work:
    """What the steps of one preparation share."""

    source: Source
    logs: LogsConfig
    uri: str
    windows: tuple[Window, ...]


def prepare(config: RunConfig) -> Blocks:
    """The encoded blocks of the configured log; made now unless they are published already.

    Needs a connected Ray. Warns of fields and tasks that cannot help. Raises LogsError,
    StorageError before long work where that is possible.
    """
    work = _open(config)
    fingerprint = _fingerprint(config, work.source)
    if published(work.uri):
        blocks = _open_published(work.uri, fingerprint)
    else:
        blocks = _publish(work, fingerprint)
    for doubt in doubts(blocks):
        logger.warning("warning: %s", doubt)
    return blocks


def _publish(work: _Work, fingerprint: str) -> Blocks:
    _begin(work, fingerprint)
    staged = _stage(work)
    check_rows(work.logs, work.uri, staged)
    check_no_block_is_empty(work.logs, staged)
    extended = _extend(work, staged)
    vocabulary_sizes = _sizes(work, extended)
    plans = _plan(work, staged)
    indexes = {field: vocabulary.index for field, vocabulary in extended.items()}
    unseen = _write(work, plans, staged.files, _known(work, vocabulary_sizes), indexes)
    blocks = Blocks(
        uri=work.uri,
        fields=work.source.fields,
        tasks=work.source.tasks,
        blocks=_describe(work, plans, staged, vocabulary_sizes, unseen),
        row_group_rows=work.logs.row_group_rows,
        fingerprint=fingerprint,
        source_bytes=work.source.source_bytes(),
        quarantined=staged.quarantined,
        outside_intervals=staged.outside,
    )
    blocks.save()
    storage.remove(storage.join(work.uri, STAGING))
    return blocks


def _open(config: RunConfig) -> _Work:
    """Checked, and with places that do not depend on a worker's working folder."""
    logs = config.raw_logs
    if logs.path:
        logs = logs.model_copy(update={"path": storage.absolute(logs.path)})
    windows = (Window(n, *i.bounds_ms(logs.timezone)) for n, i in logs.intervals.named())
    source = open_source(logs, config.seed)
    return _Work(source, logs, storage.absolute(config.place("blocks")), tuple(windows))


def _fingerprint(config: RunConfig, source: Source) -> str:
    """Of everything that determines the blocks' bytes."""
    logs = config.determining("logs")["logs"]
    told = {key: value for key, value in logs.items() if key not in NOT_DETERMINING}
    if told["table"] and told["table"]["format"] != "csv":
        del told["table"]["delimiter"]
    if logs["most_rows"] is None:
        del told["most_rows"]  # blocks from before there was this key
    text = json.dumps([FORMAT, told, source.fingerprint()], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _open_published(uri: str, fingerprint: str) -> Blocks:
    blocks = open_blocks(uri)
    if blocks.fingerprint != fingerprint:
        raise LogsError(
            f"{uri}: holds the blocks of another log or configuration, or of another version's "
            f"defaults (fingerprint {blocks.fingerprint}, this run's is {fingerprint}); set "
            "another output, or remove the folder to prepare anew"
        )
    check_whole(blocks)
    storage.remove(storage.join(uri, STAGING))
    logger.info("blocks are published already: %s", uri)
    return blocks


def _begin(work: _Work, fingerprint: str) -> None:
    """Keep unfinished work for the same log and configuration, clear away any other."""
    uri = work.uri
    storage.check_writable(uri)
    place = storage.join(uri, STAGING, "run.json")
    # What is staged belongs to the parts that the log was cut into.
    parts = hashlib.blake2b(repr(work.source.parts()).encode(), digest_size=8).hexdigest()
    begun = {"fingerprint": fingerprint, "parts": parts, "staging": STAGING_FORMAT}
    if storage.exists(place) and storage.read_json(place) == begun:
        logger.info("continuing an interrupted preparation: %s", uri)
        return
    names = [window.block for window in work.windows]
    stale = [name for name in storage.list_folders(uri) if name.startswith("historical-")]
    for name in {*names, *stale, STAGING, QUARANTINE, "vocabulary"}:
        storage.remove(storage.join(uri, name))
    storage.write_json(place, begun)


def _stage(work: _Work) -> StagedLog:
    numbers = range(len(work.source.parts()))
    waiting = [number for number in numbers if not is_staged(work.uri, number)]
    with phase("checking and staging the log", len(numbers), "parts") as progress:
        progress.skip(len(numbers) - len(waiting))
        if waiting:
            shared = _Shared(ray.remote(_load_shared).remote(work.source))
            dataset = one_task_each([{"part": number} for number in waiting])
            for _ in _results(dataset.map(_stage_one, fn_args=(work, work.source.parts(), shared))):
                progress.advance()
        return staged_log(read_ledger(work.uri, number) for number in numbers)


class _Shared:
    """Carries an object reference to tasks unresolved, so that each maps the one copy."""

    def __init__(self, reference: ray.ObjectRef) -> None:
        self.reference = reference


def _load_shared(source: Source) -> Any:
    return source.load_shared()


def _stage_one(
    row: dict[str, Any], work: _Work, parts: list[Part], shared: _Shared
) -> dict[str, Any]:
    number = int(row["part"])
    stager = Stager(work.source, parts[number], number, work.uri, work.windows)
    return {"rows": stager.stage(ray.get(shared.reference)).rows}


def _results(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A pipeline's rows; an error of ours within a task comes out as it was raised."""
    with plain_errors():
        yield from dataset.iter_rows()


def _extend(work: _Work, staged: StagedLog) -> dict[str, Extended]:
    """field -> its vocabulary; hashed fields have none."""
    growing = [window.block for window in work.windows if window.block not in JUDGING]
    fields = [field for field in work.source.fields if field not in work.logs.hash_buckets]
    return extend_vocabularies(work.uri, fields, growing, staged)


def _sizes(work: _Work, extended: dict[str, Extended]) -> dict[str, dict[str, int]]:
    """block -> field -> number of ids, with id 0."""
    sizes: dict[str, dict[str, int]] = {}
    for number, window in enumerate(work.windows):
        sizes[window.block] = {}
        for field in work.source.fields:
            if field in extended:
                after = extended[field].sizes
                sizes[window.block][field] = after[min(number, len(after) - 1)]
            else:
                sizes[window.block][field] = work.logs.hash_buckets[field] + 1
    return sizes


def _plan(work: _Work, staged: StagedLog) -> list[Plan]:
    plans: list[Plan] = []
    for window in work.windows:
        histogram = staged.histograms[window.block]
        first = plans[-1].first_row_id + plans[-1].rows if plans else 0
        most = fragment_limit(work.logs, int(histogram.sum()))
        plans += plan_block(window, histogram, most, first)
    return plans


def _known(work: _Work, vocabulary_sizes: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """block -> field -> ids that the historical blocks before it hold; hashed fields have none."""
    known: dict[str, dict[str, int]] = {}
    history: dict[str, int] = {}
    for name, after in vocabulary_sizes.items():
        known[name] = history
        if name not in LAST_ROLES:
            history = {f: count for f, count in after.items() if f not in work.logs.hash_buckets}
    return known


def _write(
    work: _Work,
    plans: list[Plan],
    files: list[StagedFile],
    known: dict[str, dict[str, int]],
    indexes: dict[str, SharedIndex],
) -> dict[str, dict[str, int]]:
    """Path of a fragment -> field -> rows whose value earlier history lacks."""
    there = written_sizes(plans, work.uri)
    waiting = [plan for plan in plans if plan.path not in there]
    unseen = {plan.path: unseen_rows(plan, work.uri) for plan in plans if plan.path in there}
    encoding = Encoding(
        uri=work.uri,
        fields=work.source.fields,
        tasks=work.source.tasks,
        row_group_rows=work.logs.row_group_rows,
    )
    with phase("writing encoded blocks", sum(plan.rows for plan in plans)) as progress:
        progress.skip(sum(plan.rows for plan in set(plans) - set(waiting)))
        if waiting:
            arguments = (encoding, files, known, indexes, work.logs.hash_buckets)
            dataset = one_task_each([asdict(plan) for plan in waiting])
            for written in _results(dataset.map(_write_one, fn_args=arguments)):
                unseen[written["path"]] = json.loads(written["unseen"])
                progress.advance(int(written["rows"]))
    return unseen


def _write_one(
    row: dict[str, Any],
    encoding: Encoding,
    files: list[StagedFile],
    known: dict[str, dict[str, int]],
    indexes: dict[str, SharedIndex],
    hash_buckets: dict[str, int],
) -> dict[str, Any]:
    encoder = Encoder({field: index.open() for field, index in indexes.items()}, hash_buckets)
    plan = Plan(**row)
    unseen = FragmentWriter(encoding, files, known, encoder).write(plan)
    return {"path": plan.path, "rows": plan.rows, "unseen": json.dumps(unseen)}


def _describe(
    work: _Work,
    plans: list[Plan],
    staged: StagedLog,
    vocabulary_sizes: dict[str, dict[str, int]],
    unseen: dict[str, dict[str, int]],
) -> tuple[Block, ...]:
    blocks, sizes = [], written_sizes(plans, work.uri)
    for name, interval in work.logs.intervals.named():
        own = [plan for plan in plans if plan.block == name]
        rows = sum(plan.rows for plan in own)
        ones = staged.label_sums[name]
        unseen_values = total(unseen[plan.path] for plan in own)
        blocks.append(
            Block(
                name=name,
                role=LAST_ROLES.get(name, "historical"),
                interval=str(interval),
                rows=rows,
                vocabulary_sizes=vocabulary_sizes[name],
                label_rates={task: ones[task] / rows for task in work.source.tasks},
                fragments=tuple(
                    finished(p, sizes.get(p.path, 0), work.logs.row_group_rows) for p in own
                ),
                unseen={field: count / rows for field, count in unseen_values.items()},
            )
        )
    return tuple(blocks)


def summarise(blocks: Blocks) -> list[str]:
    """A short table of what was prepared, for people."""
    lines = [f"{'block':<14} {'rows':>12} {'ids':>10}  " + "  ".join(blocks.tasks)]
    for block in blocks.blocks:
        rates = "  ".join(f"{block.label_rates[t]:>{max(len(t), 6)}.4f}" for t in blocks.tasks)
        ids = sum(block.vocabulary_sizes.values())
        lines.append(f"{block.name:<14} {block.rows:>12,} {ids:>10,}  {rates}")
    last = blocks.blocks[-1].vocabulary_sizes
    lines.append("ids per field: " + ", ".join(f"{f} {n:,}" for f, n in last.items()))
    lines += unseen_table(blocks)
    for reason, count in blocks.quarantined.items():
        lines.append(f"quarantined: {count:,} rows, {reason}")
    lines.append(f"outside all intervals: {blocks.outside_intervals:,} rows")
    size = sum(f.bytes for b in blocks.blocks for f in b.fragments)
    raw = f", raw log {byte_size(blocks.source_bytes)}" if blocks.source_bytes else ""
    lines.append(f"{blocks.uri}: {byte_size(size)} encoded{raw}")
    return lines
