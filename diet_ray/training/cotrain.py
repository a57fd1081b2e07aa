"""Ranking a candidate on a set (`cotrain`): table and network together, from nothing, by ids.

In one-epoch training most of the difference between two architectures is how fast each of them
trains an embedding table. A finished table, which the paper's warm start inherits, removes it.
So here a candidate gets a fresh table over just the ids that the set's rows hold, and learns the
reference's soft labels for some hundred steps: its learning speed is compared, as in full
training. With many steps all candidates converge to the teacher, and the order is lost
(RESULTS.md). Several seeds of a candidate, each with an order of the rows of its own, train side
by side; its score is their mean.

Neither the log nor the reference is needed: the set's rows and a few rows to judge on, with their
labels and the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from diet_ray.config import CotrainConfig, ModelsConfig, NetworkConfig
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import derive, torch_generator, torch_seeded
from diet_ray.training.curve import LossCurve
from diet_ray.training.model import Recommender
from diet_ray.training.side_by_side import SideBySide
from diet_ray.training.soft_rows import SoftRows
from diet_ray.training.touched import TouchedVectors


class CompactIds:
    """Numbers the ids that a set's rows hold 1, 2.. per field, in rising order; all others are 0.

    So a table over the set's ids is as small as the set, however many ids the log has.
    """

    def __init__(self, ids: np.ndarray) -> None:
        """ids: integers (n, F), of the set's rows."""
        known = (np.unique(column) for column in ids.T)
        self._known = [values[values > 0] for values in known]

    @property
    def sizes(self) -> list[int]:
        """Ids per field, with id 0."""
        return [len(values) + 1 for values in self._known]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """int64 (m, F) of any ids (m, F) of the log."""
        compact = np.zeros(ids.shape, dtype=np.int64)
        for field, values in enumerate(self._known):
            place = np.searchsorted(values, ids[:, field])
            found = np.append(values, 0)[place] == ids[:, field]
            compact[:, field] = np.where(found & (ids[:, field] > 0), place + 1, 0)
        return compact


def fresh_candidate(
    network: NetworkConfig,
    models: ModelsConfig,
    sizes: dict[str, int],
    tasks: int,
    seed: int,
    candidate_seed: int,
) -> Recommender:
    """A candidate before its first step, a pure function of both seeds; sizes: ids per field."""
    table_seed = derive(seed, "candidate table", candidate_seed)
    table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, table_seed)
    path = ("candidate", candidate_seed)
    return Recommender(table, fresh_network(network, models, len(sizes), tasks, seed, *path))


AfterBatch = Callable[[int, float], None]
"""Takes the rows of a step, of one model, and their loss, the mean over rows and models."""


def co_train(
    models: Sequence[Recommender],
    rows: SoftRows,
    protocol: CotrainConfig,
    seeds: Sequence[int],
    after_batch: AfterBatch = lambda _rows, _loss: None,
) -> list[float]:
    """Train the models in place, side by side; returns the progressive loss, their mean.

    models: fresh ones of a candidate, on the device of the rows. rows.inputs: compact ids
    (`CompactIds`). seeds: of the order in which each model sees the rows: shuffled, and as often
    again as the steps take.
    """
    curve = LossCurve(protocol.steps * protocol.batch_size)
    orders = torch.stack([_order(len(rows), protocol, seed) for seed in seeds])
    batches = torch.stack(orders.split(protocol.batch_size, dim=1))  # (steps, S, B)
    labels = torch.sigmoid(rows.labels)
    table = TouchedVectors([model.table for model in models], rows.inputs[batches])
    networks = SideBySide([model.dense for model in models])
    optimizer = _Adam([table.vectors, *networks.parameters], protocol.learning_rate)
    with torch_seeded(seeds[0], "co-training noise"):  # of dropout
        for step, batch in enumerate(batches):
            losses, of_embeddings, of_networks = networks(table.look_up(step), labels[batch])
            optimizer.step([table.gradient(step, of_embeddings), *of_networks])
            loss = float(losses.mean())
            curve.add(protocol.batch_size, loss)
            after_batch(protocol.batch_size, loss)
    table.write_back()
    return curve.means()


class _Adam:
    """Torch's Adam, over ever more rows of what it trains: so many as their gradient has."""

    def __init__(self, trained: Sequence[Tensor], learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._trained = [values.detach() for values in trained]
        self._means = [torch.zeros_like(values) for values in trained]
        self._squares = [torch.zeros_like(values) for values in trained]
        self._steps = [torch.zeros((), device=values.device) for values in trained]

    def step(self, gradients: Sequence[Tensor]) -> None:
        def begun(of_all: Sequence[Tensor]) -> list[Tensor]:
            pairs = zip(of_all, gradients, strict=True)
            return [whole[: len(gradient)] for whole, gradient in pairs]

        adam(
            begun(self._trained),
            list(gradients),
            begun(self._means),
            begun(self._squares),
            max_exp_avg_sqs=[],
            state_steps=self._steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _order(rows: int, protocol: CotrainConfig, seed: int) -> Tensor:
    """Row numbers (steps times batch size,): pass after shuffled pass, the last one cut."""
    generator = torch_generator(seed, "co-training order")
    wanted = protocol.steps * protocol.batch_size
    passes = [torch.randperm(rows, generator=generator) for _ in range(-(-wanted // rows))]
    return torch.cat(passes)[:wanted]


def co_trained(
    network: NetworkConfig,
    models: ModelsConfig,
    rows: SoftRows,
    sizes: dict[str, int],
    tasks: int,
    protocol: CotrainConfig,
    seed: int,
    first: int = 0,
    after_batch: AfterBatch = lambda _rows, _loss: None,
) -> tuple[list[Recommender], list[float]]:
    """A candidate by its seeds first, first + 1.., trained on the rows, and `co_train`'s loss.

    It is trained, and stays, on the device that holds the rows.
    """
    seeds, device = range(first, first + protocol.seeds), rows.labels.device
    fresh = [
        fresh_candidate(network, models, sizes, tasks, seed, number).to(device) for number in seeds
    ]
    orders = [derive(seed, "candidate co-training", number) for number in seeds]
    return fresh, co_train(fresh, rows, protocol, orders, after_batch)
