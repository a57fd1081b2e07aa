"""The ledger of a scan: which fragments are scored, and what their scores look like.

One entry per fragment, keyed by the fragment's file, its size and time of change, and the
identity of the scoring; published after the fragment's side-car, so an entry means that the
side-car is whole. An entry carries a mergeable KLL sketch of the scores of every label group.

What damage leaves behind is no entry: one that its seal does not vouch for, or whose side-car is
gone or has another size. Its fragment is scored again.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from datasketches import kll_floats_sketch

from diet_ray import documents, progress, storage
from diet_ray.errors import StorageError
from diet_ray.logs.blocks import Fragment

LOOKS_AT_ONCE = 16
"""At files, for each of which a store wants a request."""


@dataclass(frozen=True)
class Entry:
    """One scored fragment."""

    fragment: str  # path of the fragment in the blocks folder
    key: str  # fingerprint of its file, and of the scoring
    rows: int  # scored rows; fewer than the fragment's if only a sample is scored
    group_rows: dict[int, int]
    group_sketches: dict[int, str]  # base64 of the serialised sketch
    side_car_bytes: int  # size of the side-car
    side_car_sha256: str  # of its content


def side_car_uri(scan_uri: str, fragment: Fragment) -> str:
    """Where a fragment's scores lie: row_id int64, group int32, score float32, in row order."""
    return storage.join(scan_uri, fragment.path)


def _entry_uri(scan_uri: str, fragment: Fragment) -> str:
    return storage.join(scan_uri, "ledger", fragment.path.replace("/", "_") + ".json")


def sketch(scores: np.ndarray, k: int) -> str:
    """A KLL sketch of float32 scores (n,), serialised."""
    quantiles = kll_floats_sketch(k)
    quantiles.update(scores)
    return base64.b64encode(quantiles.serialize()).decode()


def merged_sketch(entries: list[Entry], group: int) -> kll_floats_sketch:
    """The sketch of all scores of one label group."""
    merged: kll_floats_sketch | None = None
    for entry in entries:
        if group in entry.group_sketches:
            part = kll_floats_sketch.deserialize(base64.b64decode(entry.group_sketches[group]))
            if merged is None:
                merged = part
            else:
                merged.merge(part)
    if merged is None:
        raise KeyError(f"no row of label group {group} was scored")
    return merged


def write_entry(scan_uri: str, fragment: Fragment, entry: Entry) -> None:
    """Publish an entry; its side-car must be there already."""
    documents.write_sealed(_entry_uri(scan_uri, fragment), asdict(entry))


def read_entries(
    scan_uri: str, fragments: dict[str, Fragment], keys: dict[str, str]
) -> list[Entry]:
    """The whole entries whose key is the expected one and whose side-car is whole.

    In the order of `fragments` (path -> fragment).
    """

    def read(path: str) -> Entry | None:
        entry = _read_entry(_entry_uri(scan_uri, fragments[path]))
        if entry is None or entry.key != keys[path]:
            return None
        side_car = side_car_uri(scan_uri, fragments[path])
        if storage.size(side_car) != entry.side_car_bytes:
            progress.logger.warning("%s: missing or damaged; scored again", side_car)
            return None
        return entry

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        return [entry for entry in pool.map(read, fragments) if entry is not None]


def _read_entry(uri: str) -> Entry | None:
    try:
        # the sketches' library does not survive damaged bytes
        return documents.parsed(documents.read_sealed(uri, seal_required=True), Entry, uri)
    except FileNotFoundError:
        return None
    except StorageError:
        progress.logger.warning("%s: damaged; its fragment is scored again", uri)
        return None
