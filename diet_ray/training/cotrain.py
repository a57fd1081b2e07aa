"""Ranking a candidate on a set (`cotrain`): table and network together, from nothing, by ids.

In one-epoch training most of the difference between two architectures is how fast each of them
trains an embedding table. A finished table, which the paper's warm start inherits, removes it.
So here a candidate gets a fresh table over just the ids that the set's rows hold, and learns the
reference's soft labels for a pass or two: its learning speed is compared, as in full training.
With many passes all candidates converge to the teacher, and the order is lost (RESULTS.md).

Neither the log nor the reference is needed: the set's rows and a few labelled rows to judge on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diet_ray.config import CotrainConfig, ModelsConfig, NetworkConfig
from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import derive, torch_generator
from diet_ray.training.curve import LossCurve
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import Recommender, adam, predict
from diet_ray.training.soft_rows import SoftRows, soft_epoch


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


@dataclass(frozen=True)
class Ranking:
    """What a candidate did on a set."""

    passes: list[Metrics]  # on the judging rows, after each pass
    training_loss: list[float]  # progressive, over all passes (`curve.py`)
    dense_parameters: int


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


def co_train(
    model: Recommender,
    rows: SoftRows,
    judged: Rows,
    tasks: Sequence[str],
    protocol: CotrainConfig,
    seed: int,
    after_pass: Callable[[Metrics], None] = lambda _metrics: None,
) -> Ranking:
    """Train `model` in place on the rows; judge it after every pass.

    rows.inputs and judged.ids: compact ids (`CompactIds`). seed: of the rows' order.
    """
    optimizer = adam(model, protocol.learning_rate)
    curve = LossCurve(len(rows) * protocol.passes)
    passes: list[Metrics] = []
    for number in range(protocol.passes):
        generator = torch_generator(seed, "co-training order", number)
        soft_epoch(model, optimizer, rows, protocol.batch_size, generator, curve.add)
        passes.append(measure(predict(model, judged.ids), judged.labels, tasks))
        after_pass(passes[-1])
    return Ranking(passes, curve.means(), model.dense.parameter_count)
