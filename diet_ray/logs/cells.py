"""Arrow files cut into cells, so that a reader takes only those that it needs.

Protocol: a cell is some rows and a key, which is anything that JSON can say. All keys of a file
stand in its schema's metadata: to open a file is to know its cells, and each is read by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from diet_ray import storage

KEYS = b"cells"  # of the schema's metadata
Cell = tuple[list[Any], pa.Table]


def write_cells(uri: str, cells: Sequence[Cell]) -> None:
    """Publish a file of at least one cell; all have the same columns."""
    keys = json.dumps([key for key, _ in cells])
    schema = cells[0][1].schema.with_metadata({KEYS: keys})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for _, rows in cells:
            columns = [column.combine_chunks() for column in rows.columns]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    storage.write_bytes(uri, memoryview(sink.getvalue()))


def read_cells(uri: str, wanted: Callable[[list[Any]], bool]) -> list[Cell]:
    """The cells whose key is wanted, in their order. Raises StorageError for a damaged file."""
    fs, path = storage.filesystem(uri)
    options = pa.ipc.IpcReadOptions(use_threads=False)
    try:
        with fs.open_input_file(path) as stream, pa.ipc.open_file(stream, options=options) as file:
            keys = json.loads(file.schema.metadata[KEYS])
            return [
                (key, pa.Table.from_batches([file.get_batch(number)]).replace_schema_metadata())
                for number, key in enumerate(keys)
                if wanted(key)
            ]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise storage.StorageError(
            f"{uri}: not a whole Arrow file of ours ({error}); remove the blocks "
            "folder and prepare the log again"
        ) from None
