"""Arrays in safetensors files, held against a checksum: their description's, or their own seal."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from diet_ray import storage
from diet_ray.errors import StorageError, shown

SEAL = "sha256"
"""Key of a checksum in a safetensors file's own metadata."""


def read(uri: str, remedy: str = storage.AGAIN, sha256: str | None = None) -> dict[str, np.ndarray]:
    """A safetensors file's arrays. Raises StorageError, which ends in `remedy`, if it is damaged,
    by its own seal if it has one, or another one than that with this SHA-256."""
    content = storage.read_bytes(uri)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise StorageError(
            f"{uri}: damaged tensors, or another file's: their SHA-256 is {found}, their "
            f"description says {shown(sha256)}; {remedy}"
        )
    try:
        arrays, seal = load_safetensors(content), _stated_seal(content)
    except Exception as error:
        raise StorageError(f"{uri}: damaged tensors ({error}); {remedy}") from None
    if seal is not None and seal != _seal(arrays):
        raise StorageError(f"{uri}: damaged tensors, which are not those of its seal; {remedy}")
    return arrays


def _stated_seal(content: bytes) -> str | None:
    """What a safetensors file says in its header."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    seal: str | None = header.get("__metadata__", {}).get(SEAL)
    return seal


def _seal(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        stored = np.ascontiguousarray(array)  # as `write` does: a scalar gets an axis
        digest.update(repr((name, stored.dtype.str, stored.shape)).encode())
        digest.update(stored.data)
    return digest.hexdigest()


def write(uri: str, arrays: dict[str, np.ndarray], **metadata: str) -> str:
    """Publish a safetensors file; returns the SHA-256 of its bytes."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return storage.write_bytes(uri, save_safetensors(whole, metadata or None))


def write_sealed(uri: str, arrays: dict[str, np.ndarray]) -> None:
    """Publish a safetensors file that no other file vouches for: it holds a checksum of its own,
    by which `read` knows damage."""
    write(uri, arrays, **{SEAL: _seal(arrays)})
