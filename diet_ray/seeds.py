"""Every random draw's seed, derived from what the draw is for.

Protocol: nobody keeps a running generator. A draw names itself by a path of indices, such as
``("meta", stage, round, step, shard)``, and gets the generator that belongs to that path. So a
draw can be repeated anywhere, by any process, in any order, which is what makes a restarted
worker's result byte-identical to the lost one.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

Index = int | str

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive(seed: int, *path: Index) -> int:
    """A 63-bit seed for the draw called `path` of the run with `seed`."""
    text = "\x1f".join([str(seed), *map(_named, path)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _named(index: Index) -> str:
    """The type keeps 1 and "1" apart; NumPy's integers are the plain ones."""
    return f"str:{index}" if isinstance(index, str) else f"int:{operator.index(index)}"


def numpy_generator(seed: int, *path: Index) -> np.random.Generator:
    """A NumPy generator for the draw called `path`."""
    return np.random.Generator(np.random.Philox(derive(seed, *path)))


def torch_generator(seed: int, *path: Index) -> torch.Generator:
    """A CPU torch generator for the draw called `path`."""
    return torch.Generator().manual_seed(derive(seed, *path))


@contextmanager
def torch_seeded(seed: int, *path: Index) -> Iterator[None]:
    """Torch's global generator holds the draw's seed inside, and its own state again after.

    For code that draws from the global generator, such as the initialisation of torch's layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *path))
        yield


def uniform(seed: int, *path: Index, indices: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), each a pure function of (seed, path, its index).

    indices: integers (n,). Returns float64 (n,). The generator is splitmix64 in counter mode
    (Steele et al., OOPSLA 2014), so any subset of rows can be drawn without the others.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(derive(seed, *path)) + (indices.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
