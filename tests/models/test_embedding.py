"""The embedding table: growth, unknown ids, and where its fresh vectors come from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.models import embedding
from diet_ray.models.embedding import EmbeddingTable

SIZES = {"user": 5, "item": 7}


def table(sizes: dict[str, int] = SIZES, seed: int = 3) -> EmbeddingTable:
    return EmbeddingTable(sizes, embedding_dim=4, std=0.1, seed=seed)


def test_looks_up_each_field_in_its_own_vectors() -> None:
    made = table()
    vectors = made.by_field()
    found = made(torch.tensor([[1, 6], [4, 2]]))
    assert found.shape == (2, 2, 4)
    for row, (user, item) in enumerate([(1, 6), (4, 2)]):
        assert torch.equal(found[row, 0], vectors["user"][user])
        assert torch.equal(found[row, 1], vectors["item"][item])


def test_id_zero_is_the_zero_vector_of_every_field() -> None:
    assert table()(torch.zeros(1, 2, dtype=torch.int64)).abs().max() == 0
    assert all((v[1:] != 0).all() for v in table().by_field().values())


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=4),
    seed=st.integers(0, 5),
)
def test_growth_keeps_what_was_there_as_a_prefix(steps: list[tuple[int, int]], seed: int) -> None:
    made, sizes = table(seed=seed), dict(SIZES)
    for user, item in steps:
        before = {name: v.clone() for name, v in made.by_field().items()}
        sizes = {"user": sizes["user"] + user, "item": sizes["item"] + item}
        made.grow(sizes)
        after = made.by_field()
        assert {name: len(v) for name, v in after.items()} == sizes
        assert all(torch.equal(after[name][: len(v)], v) for name, v in before.items())


def test_growth_appends_fresh_vectors_and_keeps_trained_ones() -> None:
    made = table()
    with torch.no_grad():
        made.weight += 1
    made.grow({"user": 6, "item": 9})
    assert (made.by_field()["user"][5].abs() > 0).all()
    assert made.by_field()["user"][5].abs().max() < 0.9
    assert torch.equal(made.by_field()["user"][1], table().by_field()["user"][1] + 1)
    assert made.weight.requires_grad


def test_a_shrinking_field_is_refused() -> None:
    with pytest.raises(ValueError, match="item: 6 ids, but its table holds 7"):
        table().grow({"user": 5, "item": 6})


def test_an_id_that_only_a_later_vocabulary_knows_counts_as_id_zero() -> None:
    made = table()
    found = made(torch.tensor([[5, 7], [99, 1]]))
    assert found[0].abs().max() == 0
    assert found[1, 0].abs().max() == 0
    assert torch.equal(found[1, 1], made.by_field()["item"][1])
    made.grow({"user": 6, "item": 8})
    assert made(torch.tensor([[5, 7]])).abs().min() > 0


def test_fresh_vectors_are_a_function_of_seed_and_field_alone() -> None:
    other_way = table({"item": 7, "user": 5})
    for name, vectors in table().by_field().items():
        assert torch.equal(vectors, table().by_field()[name])
        assert torch.equal(vectors, other_way.by_field()[name])
        assert not torch.equal(vectors, table(seed=4).by_field()[name])


def test_fresh_vectors_have_the_stated_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 3_000)
    made = table({"user": 5_000, "item": 5_000})
    assert made.standard_deviation() == pytest.approx(0.1, rel=0.02)
    assert made.standard_deviation() == pytest.approx(float(made.weight.detach().double().std()))


def test_loading_replaces_vectors_and_sizes() -> None:
    source, made = table({"user": 9, "item": 3}, seed=8), table()
    made.load(source.by_field())
    ids = torch.tensor([[8, 2], [0, 1]])
    assert torch.equal(made(ids), source(ids))
    assert made.sizes == [9, 3]
