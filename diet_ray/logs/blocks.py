"""Encoded time blocks on disk: the manifest that describes them and how their rows are read.

Layout below a blocks folder::

    manifest.json                        published last; what it names is whole
    <block>/fragment-00000.parquet       row_id, time_ms, one int32 per field, one uint8 per task;
                                         in its metadata a checksum of each row group
    vocabulary/<field>.parquet           value, id, and the block that added it

Rows are in time order over all fragments of a block and all blocks of a log; `row_id` counts
them. An id is below the block's vocabulary size of its field; id 0 is "not in the vocabulary".
A later block's vocabulary only appends to an earlier one's.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import accumulate, islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from diet_ray import documents, storage, telemetry
from diet_ray.errors import UserError

FORMAT = 1
ROW_ID, TIME_MS = "row_id", "time_ms"
CHECKSUMS = b"row_group_crc32"  # key of a fragment's metadata
_CHECKSUMS = TypeAdapter(list[int])
CACHED_ROWS = 4_096  # with tens of fields they fit a core's cache

Role = Literal["historical", "subsequent", "validation", "test"]


class BlocksError(UserError, ValueError):
    """Blocks that cannot be used; the message names file, field, value and remedy."""


@dataclass(frozen=True)
class Fragment:
    """One Parquet file of a block, the unit of a scan."""

    path: str  # relative to the blocks folder
    rows: int
    first_row_id: int
    row_groups: int
    bytes: int


@dataclass(frozen=True)
class Block:
    """One time interval of the log."""

    name: str
    role: Role
    interval: str
    rows: int
    vocabulary_sizes: dict[str, int]  # field -> number of ids, with id 0
    label_rates: dict[str, float]  # task -> share of ones
    fragments: tuple[Fragment, ...] = field(default=())
    # field -> share of rows whose value no historical block before holds; hashed fields have none,
    # nor has the first block
    unseen: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Rows of a block. n rows, F fields, K tasks."""

    row_ids: np.ndarray  # (n,) int64
    ids: np.ndarray  # (n, F) int64
    labels: np.ndarray  # (n, K) float32, 0 or 1

    def __len__(self) -> int:
        return len(self.row_ids)

    def take(self, index: Any) -> Rows:
        """The rows at `index` (a slice, a mask or positions)."""
        return Rows(self.row_ids[index], self.ids[index], self.labels[index])

    @staticmethod
    def concatenate(parts: Sequence[Rows]) -> Rows:
        """All rows of `parts`, in order; at least one part."""
        return Rows(
            np.concatenate([p.row_ids for p in parts]),
            np.concatenate([p.ids for p in parts]),
            np.concatenate([p.labels for p in parts]),
        )


@dataclass(frozen=True)
class Blocks:
    """All blocks of a prepared log, as its manifest states them."""

    uri: str
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    blocks: tuple[Block, ...]
    row_group_rows: int
    fingerprint: str  # of the source and of the configuration that encoded it
    source_bytes: int  # of the raw log; 0 where rows are generated
    quarantined: dict[str, int]  # reason -> rows that could not be used
    outside_intervals: int  # rows that no interval asks for

    @property
    def historical(self) -> tuple[Block, ...]:
        return tuple(b for b in self.blocks if b.role == "historical")

    @property
    def historical_rows(self) -> int:
        return sum(b.rows for b in self.historical)

    def block(self, name: str) -> Block:
        """The block called `name`. Raises BlocksError with the known names."""
        for block in self.blocks:
            if block.name == name:
                return block
        known = ", ".join(b.name for b in self.blocks)
        raise BlocksError(f"{self.uri}: no block {name!r}; known: {known}")

    def save(self) -> None:
        """Publish the manifest; everything it names must be there already."""
        content = {key: value for key, value in asdict(self).items() if key != "uri"}
        documents.write_sealed(_manifest(self.uri), {"format": FORMAT, **content})


def _manifest(uri: str) -> str:
    return storage.join(uri, "manifest.json")


def published(uri: str) -> bool:
    """Whether a blocks folder is whole."""
    return storage.exists(_manifest(uri))


def open_blocks(uri: str) -> Blocks:
    """Read a blocks folder's manifest. Raises FileNotFoundError, BlocksError, StorageError."""
    manifest = _manifest(uri)
    content = documents.read_sealed(manifest, _anew(uri))
    if content.pop("format", None) != FORMAT:
        raise BlocksError(f"{manifest}: format is not {FORMAT}; {_anew(uri)}")
    return documents.parsed({**content, "uri": uri}, Blocks, manifest, _anew(uri))


def _anew(uri: str) -> str:
    """The remedy for a blocks folder: what lies beside a damaged file belongs to it."""
    return f"remove the folder {uri} and prepare the log again, or bring back a copy of the file"


def check_whole(blocks: Blocks) -> None:
    """Whether all fragments are there and of their size. Raises BlocksError."""
    for block in blocks.blocks:
        found = storage.sizes(storage.join(blocks.uri, block.name))
        for fragment in block.fragments:
            uri, held = storage.join(blocks.uri, fragment.path), found.get(_name(fragment), 0)
            if held != fragment.bytes:
                raise BlocksError(
                    f"{uri}: {'missing' if _name(fragment) not in found else f'{held} bytes'}, "
                    f"the manifest says {fragment.bytes} bytes; {_anew(blocks.uri)}"
                )


def _name(fragment: Fragment) -> str:
    return fragment.path.rpartition("/")[2]


def write_fragment(uri: str, table: pa.Table, row_group_rows: int) -> None:
    """Publish a fragment's file. table: row_id, time_ms, one column per field, one per task.

    Its metadata has the CRC-32 of the rows of each row group. Parquet has one for the content of a
    page, and none for a page's header.
    """
    columns = [table[name].to_numpy() for name in table.column_names if name != TIME_MS]
    starts = range(0, table.num_rows, row_group_rows)
    checksums = [_checksum(columns, slice(start, start + row_group_rows)) for start in starts]
    metadata = {**(table.schema.metadata or {}), CHECKSUMS: json.dumps(checksums)}
    storage.write_parquet(uri, table.replace_schema_metadata(metadata), row_group_rows)


def _checksum(columns: Sequence[np.ndarray], rows: slice) -> int:
    """CRC-32 of these rows, one column after another."""
    checksum = 0
    for column in columns:
        checksum = zlib.crc32(np.ascontiguousarray(column[rows]).data, checksum)
    return checksum


def read_fragment(
    blocks: Blocks, block: Block, fragment: Fragment, row_groups: Sequence[int] | None = None
) -> Rows:
    """Rows of a fragment, or of some of its row groups.

    Raises StorageError for a truncated file, BlocksError for a missing one, a missing column, other
    rows than the manifest's or than were written, or an id outside the block's vocabulary.
    """
    uri, anew = storage.join(blocks.uri, fragment.path), _anew(blocks.uri)
    groups = list(range(fragment.row_groups) if row_groups is None else row_groups)
    names = [ROW_ID, *blocks.fields, *blocks.tasks]
    try:
        with storage.open_parquet(uri, anew) as file:
            _check_schema(file, blocks, fragment, uri)
            checksums = _stated_checksums(file, uri, anew)
            table = file.read_row_groups(groups, names, use_threads=False)
    except FileNotFoundError:
        raise BlocksError(f"{uri}: no such file; {anew}") from None
    if fragment.row_groups:
        share = fragment.bytes * len(groups) // fragment.row_groups
        telemetry.READ_BYTES.add(share, of="blocks")
    columns = {name: table[name].to_numpy() for name in names}
    _check_rows(list(columns.values()), checksums, blocks, fragment, groups)
    _check_ids(table, block, uri, anew)
    return Rows(
        columns[ROW_ID],
        _side_by_side([columns[name] for name in blocks.fields], table.num_rows, np.int64),
        _side_by_side([columns[name] for name in blocks.tasks], table.num_rows, np.float32),
    )


def _check_rows(
    columns: Sequence[np.ndarray],
    checksums: Sequence[int],
    blocks: Blocks,
    fragment: Fragment,
    groups: Sequence[int],
) -> None:
    """Whether these are the rows that the manifest says of some row groups, and as they were
    written. columns: row ids first. Raises BlocksError."""
    uri, anew = storage.join(blocks.uri, fragment.path), _anew(blocks.uri)
    row_ids, length = columns[0], blocks.row_group_rows
    sizes = [min(length, fragment.rows - length * group) for group in groups]
    if len(row_ids) != sum(sizes):
        raise BlocksError(
            f"{uri}: {len(row_ids)} rows in {len(groups)} row groups, the manifest says "
            f"{sum(sizes)}; {anew}"
        )
    ends = accumulate(sizes)
    for group, size, end in zip(groups, sizes, ends, strict=True):
        found = _checksum(columns, slice(end - size, end))
        if checksums and found != checksums[group]:
            raise BlocksError(
                f"{uri}: damaged: the CRC-32 of row group {group} is {found}, its metadata says "
                f"{checksums[group]}; {anew}"
            )
    first = fragment.first_row_id + length * min(groups, default=0)
    if len(row_ids) and row_ids[0] != first:
        raise BlocksError(
            f"{uri}: begins with row {row_ids[0]}, the manifest says {first}, so it is another "
            f"fragment's file; {anew}"
        )


def _stated_checksums(file: pq.ParquetFile, uri: str, anew: str) -> list[int]:
    """Of a fragment's row groups; empty if it was written before there were any."""
    stated = (file.schema_arrow.metadata or {}).get(CHECKSUMS)
    if stated is None:
        return []
    try:
        checksums = _CHECKSUMS.validate_json(stated)
    except ValidationError:
        checksums = []
    if len(checksums) != file.metadata.num_row_groups:
        told = f"{CHECKSUMS.decode()} in its metadata is not a number for each row group"
        raise BlocksError(f"{uri}: damaged: {told}; {anew}")
    return checksums


def _check_schema(file: pq.ParquetFile, blocks: Blocks, fragment: Fragment, uri: str) -> None:
    """Whether a file has the columns and the rows that the manifest says. Raises BlocksError."""
    schema = file.schema_arrow
    for name in (ROW_ID, *blocks.fields, *blocks.tasks):
        count = schema.names.count(name)
        if count != 1:
            raise BlocksError(f"{uri}: {count or 'no'} column {name}; {_anew(blocks.uri)}")
        if not pa.types.is_integer(schema.field(name).type):
            kind = schema.field(name).type
            raise BlocksError(f"{uri}: column {name} holds {kind}; {_anew(blocks.uri)}")
    stated = (fragment.rows, fragment.row_groups)
    if (file.metadata.num_rows, file.metadata.num_row_groups) != stated:
        raise BlocksError(
            f"{uri}: {file.metadata.num_rows} rows in {file.metadata.num_row_groups} row groups, "
            f"the manifest says {stated[0]} in {stated[1]}; {_anew(blocks.uri)}"
        )


def _side_by_side(columns: Sequence[np.ndarray], length: int, dtype: type) -> np.ndarray:
    """Columns (length,) as one array (length, len(columns)).

    A stretch of rows after another: whole columns would pass through memory once per column.
    """
    together: np.ndarray = np.empty((length, len(columns)), dtype)
    for start in range(0, length, CACHED_ROWS):
        rows = slice(start, start + CACHED_ROWS)
        for number, column in enumerate(columns):
            together[rows, number] = column[rows]
    return together


def _check_ids(table: pa.Table, block: Block, uri: str, anew: str) -> None:
    for name, vocabulary_size in block.vocabulary_sizes.items():
        bounds = pc.min_max(table[name]).as_py()
        low, high = bounds["min"], bounds["max"]
        if low is not None and (low < 0 or high >= vocabulary_size):
            value = low if low < 0 else high
            raise BlocksError(
                f"{uri}: field {name}: id {value} is outside its vocabulary of "
                f"{vocabulary_size}; the file does not belong to this manifest: {anew}"
            )


def read_block(blocks: Blocks, block: Block) -> Rows:
    """All rows of a block in one process; for blocks that are known to fit."""
    return Rows.concatenate([read_fragment(blocks, block, f) for f in block.fragments])


def iterate_batches(
    blocks: Blocks, block: Block, batch_size: int, skipped_rows: int = 0
) -> Iterator[Rows]:
    """A block's rows in time order, `batch_size` at a time; only the last batch may be smaller.

    skipped_rows: of the block, from its start; whole fragments of them are not read. Holds two row
    groups, one of which a thread reads ahead, and one batch in memory.
    """
    waiting: list[Rows] = []
    count = 0
    for group in _row_groups(blocks, block, skipped_rows):
        waiting.append(group)
        count += len(group)
        if count < batch_size:
            continue
        rows = Rows.concatenate(waiting)
        whole = count - count % batch_size
        for start in range(0, whole, batch_size):
            yield rows.take(slice(start, start + batch_size))
        waiting, count = [rows.take(slice(whole, count))], count - whole
    if count:
        yield Rows.concatenate(waiting)


def _row_groups(blocks: Blocks, block: Block, skipped_rows: int) -> Iterator[Rows]:
    """The rows of each row group, the first ones left out, while a thread reads the next group."""
    fragments = list(block.fragments)
    while fragments and fragments[0].rows <= skipped_rows:
        skipped_rows -= fragments.pop(0).rows
    places = ((fragment, [g]) for fragment in fragments for g in range(fragment.row_groups))
    with ThreadPoolExecutor(1) as thread:
        reads = deque(thread.submit(read_fragment, blocks, block, *p) for p in islice(places, 1))
        while reads:
            reads.extend(thread.submit(read_fragment, blocks, block, *p) for p in islice(places, 1))
            rows = reads.popleft().result()
            yield rows.take(slice(skipped_rows, None))
            skipped_rows = max(skipped_rows - len(rows), 0)


def read_rows(blocks: Blocks, block: Block, row_ids: np.ndarray) -> Rows:
    """The rows with these ids, in the order asked for; reads only the row groups that hold them.

    row_ids: (m,) int64, each within the block. Raises BlocksError for an id outside it.
    """
    parts, found = [], 0
    for fragment in block.fragments:
        last = fragment.first_row_id + fragment.rows
        wanted = row_ids[(row_ids >= fragment.first_row_id) & (row_ids < last)]
        if len(wanted):
            wanted = np.sort(wanted)
            groups = np.unique((wanted - fragment.first_row_id) // blocks.row_group_rows)
            rows = read_fragment(blocks, block, fragment, groups.tolist())
            parts.append(rows.take(np.searchsorted(rows.row_ids, wanted)))
            found += len(wanted)
    if found != len(row_ids) or not parts:
        raise BlocksError(f"{blocks.uri}: block {block.name} lacks some of the rows asked for")
    rows = Rows.concatenate(parts)
    return rows.take(np.searchsorted(rows.row_ids, row_ids))
