"""The ledger: what is written is read again, and only if it belongs to this scan."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diet_ray import storage
from diet_ray.logs.blocks import Fragment
from diet_ray.scoring.ledger import (
    Entry,
    merged_sketch,
    read_entries,
    side_car_uri,
    sketch,
    write_entry,
)

K = 200
FRAGMENTS = {
    f"historical-1/fragment-{n:05d}.parquet": Fragment(
        f"historical-1/fragment-{n:05d}.parquet", 10, 10 * n, 1, 99
    )
    for n in range(4)
}
KEYS = {path: f"key of {path}" for path in FRAGMENTS}


SIDE_CAR = b"scores"


def entry(path: str, scores: dict[int, np.ndarray]) -> Entry:
    return Entry(
        fragment=path,
        key=KEYS[path],
        rows=sum(map(len, scores.values())),
        group_rows={group: len(values) for group, values in scores.items()},
        group_sketches={group: sketch(values, K) for group, values in scores.items()},
        side_car_bytes=len(SIDE_CAR),
        side_car_sha256=hashlib.sha256(SIDE_CAR).hexdigest(),
    )


def publish(uri: str, made: Entry) -> None:
    """As a scan does: the side-car, then its entry."""
    fragment = FRAGMENTS[made.fragment]
    storage.write_bytes(side_car_uri(uri, fragment), SIDE_CAR)
    write_entry(uri, fragment, made)


def drawn(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def test_round_trip_in_the_order_of_fragments(tmp_path: Path) -> None:
    uri = str(tmp_path)
    written = [entry(path, {0: drawn(n, 5), 3: drawn(9, 2)}) for n, path in enumerate(FRAGMENTS)]
    for made in reversed(written):
        publish(uri, made)
    assert read_entries(uri, FRAGMENTS, KEYS) == written


def test_an_entry_with_another_key_does_not_count(tmp_path: Path) -> None:
    uri, (first, second, *_) = str(tmp_path), FRAGMENTS
    for path in (first, second):
        publish(uri, entry(path, {0: drawn(1, 5)}))
    publish(uri, replace(entry(first, {0: drawn(1, 5)}), key="other"))
    assert [found.fragment for found in read_entries(uri, FRAGMENTS, KEYS)] == [second]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_rows(content: bytes) -> bytes:
    stored = json.loads(content)
    del stored["rows"]
    return json.dumps(stored).encode()


def with_another_key(content: bytes) -> bytes:
    stored = json.loads(content)
    stored["new"] = 1
    return json.dumps(stored).encode()


def without_seal(content: bytes) -> bytes:
    stored = json.loads(content)
    del stored["seal"]
    return json.dumps(stored).encode()


def with_another_count(content: bytes) -> bytes:
    return content.replace(b'"rows": 7', b'"rows": 8')


def with_another_sketch(content: bytes) -> bytes:
    """One that the sketches' library would not survive."""
    stored = json.loads(content)
    stored["group_sketches"]["0"] = base64.b64encode(b"\x05" * 100).decode()
    return json.dumps(stored).encode()


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        without_rows,
        with_another_key,
        without_seal,
        with_another_count,
        with_another_sketch,
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"",
    ],
)
def test_a_damaged_entry_does_not_count(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    uri, (first, second, *_) = str(tmp_path), FRAGMENTS
    for path in (first, second):
        publish(uri, entry(path, {0: drawn(1, 5), 3: drawn(2, 2)}))
    file = next((tmp_path / "ledger").glob("*00000*"))
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level("WARNING", "diet_ray"):
        assert [found.fragment for found in read_entries(uri, FRAGMENTS, KEYS)] == [second]
    assert f"{file}: damaged; its fragment is scored again" in caplog.text


@pytest.mark.parametrize("left", [None, SIDE_CAR[:-1]], ids=["missing", "truncated"])
def test_an_entry_whose_side_car_is_not_whole_does_not_count(
    tmp_path: Path, left: bytes | None
) -> None:
    uri, (first, second, *_) = str(tmp_path), FRAGMENTS
    for path in (first, second):
        publish(uri, entry(path, {0: drawn(1, 5)}))
    side_car = tmp_path / first
    side_car.unlink() if left is None else side_car.write_bytes(left)
    assert [found.fragment for found in read_entries(uri, FRAGMENTS, KEYS)] == [second]


def test_an_empty_ledger_has_no_entries(tmp_path: Path) -> None:
    assert read_entries(str(tmp_path), FRAGMENTS, KEYS) == []


def test_the_merged_sketch_knows_every_quantile_within_its_error() -> None:
    parts = [drawn(n, 3_000) for n in range(4)]
    entries = [
        entry(path, {1: part, 2: part + 100}) for path, part in zip(FRAGMENTS, parts, strict=True)
    ]
    scores, merged = np.sort(np.concatenate(parts)), merged_sketch(entries, 1)
    assert merged.n == 12_000
    error = merged.normalized_rank_error(False)
    assert error < 0.02
    for rank in np.linspace(0.05, 0.95, 19):
        found = np.searchsorted(scores, merged.get_quantile(rank)) / len(scores)
        assert abs(found - rank) < 2 * error


def test_a_group_that_only_some_fragments_hold() -> None:
    first, second, *_ = FRAGMENTS
    entries = [entry(first, {0: drawn(0, 7)}), entry(second, {5: drawn(1, 6)})]
    assert merged_sketch(entries, 5).n == 6
    with pytest.raises(KeyError, match="no row of label group 7"):
        merged_sketch(entries, 7)
