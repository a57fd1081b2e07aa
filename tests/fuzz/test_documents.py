"""Damaged manifests, ledgers and descriptions of ours: what they hold, or an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from diet_ray import storage
from diet_ray.documents import SEAL
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Fragment, check_whole, open_blocks
from diet_ray.logs.staging import read_ledger
from diet_ray.memory import artifact
from diet_ray.memory.durable import DurableStep, publish_step, read_step
from diet_ray.scoring.ledger import Entry, read_entries, side_car_uri, sketch, write_entry
from diet_ray.training.reference import describe_reference, load_reference
from tests.fuzz import test_logs as fuzzed_logs
from tests.fuzz.damage import changed_trees, damages, fuzzed, only_our_errors
from tests.fuzz.published import Published, publish

FRAGMENT = Fragment("historical-1/fragment-00000.parquet", 3, 0, 1, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"))


def read_scan(uri: str) -> object:
    return read_entries(uri, {FRAGMENT.path: FRAGMENT}, {FRAGMENT.path: "key"})


@pytest.fixture(scope="module")
def documents(
    published: Published, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[Callable[[], object]]]]:
    """Kind to a document and what reads it."""
    folder = tmp_path_factory.mktemp("documents")
    log = folder / "a.csv"
    log.write_bytes(fuzzed_logs.WHOLE["csv"])
    staged = str(folder / "staged")
    fuzzed_logs.staged_rows(fuzzed_logs.config(log, "csv"), Path(staged))
    steps, scan = str(folder / "steps"), str(folder / "scan")
    publish_step(steps, DurableStep(3, {"a": "0" * 64, "b": "1" * 64}, (0.5,)))
    storage.write_bytes(side_car_uri(scan, FRAGMENT), b"x")
    scores = sketch(np.ones(3, np.float32), 8)
    write_entry(scan, FRAGMENT, Entry(FRAGMENT.path, "key", 3, {0: 3}, {0: scores}, 1, "0" * 64))
    blocks, stage, phi = published
    return {
        "blocks": (
            Path(blocks, "manifest.json"),
            [lambda: check_whole(open_blocks(blocks))],
        ),
        "stage": (
            Path(stage, "_manifest.json"),
            [
                lambda: artifact.read(stage),
                lambda: artifact.describe(stage).log_rows,
                lambda: artifact.check_content(stage),
                lambda: artifact.read_ranking_data(stage),
            ],
        ),
        "reference": (
            Path(phi, "reference.json"),
            [lambda: describe_reference(phi), lambda: load_reference(phi)],
        ),
        "part": (
            Path(staged, "staging", "part-00000", "ledger.json"),
            [lambda: read_ledger(staged, 0)],
        ),
        "step": (Path(steps, "step=000003.json"), [lambda: read_step(steps, 3)]),
        "entry": (next(Path(scan, "ledger").iterdir()), [lambda: read_scan(scan)]),
    }


MOST_DIGITS = 200
KINDS = ["blocks", "stage", "reference", "part", "step", "entry"]


def check_all(path: Path, content: bytes, readers: list[Callable[[], object]]) -> None:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        for read in readers:
            with only_our_errors():
                read()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_documents_are_read(documents: dict[str, Any], kind: str) -> None:
    for read in documents[kind][1]:
        read()


@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(damage=damages)
def test_damaged_bytes(documents: dict[str, Any], kind: str, damage: Any) -> None:
    path, readers = documents[kind]
    check_all(path, damage(path.read_bytes()), readers)


@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_digit_is_taken(documents: dict[str, Any], kind: str) -> None:
    """The first reader refuses it, or, of a scan's entry, finds none: it is scored again."""
    path, (read, *_) = documents[kind]
    whole = path.read_text()
    digits = [place for place, letter in enumerate(whole) if letter in "0123456789"]
    try:
        for place in digits[:: -(-len(digits) // MOST_DIGITS)]:
            other = "7" if whole[place] != "7" else "3"
            changed = whole[:place] + other + whole[place + 1 :]
            if json.loads(changed) == json.loads(whole):
                continue  # the last digit of a long number says nothing
            path.write_text(changed)
            try:
                assert read() == [], f"{whole[:place]}->{other}<-"
            except UserError:
                continue
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_other_values(documents: dict[str, Any], kind: str) -> None:
    path, readers = documents[kind]

    tree = json.loads(path.read_bytes())
    tree.pop(SEAL, None)  # else it would be all that is looked at

    @fuzzed
    @given(tree=changed_trees(tree))
    def check(tree: Any) -> None:
        check_all(path, json.dumps(tree).encode(), readers)

    check()
