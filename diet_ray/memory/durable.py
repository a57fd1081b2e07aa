"""Durable steps of a stage's memory: what a restarted server goes on from.

Layout of the folder: ``step=<s>.json`` names the files that lead from the stage's start to the
memory after outer step s, with their SHA-256; they are applied in the order of their names; step 0
names none. A file,
``changes-<s>-<first>-<end>.safetensors``, holds what one server changed of rows first..end since
the durable step before, or, now and then, all that it has learned so far; the earlier files are
not needed then. So a durable step costs what changed, whatever the memory's size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from diet_ray import documents, storage, tensor_files
from diet_ray.memory.state import Changes
from diet_ray.memory.update import Learned

KEPT = 2
"""Durable steps that are kept: the last, and the one before it, which a server that starts again
while a step is being saved may have found to be the last."""


@dataclass(frozen=True)
class DurableStep:
    """What one says about itself."""

    step: int
    files: dict[str, str]  # name to SHA-256; applied in the order of their names
    norms: tuple[float, ...] = ()  # of the clipping, the last ones
    dropped: int = 0  # shards that were not finite, of all steps so far


def write_changes(folder: str, step: int, first: int, end: int, changes: Changes) -> dict[str, str]:
    """Save a server's changes of rows first..end (its own rows count from 0); returns the file's
    name and SHA-256, nothing if there are none."""
    if not len(changes.rows):
        return {}
    arrays = {"rows": changes.rows + first}
    for name in ("labels", "deltas"):
        learned = getattr(changes, name)
        if learned is not None:
            arrays |= {f"{name}.{f.name}": getattr(learned, f.name) for f in fields(Learned)}
    name = f"changes-{step:06d}-{first:012d}-{end:012d}.safetensors"
    return {name: tensor_files.write(storage.join(folder, name), arrays)}


def read_changes(folder: str, name: str, sha256: str, first: int, end: int) -> Changes | None:
    """What a file says of rows first..end, counted from `first`, whoever wrote it.

    Raises StorageError if it is missing, or not the one with this SHA-256.
    """
    low, high = (int(n) for n in name.removesuffix(".safetensors").split("-")[2:])
    if high <= first or low >= end:
        return None
    uri = storage.join(folder, name)
    try:
        arrays = tensor_files.read(uri, _anew(folder), sha256)
    except FileNotFoundError:
        raise storage.StorageError(f"{uri}: no such file; {_anew(folder)}") from None
    inside = slice(*np.searchsorted(arrays["rows"], (first, end)))

    def learned(of: str) -> Learned | None:
        if f"{of}.values" not in arrays:
            return None
        return Learned(*(arrays[f"{of}.{f.name}"][inside] for f in fields(Learned)))

    labels = learned("labels")
    assert labels is not None
    return Changes(arrays["rows"][inside] - first, labels, learned("deltas"))


def durable_steps(folder: str) -> list[int]:
    """Steps of a stage whose state is whole, ascending."""
    return _steps(_names(folder))


def _names(folder: str) -> list[str]:
    return [uri.rsplit("/", 1)[1] for uri in storage.list_files(folder)]


def _steps(names: list[str]) -> list[int]:
    manifests = (name for name in names if name.endswith(".json"))
    return sorted(int(n.removeprefix("step=").removesuffix(".json")) for n in manifests)


def publish_step(folder: str, found: DurableStep) -> None:
    """Make a step durable; its files must be there. What no kept step needs is removed."""
    content = {"files": found.files, "norms": found.norms, "dropped": found.dropped}
    documents.write_sealed(_manifest(folder, found.step), content)
    names = _names(folder)  # once: on an object store each listing is a request, and a slow one
    steps = _steps(names)
    for step in steps[:-KEPT]:
        storage.remove(_manifest(folder, step))
    needed = {name for step in steps[-KEPT:] for name in read_step(folder, step).files}
    for name in names:
        if name.endswith(".safetensors") and name not in needed:
            storage.remove(storage.join(folder, name))


def read_step(folder: str, step: int) -> DurableStep:
    """A durable step's own account. Raises StorageError."""
    uri, remedy = _manifest(folder, step), _anew(folder)
    content = documents.read_sealed(uri, remedy)
    return documents.parsed({**content, "step": step}, DurableStep, uri, remedy)


def _anew(folder: str) -> str:
    """The remedy for a stage's work, whose files follow from each other."""
    return f"remove the folder {folder} and run again: the stage is begun anew"


def _manifest(folder: str, step: int) -> str:
    return storage.join(folder, f"step={step:06d}.json")
