"""A table beside the log, such as the users' features: loaded once, looked up by id.

Its rows are sorted by id and found by binary search, so that all reads on a machine share one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.source import LogsError, Part
from diet_ray.logs.sources.values import as_integers


@dataclass(frozen=True)
class SideTable:
    """Features by id. keys: (n,) int64 ascending; columns: n rows, dictionary-encoded text."""

    keys: np.ndarray
    columns: pa.Table

    def look_up(self, wanted: pa.ChunkedArray) -> pa.Table:
        """The features of these ids (int64); null where an id is null or not in the table."""
        known = wanted.is_valid().to_numpy()
        keys = wanted.fill_null(0).to_numpy()
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        found = known & (self.keys[at] == keys) if len(self.keys) else np.zeros(len(keys), bool)
        return self.columns.take(pa.array(at, mask=~found))


def load_side_table(
    files: Sequence[str], key: str, fields: Sequence[str], bad_rows_limit: float
) -> SideTable:
    """Read the columns `fields` of CSV files by the id in column `key`; an id's first row counts.

    Raises LogsError if more than `bad_rows_limit` of the rows are malformed.
    """
    types: dict[str, pa.DataType] = {f: pa.dictionary(pa.int32(), pa.string()) for f in fields}
    pieces, malformed = [], 0
    for uri in files:
        for piece, bad in csv_files.read(Part(uri), {**types, key: pa.string()}):
            pieces.append(piece)
            malformed += len(bad)
    table = pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    if malformed > bad_rows_limit * (table.num_rows + malformed):
        raise LogsError(
            f"{', '.join(files)}: {malformed} rows with a {csv_files.WRONG_COLUMNS}, more than "
            "logs.bad_rows_limit allows; repair the file or raise the limit"
        )
    table = table.append_column("key", as_integers(table[key]))
    table = table.filter(table["key"].is_valid())
    keys, first = np.unique(table["key"].to_numpy(), return_index=True)
    return SideTable(keys, table.select(list(fields)).take(first))
