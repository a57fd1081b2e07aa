"""Co-training against itself written out row by row; a candidate's start; the compact ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diet_ray.config import CotrainConfig
from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import derive, torch_generator
from diet_ray.training.cotrain import CompactIds, Ranking, co_train, fresh_candidate
from diet_ray.training.curve import LossCurve
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import Recommender, predict
from diet_ray.training.soft_rows import SoftRows
from tests.made import made_rows, small_config
from tests.networks import small_network
from tests.training import by_hand

MODELS = small_config("unused").models
SIZES = {"field_0": 12, "field_1": 13, "field_2": 14}
TASKS = ("task_0", "task_1")
ROWS = 43
PROTOCOL = CotrainConfig(batch_size=8, learning_rate=0.01, passes=3)


def soft_rows(kind: torch.dtype = torch.float64) -> SoftRows:
    """Real rows with confident labels and weights of their own."""
    real = made_rows(ROWS, SIZES, len(TASKS), seed=1)
    draw = torch.Generator().manual_seed(2)
    return SoftRows(
        torch.from_numpy(real.ids),
        torch.from_numpy(real.labels * 4 - 2).to(kind),
        torch.rand(ROWS, generator=draw, dtype=torch.float64).to(kind) * 2,
    )


JUDGED = made_rows(60, SIZES, len(TASKS), seed=2)


def candidate(name: str = "dcn", kind: torch.dtype = torch.float64) -> Recommender:
    found = fresh_candidate(small_network(name), MODELS, SIZES, len(TASKS), 5, 0)
    return found.to(kind)


def run(model: Recommender, rows: SoftRows, seed: int = 9, judged: Rows = JUDGED) -> Ranking:
    return co_train(model, rows, judged, TASKS, PROTOCOL, seed)


def same(first: Recommender, second: Recommender) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", ["dcn", "wukong"])
def test_table_and_network_learn_together_as_written_out(name: str) -> None:
    rows, model, expected = soft_rows(), candidate(name), candidate(name)
    ranking = run(model, rows)

    optimizer = torch.optim.Adam(expected.parameters(), lr=PROTOCOL.learning_rate)
    forward = by_hand.logits_of_ids(expected)
    curve, judged = LossCurve(ROWS * PROTOCOL.passes), []
    for number in range(PROTOCOL.passes):
        generator = torch_generator(9, "co-training order", number)
        batches = by_hand.shuffled(ROWS, PROTOCOL.batch_size, generator)
        targets = torch.sigmoid(rows.labels)
        told = by_hand.train(forward, optimizer, rows.inputs, targets, rows.weights, batches)
        for count, loss in told:
            curve.add(count, loss)
        with torch.no_grad():
            logits = torch.stack([forward(ids) for ids in torch.from_numpy(JUDGED.ids)]).numpy()
        judged.append(measure(logits, JUDGED.labels, TASKS))

    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)
    assert ranking.training_loss == pytest.approx(curve.means(), rel=1e-9)
    for metrics, wanted in zip(ranking.passes, judged, strict=True):
        assert metrics.logloss == pytest.approx(wanted.logloss, rel=1e-9)
        assert metrics.auc_by_task == pytest.approx(wanted.auc_by_task, rel=1e-9)
    dense = sum(parameter.numel() for parameter in model.dense.parameters())
    assert ranking.dense_parameters == dense
    assert not torch.equal(model.table.weight, candidate(name).table.weight)


def test_a_pass_is_judged_when_it_ends() -> None:
    model, told = candidate(kind=torch.float32), []

    def judge(metrics: Metrics) -> None:
        assert metrics == measure(predict(model, JUDGED.ids), JUDGED.labels, TASKS)
        told.append(metrics)

    rows = soft_rows(torch.float32)
    ranking = co_train(model, rows, JUDGED, TASKS, PROTOCOL, 9, judge)
    assert ranking.passes == told
    assert len({metrics.auc for metrics in told}) == len(told) == PROTOCOL.passes

    short = PROTOCOL.model_copy(update={"passes": 1})
    once = co_train(candidate(kind=torch.float32), rows, JUDGED, TASKS, short, 9)
    assert once.passes == ranking.passes[:1]


def test_rows_that_judge_are_not_learned_from() -> None:
    models = candidate(), candidate()
    for model, judged in zip(models, (JUDGED, JUDGED.take(slice(0, 20))), strict=True):
        run(model, soft_rows(), judged=judged)
    assert same(*models)


def test_the_order_is_a_function_of_the_seed() -> None:
    rows = soft_rows()
    models = [candidate() for _ in range(3)]
    seeds = zip(models, (9, 9, 8), strict=True)
    first, again, other = (run(model, rows, seed) for model, seed in seeds)
    assert first == again
    assert same(models[0], models[1])
    assert first != other
    assert not same(models[0], models[2])


def test_a_row_without_weight_does_not_count() -> None:
    rows, weights = soft_rows(), soft_rows().weights
    weights[::3] = 0
    labels, ids = rows.labels.clone(), rows.inputs.clone()
    labels[::3] *= -1
    ids[::3] = 1
    light = replace(rows, weights=weights)
    models = [candidate() for _ in range(3)]
    different = replace(light, labels=labels, inputs=ids)
    for model, seen in zip(models, (light, different, rows), strict=True):
        run(model, seen)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_a_candidate_is_a_pure_function_of_its_seeds() -> None:
    network = small_network("wukong")
    table = EmbeddingTable(
        SIZES, MODELS.embedding_dim, MODELS.embedding_std, derive(5, "candidate table", 7)
    )
    dense = fresh_network(network, MODELS, len(SIZES), len(TASKS), 5, "candidate", 7)
    expected = Recommender(table, dense)
    for state in (0, 1):
        torch.manual_seed(state)
        assert same(fresh_candidate(network, MODELS, SIZES, len(TASKS), 5, 7), expected)
    for seeds in ((5, 8), (6, 7)):
        other = fresh_candidate(network, MODELS, SIZES, len(TASKS), *seeds)
        pairs = zip(other.parameters(), expected.parameters(), strict=True)
        # biases start at zero whatever the seed
        assert not any(torch.equal(one, two) for one, two in pairs if one.ndim > 1)


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
