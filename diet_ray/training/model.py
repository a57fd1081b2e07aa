"""A whole recommender: embedding table and dense network; and the epoch that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.modes import evaluating
from diet_ray.models.registry import DenseNetwork
from diet_ray.seeds import Index, torch_seeded
from diet_ray.training.table_adam import TableAdam, Taken
from diet_ray.training.workers import Workers

PREDICTION_BATCH = 2_048
"""Rows; of more the activations no longer fit a core's cache, and a row takes a third longer."""


class Recommender(nn.Module):
    """ids (B, F) int64 -> logits (B, K); given labels (B, K), every row's training loss (B,)."""

    def __init__(self, table: EmbeddingTable, dense: DenseNetwork) -> None:
        super().__init__()
        self.table, self.dense = table, dense

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.dense(self.table(ids), labels)


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam over what of `model` is trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(trained, lr=learning_rate, fused=True)


class Epoch:
    """One epoch of Adam over a model's table and network, a batch at a time.

    Only the rows of the table that a batch holds are gathered, differentiated and moved
    (`table_adam.py`), so a step costs the same however many ids there are. The table is whole
    again after `finish`.

    Every batch is cut into `parts`, whose gradients are computed one by one and added in order,
    by however many `workers`, no more than parts: their number changes no bit. All workers are
    given the same batches and keep the same model. noise: seed and path of what a network draws
    (dropout); without one it draws from torch's global generator. A fresh epoch can go on from
    another's `state`, after its first `rows` rows.
    """

    def __init__(
        self,
        model: Recommender,
        learning_rate: float,
        parts: int = 1,
        workers: Workers = Workers(),  # noqa: B008 - frozen
        noise: tuple[int, *tuple[Index, ...]] | None = None,
    ) -> None:
        self._model, self._parts, self._workers, self._noise = model, parts, workers, noise
        self._parameters = [p for p in model.dense.parameters() if p.requires_grad]
        self._dense_adam = adam(model.dense, learning_rate)
        self._table_adam = TableAdam(model.table.weight, learning_rate)
        self._loss_sum, self.rows = 0.0, 0

    def step(self, batch: Rows) -> float:
        """Train on a batch; returns its rows' mean loss before the step."""
        own = self._own_parts(batch)
        rows_of_parts = self._workers.gather([part.rows for part in own], self._parts)
        rows, place = torch.cat(rows_of_parts).unique(return_inverse=True)
        places = place.split([len(part) for part in rows_of_parts])
        taken = self._table_adam.take(rows)
        found = [
            self._gradients(part, taken.values.index_select(0, places[part.number])) for part in own
        ]
        gathered = self._workers.gather(found, self._parts)
        loss = self._move(taken, places, gathered, len(batch))
        self._loss_sum += loss
        self.rows += len(batch)
        return loss / len(batch)

    def _own_parts(self, batch: Rows) -> list[_Part]:
        device = self._model.table.weight.device
        ids, labels = (torch.from_numpy(array).to(device) for array in (batch.ids, batch.labels))
        places = self._model.table.places(ids).tensor_split(self._parts)
        cut = labels.tensor_split(self._parts)
        return [_Part.of(n, places[n], cut[n]) for n in self._workers.own(self._parts)]

    def _gradients(self, part: _Part, vectors: Tensor) -> Tensor:
        """Of a part's summed loss, in one vector: the loss, the network's, the rows' (u, d)."""
        vectors.requires_grad_()
        size = 1 + sum(p.numel() for p in self._parameters) + vectors.numel()
        if not len(part.labels):  # a batch of fewer rows than parts
            return vectors.new_zeros(size)
        with self._drawing(part.number):
            embeddings = nn.functional.embedding(part.places, vectors)
            loss = self._model.dense(embeddings, part.labels).sum()
        by = [*self._parameters, vectors]
        gradients = torch.autograd.grad(loss, by, materialize_grads=True)
        return torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)])

    def _move(
        self, taken: Taken, places: Sequence[Tensor], found: Sequence[Tensor], count: int
    ) -> float:
        """Take the step along the gradients of all parts; returns the rows' summed loss."""
        head = 1 + sum(p.numel() for p in self._parameters)
        dense, table = torch.zeros_like(found[0][:head]), torch.zeros_like(taken.values)
        for place, vector in zip(places, found, strict=True):
            dense += vector[:head]
            table.index_add_(0, place, vector[head:].view(-1, table.shape[1]))
        sizes = [p.numel() for p in self._parameters]
        for parameter, gradient in zip(
            self._parameters, dense[1:].div_(count).split(sizes), strict=True
        ):
            parameter.grad = gradient.view_as(parameter)
        self._dense_adam.step()
        self._table_adam.step(taken, table.div_(count))
        return float(dense[0])

    def _drawing(self, part: int) -> AbstractContextManager[None]:
        if self._noise is None:
            return nullcontext()
        return torch_seeded(*self._noise, self.rows, part)

    def finish(self) -> float:
        """Settle the table; returns the mean loss, each row scored before its step."""
        self._table_adam.settle()
        return self._loss_sum / max(self.rows, 1)

    def state(self) -> dict[str, np.ndarray]:
        """All that the next steps depend on, by name; some over the memory that they change."""
        tensors = {f"table.{name}": t for name, t in self._table_adam.tensors().items()}
        for number, parameter in enumerate(self._parameters):
            tensors[f"dense.{number}"] = parameter.detach()
            for name, moment in self._dense_adam.state[parameter].items():
                tensors[f"adam.{number}.{name}"] = moment
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        counts = np.array([self._table_adam.steps, self.rows])
        return {**arrays, "counts": counts, "loss_sum": np.array([self._loss_sum])}

    @torch.no_grad()
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from another epoch's `state`, over a model of the same shapes."""
        for name, tensor in self._table_adam.tensors().items():
            tensor.copy_(torch.from_numpy(state[f"table.{name}"]))
        moments: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self._parameters):
            parameter.copy_(torch.from_numpy(state[f"dense.{number}"]))
            start = f"adam.{number}."
            moments[number] = {
                name.removeprefix(start): torch.from_numpy(array)
                for name, array in state.items()
                if name.startswith(start)
            }
        groups = self._dense_adam.state_dict()["param_groups"]
        self._dense_adam.load_state_dict({"state": moments, "param_groups": groups})
        self._table_adam.steps, self.rows = map(int, state["counts"])
        self._loss_sum = float(state["loss_sum"][0])


@dataclass(frozen=True)
class _Part:
    """Of a batch: b rows that hold u rows of the table."""

    number: int
    rows: Tensor  # (u,) int64, rising
    places: Tensor  # (b, F) int64, which of them each row holds
    labels: Tensor  # (b, K)

    @staticmethod
    def of(number: int, table_places: Tensor, labels: Tensor) -> _Part:
        """table_places: int64 (b, F), where in the table the rows' ids lie."""
        rows, places = table_places.unique(return_inverse=True)
        return _Part(number, rows, places, labels)


def train_epoch(
    model: Recommender,
    batches: Iterable[Rows],
    learning_rate: float,
    after_batch: Callable[[int, float], None] = lambda _rows, _loss: None,
) -> float:
    """One epoch of Adam over `batches`, by this process alone; returns the mean loss.

    after_batch gets the batch's rows and their mean loss before the step.
    """
    epoch = Epoch(model, learning_rate)
    for batch in batches:
        after_batch(len(batch), epoch.step(batch))
    return epoch.finish()


@torch.no_grad()
def predict(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    """Logits (n, K) float32 of ids (n, F), in eval mode; the model keeps the mode it is in."""
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [
            model(torch.from_numpy(ids[start : start + PREDICTION_BATCH]).to(device)).cpu()
            for start in range(0, len(ids), PREDICTION_BATCH)
        ]
    return torch.cat(parts).numpy()
