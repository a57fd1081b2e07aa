"""The vectors that a training touches, against whole tables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diet_ray.models.embedding import EmbeddingTable
from diet_ray.training.touched import TouchedVectors

SIZES = {"field_0": 4, "field_1": 9}
STEPS, SEEDS, BATCH, DIM = 5, 3, 2, 4


def made_tables() -> list[EmbeddingTable]:
    return [EmbeddingTable(SIZES, DIM, 0.1, seed).double() for seed in range(SEEDS)]


def made_ids() -> Tensor:
    draw = torch.Generator().manual_seed(2)
    shape = STEPS, SEEDS, BATCH
    columns = [torch.randint(size, shape, generator=draw) for size in SIZES.values()]
    return torch.stack(columns, dim=-1)


def test_a_step_looks_up_what_the_tables_hold() -> None:
    tables, ids = made_tables(), made_ids()
    touched = TouchedVectors(tables, ids)
    for step in range(STEPS):
        wanted = torch.stack([t(own) for t, own in zip(tables, ids[step], strict=True)])
        assert torch.equal(touched.look_up(step), wanted)


def test_vectors_stand_in_the_order_of_their_first_step() -> None:
    ids = made_ids()
    touched, seen = TouchedVectors(made_tables(), ids), set[tuple[int, int, int]]()
    for step, count in enumerate(touched.counts):
        for seed in range(SEEDS):
            for row in ids[step, seed].tolist():
                seen |= {(seed, field, number) for field, number in enumerate(row)}
        assert count == len(seen)
    assert len(touched.vectors) == len(seen) < SEEDS * sum(SIZES.values())


def test_gradients_are_summed_over_the_rows_that_hold_an_id() -> None:
    tables, ids = made_tables(), made_ids()
    touched = TouchedVectors(tables, ids)
    draw = torch.Generator().manual_seed(3)
    for step in range(STEPS):
        given = torch.randn(SEEDS, BATCH, len(SIZES), DIM, generator=draw, dtype=torch.float64)
        touched.vectors += 1  # whoever trains them
        found = touched.gradient(step, given)
        assert found.shape == (touched.counts[step], DIM)
        leaf = touched.vectors.clone().requires_grad_()
        (leaf[touched._places[step]] * given).sum().backward()
        assert leaf.grad is not None
        torch.testing.assert_close(found, leaf.grad[: len(found)])
        assert not leaf.grad[len(found) :].any()


def test_only_what_was_touched_is_written_back() -> None:
    tables, before, ids = made_tables(), made_tables(), made_ids()
    touched = TouchedVectors(tables, ids)
    touched.vectors += 1
    touched.write_back()
    for seed, (table, old) in enumerate(zip(tables, before, strict=True)):
        for field, name in enumerate(SIZES):
            held = torch.zeros(SIZES[name], 1, dtype=torch.float64)
            held[ids[:, seed, :, field].unique()] = 1
            expected = old.by_field()[name] + held
            assert torch.equal(table.by_field()[name], expected)


@pytest.mark.parametrize("seeds", [1, SEEDS])
def test_training_them_is_training_the_tables(seeds: int) -> None:
    """A vector without a gradient so far stays; one that had one is moved by every later step."""
    tables, whole, ids = made_tables()[:seeds], made_tables()[:seeds], made_ids()[:, :seeds]
    touched = TouchedVectors(tables, ids)
    moments = torch.zeros_like(touched.vectors)
    for step in range(STEPS):
        count = touched.counts[step]
        moments[:count] = 0.9 * moments[:count] + touched.gradient(step, touched.look_up(step) - 1)
        touched.vectors[:count] -= 0.1 * moments[:count]
    touched.write_back()
    for seed, (table, other) in enumerate(zip(tables, whole, strict=True)):
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        for step in range(STEPS):
            optimizer.zero_grad()
            (0.5 * (other(ids[step, seed]) - 1).square().sum()).backward()
            optimizer.step()
        torch.testing.assert_close(table.weight, other.weight)
