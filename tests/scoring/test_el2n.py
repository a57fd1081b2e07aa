"""EL2N against a loop over rows and tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.blocks import read_block
from diet_ray.scoring.el2n import EL2NScoring, el2n
from tests.scoring.prepared import Prepared

tables = st.integers(1, 4).flatmap(
    lambda tasks: st.lists(
        st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=tasks, max_size=tasks),
        min_size=1,
        max_size=6,
    )
)


def slow(row: list[tuple[float, bool]]) -> float:
    return math.sqrt(sum((1 / (1 + math.exp(-z)) - y) ** 2 for z, y in row))


@given(tables)
def test_equals_a_loop(table: list[list[tuple[float, bool]]]) -> None:
    values = torch.tensor(table, dtype=torch.float64)
    found = el2n(values[..., 0], values[..., 1])
    assert found.tolist() == pytest.approx([slow(row) for row in table], rel=1e-12, abs=1e-12)
    assert found.min() >= 0
    assert found.max() <= math.sqrt(len(table[0])) + 1e-12


def test_scores_real_rows_under_the_reference(prepared: Prepared) -> None:
    rows = read_block(prepared.blocks, prepared.block)
    scoring = EL2NScoring(prepared.reference_uri, prepared.reference.identity)
    found = scoring.load(prepared.reference, torch.device("cpu"))(rows)
    with torch.no_grad():
        logits = prepared.reference.recommender(torch.from_numpy(rows.ids)).tolist()
    expected = [
        slow(list(zip(z, y, strict=True))) for z, y in zip(logits, rows.labels, strict=True)
    ]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_half_the_width_moves_scores_by_little(prepared: Prepared) -> None:
    rows = read_block(prepared.blocks, prepared.block)
    here = prepared.reference_uri, prepared.reference.identity
    exact, rounded = (
        EL2NScoring(*here, precision).load(prepared.reference, torch.device("cpu"))(rows)
        for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    # logits are off by bfloat16's rounding, 2^-8 of them at most in each of a few layers, and a
    # sigmoid is a quarter as steep at most
    torch.testing.assert_close(exact, rounded, rtol=0, atol=0.02)


def test_scores_of_either_width_are_told_apart() -> None:
    assert EL2NScoring("here", "a").identity != EL2NScoring("here", "a", "bfloat16").identity


def test_the_identity_is_the_references(prepared: Prepared) -> None:
    first = EL2NScoring("here", "a").identity
    assert first == EL2NScoring("there", "a").identity
    assert first != EL2NScoring("here", "b").identity
