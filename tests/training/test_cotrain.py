"""Co-training against itself written out row by row; a candidate's start; the compact ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diet_ray.config import CotrainConfig, NetworkConfig
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import derive, torch_generator
from diet_ray.training import cotrain
from diet_ray.training.cotrain import CompactIds, co_train, co_trained, fresh_candidate
from diet_ray.training.curve import LossCurve
from diet_ray.training.model import Recommender
from diet_ray.training.soft_rows import SoftRows
from tests.made import made_rows, small_config
from tests.networks import small_network
from tests.training import by_hand

MODELS = small_config("unused").models
SIZES = {"field_0": 12, "field_1": 13, "field_2": 14}
TASKS = 2
ROWS = 43
PROTOCOL = CotrainConfig(batch_size=8, learning_rate=0.01, steps=9)  # of 72 rows


def soft_rows(kind: torch.dtype = torch.float64) -> SoftRows:
    """Real rows with confident labels."""
    real = made_rows(ROWS, SIZES, TASKS, seed=1)
    labels = torch.from_numpy(real.labels * 4 - 2).to(kind)
    return SoftRows(torch.from_numpy(real.ids), labels)


def candidate(name: str = "dcn", seed: int = 0) -> Recommender:
    return fresh_candidate(small_network(name), MODELS, SIZES, TASKS, 5, seed).double()


def run(model: Recommender, rows: SoftRows, seed: int = 9) -> list[float]:
    return co_train([model], rows, PROTOCOL, [seed])


def same(first: Recommender, second: Recommender) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def assert_close(first: Recommender, second: Recommender) -> None:
    for found, wanted in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def written_out(
    model: Recommender, rows: SoftRows, protocol: CotrainConfig, seed: int
) -> list[float]:
    """Trains one model row by row; every batch's loss before its step."""
    generator = torch_generator(seed, "co-training order")
    seen: list[int] = []
    while len(seen) < protocol.steps * protocol.batch_size:
        (whole,) = by_hand.shuffled(len(rows), len(rows), generator)
        seen += whole
    starts = range(0, protocol.steps * protocol.batch_size, protocol.batch_size)
    told = by_hand.train(
        by_hand.logits_of_ids(model),
        torch.optim.Adam(model.parameters(), lr=protocol.learning_rate),
        rows.inputs,
        torch.sigmoid(rows.labels),
        [seen[start : start + protocol.batch_size] for start in starts],
    )
    return [loss for _, loss in told]


@pytest.mark.parametrize(
    ("name", "seeds", "batch_size", "steps"),
    [
        ("dcn", [9], 8, 3),  # less than a pass
        ("dcn", [9, 2, 7], 8, 9),  # the last pass is cut, and batches lie across passes
        ("wukong", [9], 8, 9),
        ("wukong", [3, 9], 50, 2),  # a batch of more rows than there are
        ("dcn", [4, 9], 2, ROWS + 3),  # more steps than rows
    ],
)
def test_table_and_network_learn_together_as_written_out(
    name: str, seeds: list[int], batch_size: int, steps: int
) -> None:
    protocol = CotrainConfig(batch_size=batch_size, learning_rate=0.01, steps=steps)
    rows = soft_rows()
    models, expected = ([candidate(name, seed) for seed in seeds] for _ in range(2))
    found = co_train(models, rows, protocol, seeds)

    losses = []
    for model, other, seed in zip(models, expected, seeds, strict=True):
        losses.append(written_out(other, rows, protocol, seed))
        assert_close(model, other)
        assert not torch.equal(model.table.weight, candidate(name, seed).table.weight)
    curve = LossCurve(steps * batch_size)
    for loss in np.mean(losses, axis=0).tolist():
        curve.add(batch_size, loss)
    assert found == pytest.approx(curve.means(), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 9])
def test_rows_are_seen_pass_after_shuffled_pass(seed: int) -> None:
    """However many steps there are, the longer training only goes on where the shorter ends."""
    longest = cotrain._order(ROWS, CotrainConfig(batch_size=10, steps=15), seed).tolist()
    assert len(longest) == 150
    passes = [longest[start : start + ROWS] for start in range(0, 150, ROWS)]
    assert [len(seen) for seen in passes] == [ROWS, ROWS, ROWS, 150 - 3 * ROWS]
    for seen in passes[:3]:
        assert sorted(seen) == list(range(ROWS)) != seen
    assert len(set(passes[3])) == len(passes[3])
    assert len({tuple(seen) for seen in passes}) == 4
    for batch_size, steps in ((10, 3), (4, 11), (43, 2), (1, 1)):
        order = cotrain._order(ROWS, CotrainConfig(batch_size=batch_size, steps=steps), seed)
        assert order.tolist() == longest[: batch_size * steps]


def test_the_order_is_a_function_of_the_seed() -> None:
    rows = soft_rows()
    models = [candidate() for _ in range(3)]
    seeds = zip(models, (9, 9, 8), strict=True)
    torch.rand(3)  # the global generator has no say
    first, again, other = (run(model, rows, seed) for model, seed in seeds)
    assert first == again
    assert same(models[0], models[1])
    assert first != other
    assert not same(models[0], models[2])


def test_a_model_learns_by_its_own_order_whoever_is_beside_it() -> None:
    rows, seeds = soft_rows(), [9, 8, 9]
    models = [candidate() for _ in seeds]
    co_train(models, rows, PROTOCOL, seeds)
    for model, seed in zip(models, seeds, strict=True):
        alone = candidate()
        run(alone, rows, seed)
        assert_close(model, alone)
    assert same(models[0], models[2])
    assert not same(models[0], models[1])


def test_a_candidate_is_a_pure_function_of_its_seeds() -> None:
    network = small_network("wukong")
    table = EmbeddingTable(
        SIZES, MODELS.embedding_dim, MODELS.embedding_std, derive(5, "candidate table", 7)
    )
    dense = fresh_network(network, MODELS, len(SIZES), TASKS, 5, "candidate", 7)
    expected = Recommender(table, dense)
    for state in (0, 1):
        torch.manual_seed(state)
        assert same(fresh_candidate(network, MODELS, SIZES, TASKS, 5, 7), expected)
    for seeds in ((5, 8), (6, 7)):
        other = fresh_candidate(network, MODELS, SIZES, TASKS, *seeds)
        pairs = zip(other.parameters(), expected.parameters(), strict=True)
        # biases start at zero whatever the seed
        assert not any(torch.equal(one, two) for one, two in pairs if one.ndim > 1)


@pytest.mark.parametrize("first", [0, 500_000])
def test_a_candidates_seeds_decide_start_and_order(first: int) -> None:
    network, rows = small_network("dcn"), soft_rows(torch.float32)
    protocol = PROTOCOL.model_copy(update={"seeds": 3})
    models, losses = co_trained(network, MODELS, rows, SIZES, TASKS, protocol, 5, first)

    numbers = [first, first + 1, first + 2]
    expected = [fresh_candidate(network, MODELS, SIZES, TASKS, 5, number) for number in numbers]
    orders = [derive(5, "candidate co-training", number) for number in numbers]
    assert losses == co_train(expected, rows, protocol, orders)
    for model, wanted in zip(models, expected, strict=True):
        assert same(model, wanted)
    assert not same(models[0], models[1])


def test_candidates_count_from_0() -> None:
    network, rows = small_network("dcn"), soft_rows(torch.float32)
    found, expected = (
        co_trained(network, MODELS, rows, SIZES, TASKS, PROTOCOL, 5, *first) for first in ((), (0,))
    )
    assert len(found[0]) == PROTOCOL.seeds
    assert found[1] == expected[1]
    assert all(same(*pair) for pair in zip(found[0], expected[0], strict=True))


ids = st.integers(2, 12).flatmap(
    lambda rows: st.tuples(
        arrays(np.int32, (rows, 2), elements=st.integers(0, 9)),
        arrays(np.int64, (20, 2), elements=st.integers(0, 12)),
    )
)


@given(ids)
def test_ids_are_numbered_by_field_in_rising_order(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    of_set, of_log = drawn
    compact = CompactIds(of_set)
    for field in range(2):
        rising = sorted({number for number in of_set[:, field].tolist() if number > 0})
        numbers = {number: place for place, number in enumerate(rising, start=1)}
        assert compact.sizes[field] == len(rising) + 1
        for some in (of_set, of_log):
            expected = [numbers.get(number, 0) for number in some[:, field].tolist()]
            assert compact(some)[:, field].tolist() == expected
    assert compact(of_log).dtype == np.int64
    assert compact(of_log[:0]).shape == (0, 2)


def test_what_a_network_drops_is_a_function_of_the_seeds() -> None:
    dropping = NetworkConfig(name="tests.models.wrong_networks:Dropping")

    def trained(seed: int) -> Recommender:
        torch.rand(1)  # whatever was drawn before
        model = fresh_candidate(dropping, MODELS, SIZES, TASKS, 5, 0).double()
        run(model, soft_rows(), seed)
        return model

    assert same(trained(9), trained(9))
    assert not same(trained(9), trained(10))
