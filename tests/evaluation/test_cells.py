"""One cell: what its result depends on, and that it depends on nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from diet_ray import documents, storage
from diet_ray.config import NetworkConfig
from diet_ray.evaluation.cells import (
    Cell,
    read_cell,
    read_logits,
    read_validation_logits,
    run_cell,
)
from diet_ray.evaluation.methods import METHODS, REDUCED, REFERENCE_FREE, Labels, reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import Shared
from diet_ray.logs.blocks import Rows, read_block
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.seeds import derive, torch_generator
from diet_ray.training.cotrain import CompactIds, co_train, fresh_candidate
from diet_ray.training.metrics import Metrics, mean_metrics, measure
from diet_ray.training.model import Recommender, predict
from diet_ray.training.reference import reference_uri
from diet_ray.training.soft_rows import SoftRows
from tests.evaluation.prepared import Prepared, made_cell, publish_distilled, run_here
from tests.training import by_hand

SELECTIONS = ("random", "kmeans", "el2n")
WITH_REFERENCE = set(METHODS) - set(REFERENCE_FREE)


def keys(run: Run, change: Callable[[Cell], Cell] = lambda cell: cell) -> dict[str, str]:
    return {method: change(made_cell(run, method)).key for method in METHODS}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {method for method in before if before[method] != after[method]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"resources": {"evaluation_tasks": 1}, "name": "other"}, set()),
        ({"evaluation": {"seeds": 9, "candidates": [{"name": "dcn"}]}}, set()),
        ({"distill": {"rounds": 7}, "memory": {"keep": 0.1, "truth_blend": 0.5}}, set()),
        ({"benchmark": {"percentile": 50}}, {"el2n"}),
        ({"memory": {"ratio": 0.01}}, set(SELECTIONS)),
        ({"seed": 77}, set(METHODS)),
        ({"threads": 2}, set(METHODS)),
        ({"models": {"embedding_std": 0.02}}, set(METHODS)),
    ],
)
def test_a_setting_changes_the_cells_that_depend_on_it(
    prepared: Prepared, overrides: dict[str, Any], expected: set[str]
) -> None:
    run, candidate = prepared.run(), prepared.config().evaluation.candidates[0]
    other = prepared.run(**overrides)
    before = keys(run)
    protocol = run.config.evaluation.protocol
    after = keys(other, lambda cell: replace(cell, candidate=candidate, protocol=protocol))
    assert changed(before, after) == expected
    assert len(set(before.values())) == len(METHODS)


@pytest.mark.parametrize(
    ("keys_of_protocol", "expected"),
    [
        ({"batch_size": 32}, set(METHODS)),
        ({"learning_rate": 0.5}, set(METHODS)),
        ({"warm_up_batch_size": 8}, set(REDUCED)),
        ({"warm_up_learning_rate": 0.5}, set(REDUCED)),
        ({"epochs": 3}, set(REDUCED)),
    ],
)
def test_a_protocol_counts_where_it_is_followed(
    prepared: Prepared, keys_of_protocol: dict[str, Any], expected: set[str]
) -> None:
    run = prepared.run()
    protocol = run.config.evaluation.protocol.model_copy(update=keys_of_protocol)
    assert changed(keys(run), keys(run, lambda cell: replace(cell, protocol=protocol))) == expected


def test_a_candidate_is_its_network_whatever_it_is_called(prepared: Prepared) -> None:
    cell = made_cell(prepared.run(), "warm")
    labelled = cell.candidate.model_copy(update={"label": "small"})
    assert replace(cell, candidate=labelled).key == cell.key
    wider = NetworkConfig(name="dcn", parameters={"dnn_hidden_units": [9]})
    assert replace(cell, candidate=wider).key != cell.key
    assert replace(cell, seed=1).key != cell.key


def test_the_share_of_truth_counts_for_blended_labels_alone(prepared: Prepared) -> None:
    one, other = (prepared.run(memory={"truth_blend": share}) for share in (0.2, 0.4))
    for labels in ("soft", "hard"):
        assert made_cell(one, "random", labels=labels).key == made_cell(
            other, "random", labels=labels
        ).key  # fmt: skip
    blended = {made_cell(run, "random", labels="blended").key for run in (one, other)}
    assert len(blended) == 2
    assert len({made_cell(one, "random", labels=x).key for x in ("soft", "hard", "blended")}) == 3


def test_another_distilled_set_changes_only_its_own_method(prepared: Prepared) -> None:
    before = keys(prepared.run())
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=7)
    assert changed(before, keys(prepared.run())) == {"distilled"}


def test_another_reference_changes_what_starts_from_it(prepared: Prepared) -> None:
    before = keys(prepared.run())
    path = storage.join(reference_uri(prepared.config(), 2), "reference.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "identity": "f" * 64})
    assert changed(before, keys(prepared.run())) == WITH_REFERENCE


def test_the_key_says_nothing_about_the_place(prepared: Prepared) -> None:
    before = keys(prepared.run())
    assert keys(prepared.copy(prepared.folder.parent / "elsewhere").run()) == before


@pytest.mark.parametrize("method", [m for m in METHODS if m != "el2n"])
def test_a_cell_is_judged_kept_and_repeatable(prepared: Prepared, method: str) -> None:
    run = prepared.run()
    cell = made_cell(run, method, seed=1, candidate=run.config.evaluation.candidates[1])
    assert read_cell(cell) is None
    result = run_here(cell)
    assert read_cell(cell) == result
    epochs = run.config.evaluation.protocol.epochs if method in REDUCED else 0
    assert len(result.warm_up_auc) == epochs
    metrics, logits = Metrics(**result.test), read_logits(cell)
    test = read_block(run.blocks, run.blocks.block("test"))
    assert measure(logits, test.labels, run.blocks.tasks) == metrics
    validation = read_block(run.blocks, run.blocks.block("validation"))
    (on_validation,) = read_validation_logits(cell)  # of one seed
    assert asdict(measure(on_validation, validation.labels, run.blocks.tasks)) == result.validation
    assert 0.3 < metrics.auc < 1
    assert result.validation != result.test

    assert replace(run_here(cell), seconds=result.seconds) == result
    assert np.array_equal(read_logits(cell), logits)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"test": 1', None])
def test_a_damaged_result_is_none(prepared: Prepared, content: bytes | None) -> None:
    """So its cell is trained again; without its logits a result is none either."""
    cell = made_cell(prepared.run(), "warm", seed=1)
    result = run_here(cell)
    if content is None:
        Path(cell.uri("safetensors")).unlink()
    else:
        Path(cell.uri()).write_bytes(content)
    assert read_cell(cell) is None
    assert replace(run_here(cell), seconds=result.seconds) == result
    assert read_cell(cell) is not None


def test_a_changed_number_of_a_result_is_seen(prepared: Prepared) -> None:
    """Trained again for a result's, refused for a logit's."""
    cell = made_cell(prepared.run(), "warm", seed=1)
    run_here(cell)
    logits = Path(cell.uri("safetensors"))
    content = bytearray(logits.read_bytes())
    content[-3] ^= 1
    logits.write_bytes(content)
    with pytest.raises(storage.StorageError, match="not those of its seal; remove it and run aga"):
        read_logits(cell)
    kept = storage.read_json(cell.uri())
    storage.write_json(cell.uri(), {**kept, "dense_parameters": kept["dense_parameters"] + 1})
    assert read_cell(cell) is None


def test_seeds_and_labels_differ(prepared: Prepared) -> None:
    run = prepared.run()
    cells = [
        *(made_cell(run, "random", seed=seed) for seed in (0, 1)),
        made_cell(run, "random", labels="hard"),
        made_cell(run, "distilled"),
        made_cell(run, "distilled", labels="hard"),
    ]
    assert len({run_here(cell).test["auc"] for cell in cells}) == len(cells)


def test_a_warm_start_is_the_reduced_methods_start(prepared: Prepared) -> None:
    """Without a warm-up, which alone tells them apart, two methods end alike."""
    run = prepared.run()
    warm, random = (made_cell(run, method) for method in ("warm", "random"))
    frozen = random.protocol.model_copy(update={"warm_up_learning_rate": 1e-30})
    assert run_here(replace(random, protocol=frozen)).test == run_here(warm).test


def test_results_of_one_method_lie_together(prepared: Prepared) -> None:
    own = NetworkConfig(name="tests.models.own_network:OwnNetwork")
    cell = made_cell(prepared.run(), "warm", candidate=own)
    place = prepared.config().place(
        "evaluation", "cells", "warm", "tests.models.own_network.OwnNetwork"
    )
    assert cell.uri() == f"{place}/{cell.key}.json"
    assert cell.uri("safetensors") == f"{place}/{cell.key}.safetensors"


def slow_warm_up(
    cell: Cell, dense: DenseNetwork, table: EmbeddingTable, rows: SyntheticRows, judge: Rows
) -> list[float]:
    """Trains `dense` to the epoch that is best on `judge`; the mean AUC of every epoch there."""
    optimizer = torch.optim.Adam(dense.parameters(), lr=cell.protocol.warm_up_learning_rate)
    seed, size = cell.run.config.seed, cell.protocol.warm_up_batch_size
    embeddings = torch.from_numpy(rows.embeddings(table))
    own_seed = derive(seed, "candidate warm-up", cell.seed)
    networks, aucs = [], []
    for epoch in range(cell.protocol.epochs):
        draw = torch_generator(own_seed, "warm-up order", epoch)
        order = torch.randperm(len(rows), generator=draw).numpy()
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            labels = torch.tensor(rows.labels[batch]).sigmoid()
            losses = dense(embeddings[batch], labels)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        logits = predict(Recommender(table, dense), judge.ids)
        by_task = zip(judge.labels.T, logits.T, strict=True)
        aucs.append(float(np.mean([roc_auc_score(truth, found) for truth, found in by_task])))
        networks.append(copy.deepcopy(dense.state_dict()))
    dense.load_state_dict(networks[int(np.argmax(aucs))])
    return aucs


def slow_cell(
    prepared: Prepared, cell: Cell, rows: SyntheticRows | None, judge: Rows
) -> tuple[Recommender, list[float]]:
    """A cell's model by plain loops, and the AUCs of its warm-up, if it has one."""
    run, protocol, seed = cell.run, cell.protocol, cell.run.config.seed
    dense = fresh_network(cell.candidate, run.config.models, 3, 2, seed, "candidate", cell.seed)
    sizes, models = run.blocks.block("subsequent").vocabulary_sizes, run.config.models
    if cell.method in ("full", "cold"):
        own_seed = derive(seed, "candidate table", cell.seed)
        table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, own_seed)
    else:
        table = prepared.reference.table
    aucs = [] if rows is None else slow_warm_up(cell, dense, table, rows, judge)
    table.grow(sizes)
    names = ["subsequent"]
    if cell.method == "full":
        names = ["historical-1", "historical-2", "subsequent"]
    optimizer = torch.optim.Adam([table.weight, *dense.parameters()], lr=protocol.learning_rate)
    for name in names:
        block = read_block(run.blocks, run.blocks.block(name))
        for start in range(0, len(block), protocol.batch_size):
            batch = block.take(slice(start, start + protocol.batch_size))
            losses = dense(table(torch.tensor(batch.ids)), torch.tensor(batch.labels))
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
    return Recommender(table, dense), aucs


def float32_distance(logits: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in units of the logits' own spread."""
    return float(np.abs(logits - expected).max() / expected.std())


@pytest.mark.parametrize("method", ["full", "cold", "warm", "distilled"])
def test_a_cell_is_what_plain_loops_train(prepared: Prepared, method: str) -> None:
    run = prepared.run()
    shared = Shared.load(run.reference(), run.blocks, run.config.seed)
    rows = artifact.read(run.distilled) if method == "distilled" else None
    cell = made_cell(run, method, seed=1)
    result = run_cell(cell, shared, rows)
    model, aucs = slow_cell(prepared, cell, rows, shared.validation)
    assert float32_distance(read_logits(cell), predict(model, shared.test.ids)) < 1e-4
    assert result.warm_up_auc == pytest.approx(aucs, abs=1e-4)
    for other in {"full", "cold", "warm"} - {method}:
        wrong, _ = slow_cell(prepared, replace(cell, method=other), None, shared.validation)
        assert float32_distance(read_logits(cell), predict(wrong, shared.test.ids)) > 1e-2


def test_the_warm_up_ends_where_validation_says_so(prepared: Prepared) -> None:
    """Not where test does: its rows say the opposite here, so its best epoch is the worst."""
    run, cell = prepared.run(), made_cell(prepared.run(), "distilled")
    fast = cell.protocol.model_copy(update={"epochs": 5, "warm_up_learning_rate": 0.1})
    cell, rows = replace(cell, protocol=fast), artifact.read(run.distilled)
    shared = Shared.load(run.reference(), run.blocks, run.config.seed)
    validation = shared.validation
    opposite = replace(validation, labels=1 - validation.labels)
    result = run_cell(cell, replace(shared, test=opposite), rows)

    model, aucs = slow_cell(prepared, cell, rows, validation)
    wrong, opposite_aucs = slow_cell(prepared, cell, rows, opposite)
    assert np.argmax(aucs) != np.argmax(opposite_aucs)
    assert result.warm_up_auc == pytest.approx(aucs, abs=1e-4)
    assert float32_distance(read_logits(cell), predict(model, validation.ids)) < 1e-4
    assert float32_distance(read_logits(cell), predict(wrong, validation.ids)) > 1e-2


def co_trained_cell(run: Run, method: str, labels: Labels = "soft", seed: int = 0) -> Cell:
    cell = made_cell(run, method, labels=labels, seed=seed)
    return replace(cell, protocol=run.config.evaluation.cotrain)


def co_trained_keys(run: Run) -> dict[str, str]:
    return {method: co_trained_cell(run, method).key for method in REDUCED}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"evaluation": {"protocol": {"epochs": 3, "batch_size": 8, "learning_rate": 1}}}, set()),
        ({"evaluation": {"cotrain": {"steps": 5}}}, set(REDUCED)),
        ({"evaluation": {"cotrain": {"seeds": 3}}}, set(REDUCED)),
        ({"evaluation": {"cotrain": {"batch_size": 8}}}, set(REDUCED)),
        ({"evaluation": {"cotrain": {"learning_rate": 0.5}}}, set(REDUCED)),
        ({"benchmark": {"percentile": 50}}, {"el2n"}),
        ({"memory": {"ratio": 0.01}}, set(SELECTIONS)),
        ({"seed": 77}, set(REDUCED)),
    ],
)
def test_a_setting_changes_the_co_trained_cells_that_depend_on_it(
    prepared: Prepared, overrides: dict[str, Any], expected: set[str]
) -> None:
    run = prepared.run()
    before = co_trained_keys(run)
    assert changed(before, co_trained_keys(prepared.run(**overrides))) == expected
    inherited = keys(run)
    assert changed(before, {method: inherited[method] for method in REDUCED}) == set(REDUCED)


def test_a_co_trained_cell_depends_on_its_rows(prepared: Prepared) -> None:
    before = co_trained_keys(prepared.run())
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=7)
    assert changed(before, co_trained_keys(prepared.run())) == {"distilled"}
    path = storage.join(reference_uri(prepared.config(), 2), "reference.json")
    documents.write_sealed(path, {**documents.read_sealed(path), "identity": "f" * 64})
    # which labelled them
    assert changed(before, co_trained_keys(prepared.run())) == set(REDUCED)


@pytest.mark.parametrize(
    ("method", "labels"), [("distilled", "soft"), ("distilled", "hard"), ("random", "soft")]
)
def test_a_co_trained_cell_is_a_co_training(
    prepared: Prepared, method: str, labels: Labels
) -> None:
    run, seed = prepared.run(), 1
    config, blocks = run.config, run.blocks
    cell = co_trained_cell(run, method, labels, seed)
    result = run_here(cell)

    rows = reduced_rows(run, method, labels, seed)
    test, validation = (read_block(blocks, blocks.block(name)) for name in ("test", "validation"))
    compact, tasks = CompactIds(rows.anchors), blocks.tasks
    sizes = dict(zip(blocks.fields, compact.sizes, strict=True))
    seeds = [seed, seed + 1]
    models = [
        fresh_candidate(cell.candidate, config.models, sizes, len(tasks), config.seed, number)
        for number in seeds
    ]
    soft = SoftRows(torch.tensor(compact(rows.anchors)), torch.tensor(rows.labels))
    orders = [derive(config.seed, "candidate co-training", number) for number in seeds]
    losses = co_train(models, soft, config.evaluation.cotrain, orders)
    assert result.training_loss == losses
    assert result.warm_up_auc == []
    assert result.dense_parameters == models[0].dense.parameter_count

    judged = {}
    for name, block in (("test", test), ("validation", validation)):
        judged[name] = np.stack([predict(model, compact(block.ids)) for model in models])
        metrics = mean_metrics([measure(mine, block.labels, tasks) for mine in judged[name]])
        assert getattr(result, name) == asdict(metrics)
    assert np.array_equal(read_validation_logits(cell), judged["validation"])
    assert np.array_equal(read_logits(cell), judged["test"].mean(axis=0))


def test_a_co_trained_cell_is_the_mean_of_its_seeds(prepared: Prepared) -> None:
    """Each of which is trained as it would be by itself."""
    cell = co_trained_cell(prepared.run(), "distilled", seed=3)
    alone = cell.protocol.model_copy(update={"seeds": 1})
    cells = [replace(cell, seed=seed, protocol=alone) for seed in (3, 4)]
    result, results = run_here(cell), [run_here(single) for single in cells]
    loglosses = [single.validation["logloss"] for single in results]
    assert loglosses[0] != pytest.approx(loglosses[1], rel=1e-3)
    assert result.validation["logloss"] == pytest.approx(np.mean(loglosses), rel=1e-5)
    curves = [single.training_loss for single in results]
    assert result.training_loss == pytest.approx(np.mean(curves, axis=0), rel=1e-5)
    on_test = np.mean([read_logits(single) for single in cells], axis=0)
    assert float32_distance(read_logits(cell), on_test) < 1e-4
    on_validation = np.concatenate([read_validation_logits(single) for single in cells])
    assert float32_distance(read_validation_logits(cell), on_validation) < 1e-4


def test_only_a_reduced_set_is_co_trained(prepared: Prepared) -> None:
    run = prepared.run()
    uses = {method: made_cell(run, method).use for method in METHODS}
    assert uses == {method: "inherit" if method in REDUCED else "" for method in METHODS}
    assert {co_trained_cell(run, method).use for method in REDUCED} == {"cotrain"}
    with pytest.raises(ValueError, match="'warm' trains on real blocks; give it a ProtocolConfig"):
        run_here(co_trained_cell(run, "warm", labels=""))


def test_a_prefix_is_the_first_share_of_the_stream(prepared: Prepared) -> None:
    """Written out row by row: 360 of 900 rows, so that its last block and batch are cut."""
    run, share, seed = prepared.run(), 0.4, 1
    config, blocks = run.config, run.blocks
    cell = replace(made_cell(run, "prefix", seed=seed), share=share)
    result = run_here(cell)

    newest = blocks.block("subsequent")
    parts = [read_block(blocks, block) for block in (*blocks.historical, newest)]
    stream = Rows.concatenate(parts)
    count = round(share * len(stream))
    batch_size = config.evaluation.protocol.batch_size
    batches, first = [], 0
    for part in parts:
        for start in range(first, first + len(part), batch_size):
            end = min(start + batch_size, first + len(part), count)
            batches.append(range(start, end))
        first += len(part)
    batches = [batch for batch in batches if len(batch)]
    assert sum(map(len, batches)) == count == cell.trained_rows
    sizes, tasks = newest.vocabulary_sizes, len(blocks.tasks)
    model = fresh_candidate(cell.candidate, config.models, sizes, tasks, config.seed, seed)
    forward = by_hand.logits_of_ids(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.evaluation.protocol.learning_rate)
    ids, labels = torch.from_numpy(stream.ids), torch.from_numpy(stream.labels)
    told = by_hand.train(forward, optimizer, ids, labels, batches)

    # of fewer batches than the curve has parts, every one is told by itself
    assert result.training_loss == pytest.approx([loss for _, loss in told], rel=1e-3)
    test = read_block(blocks, blocks.block("test"))
    with torch.no_grad():
        expected = torch.stack([forward(ids) for ids in torch.from_numpy(test.ids)]).numpy()
    assert np.allclose(read_logits(cell), expected, atol=1e-3)


def test_a_prefix_has_its_share_in_its_key_and_the_whole_is_full_data(prepared: Prepared) -> None:
    run = prepared.run()
    whole = made_cell(run, "prefix")
    half = replace(whole, share=0.5)
    assert half.key not in (whole.key, replace(half, share=0.25).key)
    results = [run_here(cell).test for cell in (whole, made_cell(run, "full"), half)]
    assert results[0] == results[1] != results[2]


def test_rows_are_counted_as_often_as_they_are_trained_on(prepared: Prepared) -> None:
    """Blocks of 300 rows, two of them historical; 40 rows in a set, two epochs. A co-training is of
    two seeds and six steps of 16 rows."""
    run = prepared.run()
    counted = {method: made_cell(run, method).trained_rows for method in METHODS}
    stream, newest = 3 * 300, 300
    assert counted == {
        "full": stream,
        "prefix": stream,
        "cold": newest,
        "warm": newest,
        **dict.fromkeys(REDUCED, 2 * 40 + newest),
    }
    assert replace(made_cell(run, "prefix"), share=0.5).trained_rows == stream / 2
    for method in REDUCED:
        assert co_trained_cell(run, method).trained_rows == 2 * 6 * 16
        if method != "el2n":  # whose rows a scan by Ray selects
            assert len(reduced_rows(run, method, "soft", 0)) == 40
