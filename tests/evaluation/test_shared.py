"""The shared table and rows: over the same memory, and as good as one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diet_ray.evaluation.shared import Shared, warm_up_rows
from diet_ray.logs.blocks import read_block
from diet_ray.memory import artifact
from diet_ray.training.shared_reference import SharedTable
from tests.evaluation.prepared import Prepared


@pytest.fixture
def shared(trained: Prepared) -> Shared:
    return Shared.load(trained.reference, trained.blocks, seed=5)


def read_only(shared: Shared) -> SharedTable:
    """As Ray hands it out."""
    shared.reference.vectors.flags.writeable = False
    return shared.reference


def test_the_rows_are_those_of_validation_and_test(trained: Prepared, shared: Shared) -> None:
    for name, rows in (("validation", shared.validation), ("test", shared.test)):
        expected = read_block(trained.blocks, trained.blocks.block(name))
        assert np.array_equal(rows.ids, expected.ids)
        assert np.array_equal(rows.labels, expected.labels)


def test_both_tables_look_up_what_the_reference_does(trained: Prepared, shared: Shared) -> None:
    ids = torch.from_numpy(read_block(trained.blocks, trained.blocks.block("test")).ids)
    expected = trained.reference.table(ids)
    assert torch.equal(shared.reference.frozen()(ids), expected)
    assert torch.equal(shared.reference.trainable()(ids), expected)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_frozen_table_is_the_shared_memory_and_a_trainable_one_is_not(shared: Shared) -> None:
    table = read_only(shared)
    frozen, trainable = table.frozen(), table.trainable()
    assert frozen.weight.data_ptr() == table.vectors.ctypes.data
    assert not frozen.weight.requires_grad
    assert trainable.weight.data_ptr() != table.vectors.ctypes.data
    before = table.vectors.copy()
    trainable.weight.data.add_(1)
    assert np.array_equal(table.vectors, before)


def test_a_trainable_table_grows_as_the_references_own(trained: Prepared, shared: Shared) -> None:
    grown, expected = shared.reference.trainable(), trained.reference.table
    sizes = trained.blocks.block("subsequent").vocabulary_sizes
    assert sizes != shared.reference.vocabulary_sizes
    grown.grow(sizes)
    expected.grow(sizes)
    assert grown.sizes == expected.sizes
    assert torch.equal(grown.weight, expected.weight)
    ids = torch.tensor([[size - 1 for size in sizes.values()]])
    assert torch.equal(grown(ids), expected(ids))


def test_new_ids_belong_to_the_seed(trained: Prepared) -> None:
    sizes = trained.blocks.block("subsequent").vocabulary_sizes
    tables = [SharedTable.of(trained.reference, seed).trainable() for seed in (5, 6)]
    for table in tables:
        table.grow(sizes)
    assert not torch.equal(tables[0].weight, tables[1].weight)


def test_warm_up_rows_are_the_synthetic_ones(trained: Prepared) -> None:
    rows, table = artifact.read(trained.distilled), trained.reference.table
    found = warm_up_rows(rows, table)
    assert np.array_equal(found.inputs.numpy(), rows.embeddings(table))
    assert np.array_equal(found.labels.numpy(), rows.labels)
