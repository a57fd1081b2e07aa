"""The best of a sweep go on: from a place on the leaderboard to a model that a team would deploy.

Protocol (the paper's, `inherit`): a candidate takes phi_T's table, its dense network is warmed up
on the set's learned soft labels, and the whole model is then trained for one epoch on the
subsequent block. It is judged on the test block: to report on it, not to choose among the
finished. A learning rate that the space names replaces the rate that it was judged at: of the
warm-up under `search.use: inherit`, else of real blocks. A candidate whose table has another width
than phi_T's cannot inherit it: it is refused, and the next place does not take its turn.

Layout: ``search/finished/<place>-<network>-<key>/`` with ``model.safetensors`` (the tensors
``embedding.<field>`` and ``dense.<name>``) and then ``finished.json``, all that loading it needs.
The key is a hash of all that the model depends on: what is there is not trained again, and moves
when its place has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import torch
from safetensors.numpy import load as load_safetensors

from diet_ray import devices, documents, progress, runtime, storage, tensor_files
from diet_ray.config import (
    ConfigError,
    ModelsConfig,
    NetworkConfig,
    ProtocolConfig,
    RunConfig,
)
from diet_ray.errors import UserError
from diet_ray.evaluation.cells import Cell, train_on_blocks
from diet_ray.evaluation.methods import reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import Shared
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.candidate import Candidate
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.search.leaderboard import Line, in_words
from diet_ray.search.run import open_run
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import Recommender

FORMAT = 1
_DESCRIPTION, _TENSORS = "finished.json", "model.safetensors"
_KEY_LETTERS = 12


class FinishedError(UserError, ValueError):
    """A finished model that is damaged or not there; the message names file and remedy."""


@dataclass(frozen=True)
class _Described:
    """What ``finished.json`` holds."""

    format: int
    key: str
    network: NetworkConfig
    models: ModelsConfig
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    vocabulary_sizes: dict[str, int]
    seed: int
    dense_parameters: int
    trained_rows: int
    protocol: dict[str, Any]
    distilled: dict[str, str]
    reference: str
    blocks: str
    made_with: dict[str, str]
    metrics: dict[str, Metrics]
    warm_up_auc: tuple[float, ...]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Finished:
    """One of the best."""

    place: int  # on the leaderboard, from 1
    line: Line
    uri: str | None = None  # its folder
    described: dict[str, Any] | None = None  # what its finished.json says
    refused: str | None = None  # why it could not go on


def finish(config: RunConfig, lines: Sequence[Line]) -> list[Finished]:
    """Finish the `search.finish` best of a leaderboard; print what comes out.

    Raises ConfigError without the run's blocks and reference, or for another reference's set.
    """
    run = open_run(config, "search.finish")
    check_reference(run)
    best = [line for line in lines if line.error is None][: config.search.finish]
    refused = [refusal(run, line.candidate) for line in best]
    cells, uris = dict[int, Cell](), dict[int, str]()
    for place, line in enumerate(best, start=1):
        if refused[place - 1] is None:
            cells[place] = finishing_cell(run, line.candidate)
            uris[place] = folder(cells[place], place)
    train(run, {uris[place]: cell for place, cell in cells.items()})
    found = [
        Finished(
            place, line, uris.get(place), describe(uris[place]) if place in uris else None, why
        )
        for place, (line, why) in enumerate(zip(best, refused, strict=True), start=1)
    ]
    progress.logger.info("Finished models, judged on the test block:\n%s", render(found))
    return found


def check_reference(run: Run) -> None:
    """Whether the set's rows lie in phi_T's space. Raises ConfigError."""
    found = artifact.describe(run.distilled).reference
    if found != run.reference_identity:
        raise ConfigError(
            f"search.finish: {run.distilled} belongs to reference {found[:12]}, the warm start "
            f"takes the table of {run.reference_identity[:12]} in {run.reference_uri()}; leave "
            "search.distilled out to take this run's own set, or set search.finish to 0"
        )


def refusal(run: Run, candidate: Candidate) -> str | None:
    """Why a candidate cannot inherit phi_T's table, if it cannot."""
    own = candidate.models(run.config.models).embedding_dim
    given = artifact.describe(run.distilled).embedding_dim
    if own == given:
        return None
    return (
        f"its table is {own} wide, phi_T's is {given}, so it cannot inherit it; distil with "
        f"models.embedding_dim {own} to finish it"
    )


def finishing_cell(run: Run, candidate: Candidate) -> Cell:
    """Its warm start: what the evaluation calls `distilled`, by its first seed."""
    protocol: ProtocolConfig = run.config.evaluation.protocol
    if candidate.learning_rate is not None:
        warms_up = run.config.search.use == "inherit"
        key = "warm_up_learning_rate" if warms_up else "learning_rate"
        protocol = protocol.changed({key: candidate.learning_rate})
    return Cell(run, "distilled", "soft", candidate.network, protocol, seed=0)


def folder(cell: Cell, place: int) -> str:
    """Where its model lies or will lie. One that lies there by another place is moved."""
    above, key = cell.run.config.place("search", "finished"), cell.key[:_KEY_LETTERS]
    name = f"{place}-{cell.candidate.name.replace(':', '.')}-{key}"
    uri = storage.join(above, name)
    for other in storage.list_folders(above):
        if other.endswith(f"-{key}") and other != name:
            _move(storage.join(above, other), uri)
    return uri


def _is_there(uri: str) -> bool:
    return all(storage.exists(storage.join(uri, name)) for name in (_TENSORS, _DESCRIPTION))


def _move(old: str, new: str) -> None:
    if _is_there(old):
        for name in (_TENSORS, _DESCRIPTION):  # what makes it visible comes last
            storage.write_bytes(
                storage.join(new, name), storage.read_bytes(storage.join(old, name))
            )
    storage.remove(old)


def train(run: Run, cells: Mapping[str, Cell]) -> None:
    """Train and publish, side by side, what is missing of the models; cells: by their folders."""
    config = run.config
    queue = [(uri, cell) for uri, cell in cells.items() if not _is_there(uri)]
    with progress.phase("Warm start of the best", len(cells), "models", long=True) as phase:
        phase.skip(len(cells) - len(queue))
        if not queue:
            return
        shared = ray.put(Shared.load(run.reference(), run.blocks, config.seed))
        read = ray.remote(reduced_rows).options(num_cpus=config.threads, max_retries=3)
        rows = read.remote(run, "distilled", "soft", 0)
        task = ray.remote(train_and_publish).options(num_cpus=config.threads, max_retries=3)
        running: list[ray.ObjectRef] = []
        while queue or running:
            while queue and len(running) < config.resources.evaluation_tasks:
                uri, cell = queue.pop(0)
                running.append(task.remote(uri, cell, shared, rows))
            done, running = ray.wait(running, num_returns=1)
            with runtime.plain_errors():
                ray.get(done)
            phase.advance()


def train_and_publish(uri: str, cell: Cell, shared: Shared, rows: SyntheticRows) -> None:
    """One model: weights first, the description last."""
    torch.set_num_threads(cell.run.config.threads)
    trained = train_on_blocks(cell, shared, rows)
    (model,), tasks = trained.models, cell.run.blocks.tasks
    judged = {
        name: asdict(measure(trained.logits(block.ids)[0], block.labels, tasks))
        for name, block in (("validation", shared.validation), ("test", shared.test))
    }
    arrays = {f"embedding.{name}": v.numpy() for name, v in model.table.by_field().items()}
    arrays |= {f"dense.{name}": v.numpy() for name, v in model.dense.state_dict().items()}
    checksum = tensor_files.write(storage.join(uri, _TENSORS), arrays)
    described = {
        **_what_it_is(cell, model),
        "metrics": judged,
        "warm_up_auc": trained.epochs,
        "sha256": {_TENSORS: checksum},
    }
    documents.write_sealed(storage.join(uri, _DESCRIPTION), described)


def _what_it_is(cell: Cell, model: Recommender) -> dict[str, Any]:
    config, blocks = cell.run.config, cell.run.blocks
    return {
        "format": FORMAT,
        "key": cell.key,
        "network": {"name": cell.candidate.name, "parameters": cell.candidate.parameters},
        "models": config.models.model_dump(),
        "fields": blocks.fields,
        "tasks": blocks.tasks,
        "vocabulary_sizes": dict(zip(blocks.fields, model.table.sizes, strict=True)),
        "seed": config.seed,
        "dense_parameters": model.dense.parameter_count,
        "trained_rows": cell.trained_rows,
        "protocol": cell.protocol.model_dump(),
        "distilled": cell.run.distilled_files,
        "reference": cell.run.reference_identity,
        "blocks": blocks.fingerprint,
        "made_with": devices.numerics(),
    }


def describe(uri: str) -> dict[str, Any]:
    """What a finished model says about itself. Raises FinishedError, StorageError."""
    path, remedy = storage.join(uri, _DESCRIPTION), f"remove the folder {uri} and finish again"
    try:
        found = documents.read_sealed(path, remedy)
    except FileNotFoundError:
        raise FinishedError(
            f"{path}: no such file; name a folder below search/finished, or make one with "
            "search.finish"
        ) from None
    if found.get("format") != FORMAT:
        raise FinishedError(f"{path}: format {found.get('format')} is not {FORMAT}; finish again")
    stated = documents.parsed(found, _Described, path, remedy)
    if _TENSORS not in stated.sha256:
        raise FinishedError(f"{path}: sha256: states none of {_TENSORS}; {remedy}")
    return found


def load_finished(uri: str) -> Recommender:
    """A finished model from its folder (any URI), ready to predict: ids (B, F) of its blocks'
    vocabularies, fields in the order of `describe(uri)["fields"]`, to logits (B, K).

    Raises FinishedError; ConfigError if its network cannot be imported here.
    """
    found = describe(uri)
    path, expected = storage.join(uri, _TENSORS), found["sha256"][_TENSORS]
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != expected:
        raise FinishedError(
            f"{path}: missing or not what {_DESCRIPTION} says; remove the folder and finish again"
        )
    arrays = load_safetensors(content)
    fields, models = found["fields"], ModelsConfig(**found["models"])
    table = EmbeddingTable(
        dict.fromkeys(fields, 0), models.embedding_dim, models.embedding_std, found["seed"]
    )
    table.load({name: torch.from_numpy(arrays[f"embedding.{name}"]) for name in fields})
    network = NetworkConfig(**found["network"])
    dense = fresh_network(network, models, len(fields), len(found["tasks"]), found["seed"])
    own = dense.state_dict()
    dense.load_state_dict({name: _shaped(arrays[f"dense.{name}"], own[name]) for name in own})
    return Recommender(table, dense).eval()


def _shaped(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """A file holds a scalar as one element."""
    return torch.from_numpy(array).reshape(like.shape)


def render(found: Sequence[Finished]) -> str:
    """A line per model, or why there is none."""
    lines = [finished.line for finished in found]
    told = [f"{line.network} {in_words(line, lines)}" for line in lines]
    width = max(len(words) for words in ["candidate", *told])
    head = f"{'place':>5} {'candidate':<{width}} {'AUC':>7} {'LogLoss':>8}  folder"
    rows = [head, "-" * len(head)]
    for finished, words in zip(found, told, strict=True):
        begun = f"{finished.place:>5} {words:<{width}} "
        if finished.described is None:
            rows.append(f"{begun}refused: {finished.refused}")
        else:
            test = finished.described["metrics"]["test"]
            rows.append(f"{begun}{test['auc']:>7.4f} {test['logloss']:>8.4f}  {finished.uri}")
    return "\n".join(rows)
