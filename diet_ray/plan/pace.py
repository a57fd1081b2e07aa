"""How fast this machine works, measured by a few steps on made rows of a run's shape.

Every measurement is made when it is first asked for and then kept, takes some tenths of a second
(a meta-gradient: as long as one takes), and calls the very functions that the job will call. The
rows are random: time does not depend on what they say. Tables have the blocks' sizes: how many ids
a batch holds, and whether their vectors lie in a cache, depends on them.

It is measured in a Ray worker, where the work will be done: Ray starts those with a low priority,
so that on a busy machine they are slower than the driver. Means count what others take of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from datetime import time as midnight
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import ray
import torch
from torch import Tensor

from diet_ray import devices, runtime
from diet_ray.config import CotrainConfig, DistillConfig, NetworkConfig, RunConfig, SyntheticConfig
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.logs.blocks import Blocks, Rows
from diet_ray.logs.sources.synthetic import Synthetic
from diet_ray.logs.staging import Stager, Window
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.scoring.alignment import alignment
from diet_ray.seeds import numpy_generator, torch_generator
from diet_ray.training.cotrain import co_trained
from diet_ray.training.model import Recommender, adam, predict, train_epoch
from diet_ray.training.soft_rows import SoftRows, soft_epoch

BUDGET = 0.5
"""Seconds of one measurement, at least."""
FEWEST = 4
"""Steps of one measurement, at least; the first is not counted, it pays for what comes once."""
STAGED_ROWS = 20_000
PREDICTED_ROWS = 4_096
CO_TRAINING_STEPS = (4, 16)
"""Of a short and a long co-training, whose difference is that of their steps alone."""
DAY_MS = 86_400_000

Result = TypeVar("Result")


def on_a_worker(function: Callable[..., Result], config: RunConfig) -> Result:
    """What the function says of a configuration, in a process as the job's trainings have it."""
    task = ray.remote(function).options(num_cpus=config.threads)
    with runtime.plain_errors():
        return ray.get(task.remote(config))


class Pace:
    """Of a run over blocks, published or expected; all in seconds on one process's threads."""

    def __init__(self, config: RunConfig, blocks: Blocks) -> None:
        self._config, self._blocks = config, blocks
        self._kept: dict[tuple[object, ...], float] = {}
        devices.use_device(0, config.threads)

    def training(self, network: NetworkConfig, batch_size: int) -> float:
        """Of a row in one epoch on real blocks, table and network."""

        def measure() -> float:
            ends: list[float] = []
            model, rows = Recommender(self._table, self._dense(network)), self._rows(batch_size)
            train_epoch(model, _repeated(rows, ends), 1e-3, after_batch=_noting(ends))
            return _mean_gap(ends) / batch_size

        return self._once(measure, "training", network, batch_size)

    def warm_up(self, network: NetworkConfig, batch_size: int) -> float:
        """Of a reduced set's row in one epoch of a warm-up, the network alone."""

        def measure() -> float:
            ends: list[float] = []
            dense, generator = self._dense(network), torch_generator(0, "pace")
            rows, optimizer = self._soft_rows(FEWEST * batch_size), adam(dense, 1e-3)
            while _goes_on(ends):
                soft_epoch(dense, optimizer, rows, batch_size, generator, _noting(ends))
            return _mean_gap(ends) / batch_size

        return self._once(measure, "warm_up", network, batch_size)

    def prediction(self, network: NetworkConfig) -> float:
        """Of a row whose logits are asked for."""

        def measure() -> float:
            model, rows = Recommender(self._table, self._dense(network)), self._rows(PREDICTED_ROWS)
            return _mean_seconds(lambda: predict(model, rows.ids)) / PREDICTED_ROWS

        return self._once(measure, "prediction", network)

    def alignment(self, network: NetworkConfig, count: int) -> float:
        """Of a row that addressing scores, by one JVP for so many."""

        def measure() -> float:
            proxy = self._dense(network)
            theta, flat, rows = (
                flatten_parameters(proxy),
                FlatNetwork(proxy),
                self._soft_rows(count),
            )
            targets = torch.sigmoid(rows.labels)
            with torch.no_grad():
                score = partial(alignment, flat, theta, theta, rows.inputs, targets)
                return _mean_seconds(score) / count

        return self._once(measure, "alignment", network, count)

    def meta_gradient(self, network: NetworkConfig, distill: DistillConfig) -> float:
        """Of one logical shard of an outer step."""
        inner = distill.inner

        def measure() -> float:
            proxy = self._dense(network)
            theta = flatten_parameters(proxy)
            length = (inner.window + inner.steps) // 2  # the mean of the lengths that are drawn
            rows = self._soft_rows(length * inner.batch_size)
            targets = self._soft_rows(distill.target_batch)
            batches = inner_batches(len(rows), inner.batch_size, length, torch_generator(0, "pace"))
            started = _now()
            meta_gradient(
                FlatNetwork(proxy),
                theta,
                rows.inputs,
                rows.labels,
                batches,
                targets.inputs,
                torch.sigmoid(targets.labels),
                inner,
            )
            return _now() - started

        shape = inner.model_dump_json(exclude={"networks"})
        return self._once(measure, "meta_gradient", network, shape, distill.target_batch)

    def co_training(self, network: NetworkConfig, protocol: CotrainConfig, set_rows: int) -> float:
        """Of all seeds of a candidate on a set of so many rows."""

        def measure() -> float:
            short, long = (
                self._co_train(network, protocol, set_rows, n) for n in CO_TRAINING_STEPS
            )
            step = max(long - short, 0) / (CO_TRAINING_STEPS[1] - CO_TRAINING_STEPS[0])
            return short + max(protocol.steps - CO_TRAINING_STEPS[0], 0) * step

        return self._once(measure, "co_training", network, protocol.model_dump_json(), set_rows)

    def _co_train(
        self, network: NetworkConfig, protocol: CotrainConfig, set_rows: int, steps: int
    ) -> float:
        blocks, models = self._blocks, self._config.models
        last = blocks.blocks[-1].vocabulary_sizes
        sizes = {field: min(last[field], set_rows + 1) for field in blocks.fields}
        ids = torch.from_numpy(_ids(list(sizes.values()), set_rows))
        rows = SoftRows(ids, torch.randn(set_rows, len(blocks.tasks)))
        started = _now()
        few = protocol.model_copy(update={"steps": steps})
        co_trained(network, models, rows, sizes, len(blocks.tasks), few, seed=0)
        return _now() - started

    def staging(self) -> float:
        """Of a row of the raw log in the first pass of its preparation."""

        def measure() -> float:
            made = SyntheticConfig(rows=STAGED_ROWS, rows_per_part=STAGED_ROWS)
            change = {"fields": None, "tasks": None, "synthetic": made}
            source = Synthetic(self._config.raw_logs.model_copy(update=change), seed=0)
            first = datetime.combine(made.start, midnight(0), UTC).timestamp() * 1_000
            window = Window("historical-1", round(first), round(first) + made.days * DAY_MS)
            with tempfile.TemporaryDirectory() as folder:
                started = _now()
                Stager(source, source.parts()[0], 0, folder, [window]).stage(None)
                seconds = _now() - started
            columns = len(source.fields) + len(source.tasks)
            own = len(self._blocks.fields) + len(self._blocks.tasks)
            return seconds / STAGED_ROWS * own / columns

        return self._once(measure, "staging")

    def _once(
        self, measure: Callable[[], float], what: str, *of: NetworkConfig | str | int
    ) -> float:
        named = (
            n.model_dump_json(exclude={"label"}) if isinstance(n, NetworkConfig) else n for n in of
        )
        key = (what, *named)
        if key not in self._kept:
            self._kept[key] = measure()
        return self._kept[key]

    @cached_property
    def _table(self) -> EmbeddingTable:
        """As large as the last block's; trained on by one measurement after the other."""
        sizes, models = self._blocks.blocks[-1].vocabulary_sizes, self._config.models
        by_field = {field: sizes[field] for field in self._blocks.fields}
        return EmbeddingTable(by_field, models.embedding_dim, models.embedding_std, seed=0)

    def _dense(self, network: NetworkConfig) -> DenseNetwork:
        fields, tasks = len(self._blocks.fields), len(self._blocks.tasks)
        return fresh_network(network, self._config.models, fields, tasks, 0, "pace")

    def _rows(self, count: int) -> Rows:
        labels = numpy_generator(0, "pace").integers(2, size=(count, len(self._blocks.tasks)))
        ids = _ids(self._table.sizes, count)
        return Rows(np.arange(count), ids, labels.astype(np.float32))

    def _soft_rows(self, count: int) -> SoftRows:
        shape = count, len(self._blocks.fields), self._config.models.embedding_dim
        return SoftRows(torch.randn(shape) * 0.02, torch.randn(count, len(self._blocks.tasks)))


def _now() -> float:
    return time.monotonic()


def _noting(ends: list[float]) -> Callable[[int, float], None]:
    """What a training calls after a batch: notes when that was."""
    return lambda *_: ends.append(_now())


def _ids(sizes: list[int], count: int) -> np.ndarray:
    """Any ids (count, F) int64 below the sizes."""
    draw = numpy_generator(0, "pace")
    return np.stack([draw.integers(size, size=count) for size in sizes], axis=1)


def _goes_on(ends: list[float]) -> bool:
    return len(ends) <= FEWEST or ends[-1] - ends[0] < BUDGET


def _repeated(rows: Rows, ends: list[float]) -> Iterator[Rows]:
    """The same batch until enough steps have ended."""
    while _goes_on(ends):
        yield rows


def _mean_gap(ends: list[float]) -> float:
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _mean_seconds(action: Callable[[], Tensor | np.ndarray]) -> float:
    ends: list[float] = []
    while _goes_on(ends):
        action()
        ends.append(_now())
    return _mean_gap(ends)
