"""A candidate: warmed up to its best epoch, then trained and judged on real blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diet_ray.config import NetworkConfig, ProtocolConfig
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork, EmbeddingShapeError, fresh_network
from diet_ray.training import candidate as candidate_module
from diet_ray.training.candidate import best_epoch, train_through, warm_up
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import Recommender, predict
from diet_ray.training.soft_rows import SoftRows
from tests.made import made_blocks, small_config

CONFIG = small_config("unused")
TASKS = ("task_0", "task_1")


def protocol(**changes: object) -> ProtocolConfig:
    return CONFIG.evaluation.protocol.model_copy(update=changes)


def dense_network(candidate: int = 0, seed: int = 0) -> DenseNetwork:
    network = CONFIG.evaluation.candidates[candidate]
    return fresh_network(network, CONFIG.models, 3, 2, seed)


def fresh_table(blocks: Blocks, std: float = 0.3) -> EmbeddingTable:
    return EmbeddingTable(blocks.historical[0].vocabulary_sizes, 4, std, seed=2)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return made_blocks(str(tmp_path_factory.mktemp("blocks")), rows=600)


@pytest.fixture
def table(blocks: Blocks) -> EmbeddingTable:
    return fresh_table(blocks)


@pytest.fixture
def validation(blocks: Blocks) -> Rows:
    return read_block(blocks, blocks.block("validation"))


@pytest.fixture
def rows(blocks: Blocks, table: EmbeddingTable) -> SoftRows:
    """Real rows with confident soft labels."""
    real = read_block(blocks, blocks.historical[0]).take(slice(0, 200))
    labels = torch.from_numpy(real.labels * 6 - 3)
    return SoftRows(table(torch.from_numpy(real.ids)).detach(), labels)


def run(
    dense: DenseNetwork,
    table: EmbeddingTable,
    rows: SoftRows,
    validation: Rows,
    **changes: object,
) -> list[Metrics]:
    return warm_up(dense, table, rows, validation, TASKS, protocol(**changes), seed=9)


def same(first: DenseNetwork, second: DenseNetwork) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_rows_of_another_width_are_refused_before_any_step(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    dense, wide = dense_network(), replace(rows, inputs=torch.zeros(200, 3, 8))
    with pytest.raises(EmbeddingShapeError, match=r"\(16, 3, 8\).* takes 3 fields of width 4"):
        run(dense, table, wide, validation)
    assert same(dense, dense_network())


def test_warm_up_ends_with_its_best_epoch(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    dense = dense_network()
    # So fast that epochs get worse again, and the last one is not the best.
    history = run(dense, table, rows, validation, epochs=6, warm_up_learning_rate=0.3)
    aucs = [metrics.auc for metrics in history]
    assert len(aucs) == 6
    assert aucs[-1] < max(aucs)
    logits = predict(Recommender(table, dense), validation.ids)
    assert measure(logits, validation.labels, TASKS) == history[int(np.argmax(aucs))]


def test_warm_up_is_a_function_of_its_seed(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    first, second = dense_network(), dense_network()
    run(first, table, rows, validation)
    torch.rand(3)
    run(second, table, rows, validation)
    assert same(first, second)
    assert not same(first, dense_network())


def test_warm_up_leaves_the_table_alone(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    before = table.weight.detach().clone()
    run(dense_network(), table, rows, validation)
    assert torch.equal(table.weight, before)


def test_warm_up_learns_from_soft_labels(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    history = run(dense_network(), table, rows, validation, epochs=8)
    assert max(metrics.auc for metrics in history) > 0.55


@pytest.mark.parametrize("candidate", [0, 1], ids=["dcn", "wukong"])
def test_a_candidate_learns_above_chance(blocks: Blocks, candidate: int) -> None:
    model = Recommender(fresh_table(blocks, std=0.05), dense_network(candidate))
    through = [*blocks.historical, blocks.block("subsequent")]
    losses = train_through(model, blocks, through, protocol(batch_size=16))
    assert np.mean(losses[-15:]) < np.mean(losses[:15])
    test = read_block(blocks, blocks.block("test"))
    assert measure(predict(model, test.ids), test.labels, TASKS).auc > 0.65


def test_training_grows_the_table_to_hold_the_block(blocks: Blocks) -> None:
    table = fresh_table(blocks)
    subsequent = blocks.block("subsequent")
    model = Recommender(table, dense_network().requires_grad_(False))
    train_through(model, blocks, [subsequent], protocol())
    assert table.sizes == list(subsequent.vocabulary_sizes.values())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.99, 1])
def test_a_share_is_the_first_rows_of_the_stream(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Whatever the batches and the blocks end in; at least a row."""
    through = [*blocks.historical, blocks.block("subsequent")]
    stream = Rows.concatenate([read_block(blocks, block) for block in through]).row_ids.tolist()
    seen: list[list[int]] = []

    def only_read(_model: Recommender, batches: Iterable[Rows], *_: object, **__: object) -> None:
        seen.extend(batch.row_ids.tolist() for batch in batches)

    monkeypatch.setattr(candidate_module, "train_epoch", only_read)
    model = Recommender(fresh_table(blocks), dense_network())
    train_through(model, blocks, through, protocol(batch_size=64), share)
    assert [row for batch in seen for row in batch] == stream[: max(round(share * len(stream)), 1)]
    whole = [min(64, 600 - start) for _ in through for start in range(0, 600, 64)]
    assert [len(batch) for batch in seen[:-1]] == whole[: len(seen) - 1]


def test_of_equally_good_epochs_the_last_is_kept() -> None:
    assert best_epoch([0.6, 0.7, 0.7, 0.65]) == 3
    assert best_epoch([]) == 0


def own_network() -> DenseNetwork:
    """With BatchNorm and dropout."""
    network = NetworkConfig(name="tests.models.own_network:Whole", parameters={"units": [8]})
    return fresh_network(network, CONFIG.models, 3, 2, 0)


def test_a_whole_network_is_warmed_up_and_trained_with_its_statistics(
    blocks: Blocks, table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    """Its best epoch's statistics come back with its parameters; a lone last row is no error."""
    dense = own_network()
    odd = SoftRows(rows.inputs[:97], rows.labels[:97])  # 6 batches of 16 rows and one of a row
    history = run(dense, table, odd, validation, epochs=4)
    found = measure(predict(Recommender(table, dense), validation.ids), validation.labels, TASKS)
    assert found == history[best_epoch([metrics.auc for metrics in history]) - 1]
    before = dense.interaction.layers[1].running_mean.clone()
    model = Recommender(table, dense)
    train_through(model, blocks, [blocks.block("subsequent")], protocol())
    assert not torch.equal(dense.interaction.layers[1].running_mean, before)


def test_what_a_warm_up_drops_is_a_function_of_its_seed(
    table: EmbeddingTable, rows: SoftRows, validation: Rows
) -> None:
    first, second = own_network(), own_network()
    run(first, table, rows, validation)
    torch.rand(1)
    run(second, table, rows, validation)
    assert same(first, second)
