"""One stage: what it continues, what it does not, and how long it bears lost servers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from diet_ray import progress, telemetry, tensor_files
from diet_ray.config import RunConfig
from diet_ray.distill import stage as module
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stage import distill_stage
from diet_ray.distill.start import synthesise
from diet_ray.distill.workers import MetaWorkers
from diet_ray.errors import DivergedError
from diet_ray.logs.blocks import read_block
from diet_ray.memory import artifact
from diet_ray.memory.artifact import RankingData
from diet_ray.memory.coordinator import ServerLostError, start_steps
from diet_ray.memory.durable import durable_steps
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.model import predict
from tests.distill.prepared import LocalWorkers, Prepared, open_stage, phi, run_config
from tests.distill.slow import SlowStage
from tests.recorded import Recorded
from tests.sets import publish_set


def test_what_another_configuration_left_is_not_continued(
    undisturbed: Prepared, tmp_path: Path
) -> None:
    """An interrupted stage is work in progress of the run that began it, and of no other."""
    config = undisturbed.config(tmp_path, "scores")
    other = run_config(tmp_path, distill={"inner": {"learning_rate": 0.5}})
    left = open_stage(other, undisturbed.blocks, 1)
    rows = artifact.read(stage_uri(run_config(undisturbed.folder), 1)).take(slice(0, 9))
    publish_set(left.work("start"), rows, left.describe(len(rows)))
    start_steps(left.work("memory"))

    workers = MetaWorkers(config)
    try:
        distill_stage(config, undisturbed.blocks, 1, workers)
    finally:
        workers.close()
    expected = artifact.checksums(stage_uri(run_config(undisturbed.folder), 1))
    assert artifact.checksums(stage_uri(config, 1)) == expected
    assert durable_steps(left.work("memory")) == []


def test_an_inner_loop_that_diverges_stops_the_stage_by_name(
    undisturbed: Prepared, tmp_path: Path
) -> None:
    """Nothing is published, and what the memory holds is what it held."""
    diverges = {"inner": {"learning_rate": 1e9}}
    config = undisturbed.config(tmp_path, "scores", distill=diverges)
    workers = MetaWorkers(config)
    try:
        with pytest.raises(DivergedError, match=r"stage 1, outer step 1: .* 3 of 3 shards"):
            distill_stage(config, undisturbed.blocks, 1, workers)
    finally:
        workers.close()
    stage = open_stage(config, undisturbed.blocks, 1)
    assert durable_steps(stage.work("memory")) == [0]
    assert not artifact.published(stage_uri(config, 1))


def test_without_outer_steps_rows_keep_the_references_labels(
    undisturbed: Prepared, tmp_path: Path
) -> None:
    """The same rows as with them; the cheapest rival of what is learned."""
    config = undisturbed.config(tmp_path, "scores", distill={"outer_steps": 0})
    workers = MetaWorkers(config)
    try:
        distill_stage(config, undisturbed.blocks, 1, workers)
    finally:
        workers.close()
    rows = artifact.read(stage_uri(config, 1))
    learned = artifact.read(stage_uri(run_config(undisturbed.folder), 1))
    assert np.array_equal(rows.anchors, learned.anchors)
    assert np.array_equal(rows.labels, rows.taught)
    assert not rows.moved.any()
    assert not np.allclose(learned.labels, learned.taught, atol=1e-3)


def test_few_shards_that_are_not_finite_are_told_of(
    prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 2 rounds of 4 steps of 3 shards one in eight may be left out: three."""
    config = run_config(prepared.folder, distill={"dropped_limit": 1 / 8})
    stage, memory = open_stage(config, prepared.blocks, 1), Counted(step=5, dropped=3)
    with caplog.at_level("WARNING", logger=progress.logger.name):
        module._tell_dropped(stage, cast(Any, memory), 2)
    assert "2 of 3 shards" in caplog.text
    assert "so far: 3 of the stage's 24 (distill.dropped_limit allows 3)" in caplog.text
    with pytest.raises(DivergedError, match=r"lower distill.inner.learning_rate \(0.001\)"):
        module._tell_dropped(stage, cast(Any, Counted(step=5, dropped=4)), 1)


def test_an_outer_step_is_measured_by_its_finite_shards(recorded: Recorded) -> None:
    module._measure(3, [0.5, math.nan, 1.5], 2.5)
    module._measure(4, [math.nan] * 3, 0.0)
    assert recorded.values(telemetry.OUTER_STEP) == [3, 4]
    assert recorded.values(telemetry.OUTER_LOSS) == [1.0]
    assert recorded.values(telemetry.GRADIENT_NORM) == [2.5, 0.0]
    assert recorded.values(telemetry.SHARDS_LEFT_OUT) == [1, 3]


@dataclass(frozen=True)
class Counted:
    """What a memory tells of itself."""

    step: int
    dropped: int


class Holds:
    """A memory whose rows have all ids but the even ones."""

    def holds(self, ids: np.ndarray) -> np.ndarray:
        return ids % 2 == 1


def sample_of(prepared: Prepared, config: RunConfig) -> RankingData:
    memory: Any = Holds()
    return module._ranking_data(open_stage(config, prepared.blocks, 1), memory)


@pytest.mark.parametrize("wanted", [1, 150, 400, 100_000])
def test_a_sample_is_drawn_from_the_validation_block(prepared: Prepared, wanted: int) -> None:
    """400 rows in two fragments; drawn without repetition, by the run's seed alone."""
    blocks, block = prepared.blocks, prepared.blocks.block("validation")
    real = read_block(blocks, block)
    config = run_config(prepared.folder, memory={"validation_rows": wanted})
    found = sample_of(prepared, config)
    assert found.of == block.rows == 400
    assert len(found.rows) == min(wanted, block.rows)

    place = {int(row): number for number, row in enumerate(real.row_ids)}
    chosen = [place[int(row)] for row in found.rows.row_ids]
    assert chosen == sorted(set(chosen))
    ids = real.ids[chosen]
    assert np.array_equal(found.rows.ids, np.where(ids % 2 == 1, ids, 0))
    assert np.array_equal(found.rows.labels, real.labels[chosen])
    taught = predict(phi(config, 1).recommender, real.ids)
    assert np.allclose(found.taught, taught[chosen], rtol=1e-5, atol=1e-6)

    again = sample_of(prepared, config)
    assert np.array_equal(again.rows.row_ids, found.rows.row_ids)
    other = sample_of(prepared, config.model_copy(update={"seed": 6}))
    assert np.array_equal(other.rows.row_ids, found.rows.row_ids) == (wanted >= block.rows)


def test_a_published_stage_holds_the_sample(undisturbed: Prepared) -> None:
    config, blocks = run_config(undisturbed.folder), undisturbed.blocks
    validation = read_block(blocks, blocks.block("validation"))
    trained = [block.rows for block in blocks.blocks if block.role in ("historical", "subsequent")]
    for number in (1, 2):
        uri = stage_uri(config, number)
        found, anchors = artifact.read_ranking_data(uri), artifact.read(uri).anchors
        assert found.of == len(found.rows) == len(validation)  # by default more than there are
        assert found.full_rows == sum(trained)
        for field in range(anchors.shape[1]):
            ids = validation.ids[:, field]
            expected = [i if i in anchors[:, field] else 0 for i in ids]
            assert found.rows.ids[:, field].tolist() == expected
        assert np.array_equal(found.rows.labels, validation.labels)


def test_a_published_sample_is_labelled_by_the_stages_own_reference(undisturbed: Prepared) -> None:
    """Which knows the log's ids, also those that the set lacks."""
    config, blocks = run_config(undisturbed.folder), undisturbed.blocks
    validation = read_block(blocks, blocks.block("validation"))
    samples = [artifact.read_ranking_data(stage_uri(config, number)) for number in (1, 2)]
    references = [phi(config, number) for number in (1, 2)]
    for number, (sample, reference) in enumerate(zip(samples, references, strict=True), start=1):
        rows = artifact.read(stage_uri(config, number))
        own = predict(reference.recommender, rows.anchors.astype(np.int64))
        assert np.allclose(rows.taught, own, rtol=1e-5, atol=1e-6)
        assert not np.allclose(rows.labels, own, atol=1e-3)  # others were learned
        assert np.array_equal(sample.taught, predict(reference.recommender, validation.ids))
        assert not np.array_equal(sample.rows.ids, validation.ids)
        by_held_ids = predict(reference.recommender, sample.rows.ids)
        assert not np.allclose(sample.taught, by_held_ids, atol=1e-3)
    assert not np.allclose(samples[0].taught, samples[1].taught, atol=1e-3)


def learned_rows(prepared: Prepared) -> SyntheticRows:
    """As many rows of the first stage as it has, moved by learning."""
    config, draw = run_config(prepared.folder), np.random.default_rng(0)
    block = read_block(prepared.blocks, prepared.blocks.historical[0])
    count, _ = memory_sizes(config, prepared.blocks)[0]
    start = synthesise(block.take(slice(0, count)), phi(config, 1))
    deltas, change = (
        (scale * draw.normal(size=shape)).astype(np.float32)
        for shape, scale in (((count, *start.deltas.shape[1:]), 0.02), (start.labels.shape, 0.5))
    )
    return replace(start.with_deltas(deltas), labels=start.labels + change)


def test_a_stage_is_what_plain_loops_make(prepared: Prepared, tmp_path: Path) -> None:
    """All of it: boundary, fusion, both addressings, the outer steps, one phi's space to another.

    Clipping and the schedule have their part. What float32 leaves of the smallest gradients is
    below a twentieth of a step.
    """
    outer = {"clip": 1.0}
    config = prepared.config(
        tmp_path,
        memory={"anchored": True, "delta_precision": "float32"},
        distill={"unseen": True, "outer": outer},
    )
    previous, workers = learned_rows(prepared), MetaWorkers(config)
    before = open_stage(config, prepared.blocks, 1).describe(len(previous))
    publish_set(stage_uri(config, 1), previous, before, rows_per_file=9)
    try:
        distill_stage(config, prepared.blocks, 2, workers)
    finally:
        workers.close()
    found = artifact.read(stage_uri(config, 2))
    slow = SlowStage(config, prepared.blocks, 2)
    expected = slow.run(previous)
    assert slow.clipped
    for name in ("stages", "source_rows", "anchors"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    distances = found.dense_deltas() - expected.deltas, found.labels - expected.labels
    steps = config.distill.outer.embedding_step * slow.before.unit, config.distill.outer.label_step
    for distance, step in zip(distances, steps, strict=True):
        assert np.abs(distance).max() < 0.05 * step


class UnluckyMemory:
    """A memory at its last durable step, whose servers are lost the first `losses` times."""

    client = range(9)  # whose length alone is asked for

    def __init__(self, step: int, losses: int) -> None:
        self.step, self._losses = step, losses
        self.rollbacks = 0

    def commit(self, *_: Any) -> float:
        self._lose()
        self.step += 1
        return 0.0

    def write(self, target: RowFiles) -> RowFiles:
        self._lose()
        return target

    def holds(self, ids: np.ndarray) -> np.ndarray:
        return ids > 0

    def make_durable(self) -> None:
        pass

    def rollback(self) -> None:
        self.rollbacks += 1

    def leave_nodes(self) -> None:
        pass

    def _lose(self) -> None:
        self._losses -= 1
        if self._losses >= 0:
            raise ServerLostError("lost")


class NoMetaGradients(LocalWorkers):
    def meta_gradients(self, *_: Any) -> list[float]:
        return []


def optimise(prepared: Prepared, folder: Path, memory: UnluckyMemory) -> None:
    """The outer steps of stage 1, with targets that were found already."""
    stage = open_stage(prepared.config(folder), prepared.blocks, 1)
    targets = read_block(stage.blocks, stage.block).row_ids[:5]
    for number in range(stage.config.distill.rounds):
        found = {"targets": targets, "active": np.arange(3)}
        tensor_files.write(stage.work(f"round={number}.safetensors"), found)
    workers: Any = NoMetaGradients(stage.config)
    unlucky: Any = memory
    ended = module._optimise(replace(stage, workers=workers), unlucky)
    assert ended.files.uri == stage_uri(stage.config, 1)


def total_steps(prepared: Prepared) -> int:
    distill = run_config(prepared.folder).distill
    return distill.rounds * distill.outer_steps


def test_a_server_lost_after_the_last_step_is_waited_for_and_counted(
    prepared: Prepared, tmp_path: Path, recorded: Recorded
) -> None:
    memory = UnluckyMemory(step=total_steps(prepared), losses=1)
    optimise(prepared, tmp_path, memory)
    assert memory.rollbacks == 1
    ((count, tags),) = recorded.given[telemetry.RETRIES.name]
    assert (count, tags["what"]) == (1, "memory rollback")


@pytest.mark.parametrize(("losses", "given_up"), [(4, False), (5, True)])
def test_servers_that_are_lost_again_and_again(
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: int,
    given_up: bool,
) -> None:
    monkeypatch.setattr(module, "LOSSES_WITHOUT_PROGRESS", 5)
    memory = UnluckyMemory(step=3, losses=losses)
    if given_up:
        with pytest.raises(ServerLostError):
            optimise(prepared, tmp_path, memory)
    else:
        optimise(prepared, tmp_path, memory)
        assert memory.step == total_steps(prepared)
    assert memory.rollbacks == losses
