"""phi_t in Ray's object store: one copy per node, mapped read-only by every process that opens it.

Protocol: :func:`share_reference` has a task read phi_t from storage and keep what it returns. The
process that asks owns the copy without holding it: a node that lacks it fetches it from one that
has it, and Ray reads it again if that node is lost. The phi_t shared last stays until another is,
so that one scan after another of a stage reads it from storage once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import ray
import torch
from torch import nn

from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training.reference import (
    Reference,
    ReferenceFacts,
    load_reference,
    reference_identity,
)


@dataclass(frozen=True)
class SharedTable:
    """A reference's embedding vectors, as an array that Ray maps without copying it."""

    vectors: np.ndarray  # (ids of all fields, d) float32
    vocabulary_sizes: dict[str, int]
    embedding_std: float
    seed: int

    @staticmethod
    def of(reference: Reference, seed: int) -> SharedTable:
        """seed: of the vectors of ids that come later."""
        return SharedTable(
            vectors=reference.table.weight.detach().numpy(),
            vocabulary_sizes=dict(zip(reference.fields, reference.table.sizes, strict=True)),
            embedding_std=reference.models.embedding_std,
            seed=seed,
        )

    def frozen(self) -> EmbeddingTable:
        """A table over the same memory; it can be looked up, not trained."""
        with warnings.catch_warnings():
            # torch warns of writes to read-only memory; without a gradient nobody writes
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            weight = torch.from_numpy(self.vectors)
        return self._table(nn.Parameter(weight, requires_grad=False))

    def trainable(self) -> EmbeddingTable:
        """A table of one's own."""
        return self._table(nn.Parameter(torch.tensor(self.vectors)))

    def _table(self, weight: nn.Parameter) -> EmbeddingTable:
        empty = dict.fromkeys(self.vocabulary_sizes, 0)
        table = EmbeddingTable(empty, self.vectors.shape[1], self.embedding_std, self.seed)
        sizes = torch.tensor(list(self.vocabulary_sizes.values()), dtype=torch.int64)
        table.weight = weight
        table.offsets, table.limits = sizes.cumsum(0) - sizes, sizes
        table.sizes = sizes.tolist()
        return table


@dataclass(frozen=True)
class _Held:
    """What the object store holds of phi_t."""

    facts: ReferenceFacts
    table: SharedTable
    dense: dict[str, np.ndarray]

    @staticmethod
    def of(reference: Reference) -> _Held:
        return _Held(
            facts=ReferenceFacts(
                **{f.name: getattr(reference, f.name) for f in fields(ReferenceFacts)}
            ),
            table=SharedTable.of(reference, seed=0),  # it is looked up; no id comes later
            dense={name: p.numpy() for name, p in reference.dense.state_dict().items()},
        )


@dataclass(frozen=True)
class SharedReference:
    """Where the object store holds phi_t."""

    held: ray.ObjectRef

    def open(self) -> Reference:
        """phi_t over the node's copy of its table, on the CPU; to be applied, not trained."""
        held: _Held = ray.get(self.held)
        facts = held.facts
        shape = (len(facts.fields), len(facts.tasks))
        dense = fresh_network(facts.network, facts.models, *shape, 0)
        dense.load_state_dict({name: torch.tensor(array) for name, array in held.dense.items()})
        return Reference(
            **vars(facts), table=held.table.frozen(), dense=dense.requires_grad_(False)
        )


def share_reference(uri: str, cpus: float) -> SharedReference:
    """phi_t from its folder into the object store, read by a task that is given `cpus`.

    Returns when it is there. Raises CheckpointError, StorageError.
    """
    context = ray.get_runtime_context()
    session = (context.get_node_id(), context.get_job_id())  # an object does not outlive them
    return _share(uri, reference_identity(uri), cpus, session)


@lru_cache(maxsize=1)
def _share(uri: str, identity: str, cpus: float, session: tuple[str, str]) -> SharedReference:
    del identity, session  # what the cache goes by, beside the folder
    held, is_there = _read.options(num_cpus=cpus).remote(uri)
    ray.get(is_there)  # or its error
    return SharedReference(held)


@ray.remote(num_returns=2)
def _read(uri: str) -> tuple[_Held, bool]:
    return _Held.of(load_reference(uri)), True
