"""JSON files of our own, read back as the dataclasses that they were written from.

Protocol: whoever reads a manifest, a ledger or a description calls :func:`read_sealed`, compares
the format that it states, and takes its content from :func:`parsed`. So what a file may hold is
said once, by a dataclass, and what damage or another version left in it is told by file, field,
value and remedy, whoever reads it. What no other file vouches for is written by
:func:`write_sealed`, with a checksum of its own, so that no changed number is ever taken for one
of ours.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from diet_ray import storage
from diet_ray.errors import shown

T = TypeVar("T")

SEAL = "seal"
"""Key of the SHA-256 of all else in a file, as JSON with sorted keys."""
FORMER_SEAL = "sha256"
"""What the key was in version 0.5.0; a mapping under it is a file's own."""


def read_mapping(uri: str, remedy: str = storage.AGAIN) -> dict[str, Any]:
    """A JSON file that holds keys and values. Raises FileNotFoundError, StorageError."""
    content = storage.read_json(uri, remedy)
    if not isinstance(content, dict):
        raise storage.StorageError(f"{uri}: holds {shown(content)} instead of keys; {remedy}")
    return content


def write_sealed(uri: str, content: dict[str, Any]) -> None:
    """Publish a JSON file along with the checksum of its content."""
    storage.write_json(uri, {**content, SEAL: _seal(content)})


def read_sealed(
    uri: str, remedy: str = storage.AGAIN, *, seal_required: bool = False
) -> dict[str, Any]:
    """A mapping as it was written; one from before there were seals is taken as it is, unless its
    seal is required.

    Raises FileNotFoundError, StorageError.
    """
    content = read_mapping(uri, remedy)
    key = SEAL if SEAL in content else FORMER_SEAL
    stated = content.pop(key) if isinstance(content.get(key), str) else None
    if stated is None and seal_required:
        raise storage.StorageError(f"{uri}: damaged: it has no {SEAL}; {remedy}")
    if stated is not None and stated != _seal(content):
        raise storage.StorageError(f"{uri}: damaged: not what its {SEAL} vouches for; {remedy}")
    return content


def _seal(content: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))  # keys are texts then, and sorted as such
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def parsed(content: dict[str, Any], kind: type[T], uri: str, remedy: str = storage.AGAIN) -> T:
    """The dataclass `kind` from what `uri` holds. Raises StorageError: every field is there, of its
    type, and no other."""
    unknown = sorted(content.keys() - {field.name for field in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise storage.StorageError(f"{uri}: {unknown[0]}: unknown; {remedy}")
    try:
        whole: T = _adapter(kind).validate_python(content)  # type: ignore[arg-type]
        return whole
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        found = "" if problem["type"] == "missing" else f" {shown(problem['input'])}:"
        raise storage.StorageError(f"{uri}: {place}:{found} {problem['msg']}; {remedy}") from None


def read_document(uri: str, kind: type[T], remedy: str = storage.AGAIN) -> T:
    """Both at once, of a sealed file that states no format. Raises FileNotFoundError,
    StorageError."""
    return parsed(read_sealed(uri, remedy), kind, uri, remedy)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
