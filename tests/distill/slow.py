"""Slow, obvious twins of what a distillation computes: plain loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.config import InnerConfig, MemoryConfig, RunConfig
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.scoring.el2n import el2n
from diet_ray.scoring.scan import label_groups
from diet_ray.scoring.selection import bands, group_shares
from diet_ray.seeds import numpy_generator, torch_generator
from diet_ray.training.reference import load_reference, reference_uri
from tests.distill.prepared import row_gradients

AdamState = dict[str, Tensor]
"""What torch.optim.Adam keeps of one parameter."""


def adam_start(theta: Tensor) -> AdamState:
    """The state before the first step; its count of steps is as precise as theta."""
    moments = {name: torch.zeros_like(theta) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=theta.dtype), **moments}


def adam_step(
    theta: Tensor, gradient: Tensor, state: AdamState, inner: InnerConfig
) -> tuple[Tensor, AdamState]:
    """One step of torch.optim.Adam that leaves a graph behind, back to all its arguments.

    Where a parameter has had no gradient yet, torch's derivative is 0 * infinity. Behind a dead
    unit nothing moves the gradient, so there it counts as 0.
    """
    theta, state = theta.clone(), {name: tensor.clone() for name, tensor in state.items()}
    optimizer = torch.optim.Adam([theta], lr=inner.learning_rate, differentiable=True)
    optimizer.state[theta] = state
    theta.grad = gradient.clone()
    if gradient.requires_grad:
        theta.grad.register_hook(lambda found: found.nan_to_num(0.0))
    optimizer.step()
    return theta, state


def unrolled(
    gradient: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    batches: list[Tensor],
    window: int,
    inner: InnerConfig,
) -> tuple[Tensor, AdamState]:
    """theta_N and Adam's state; their graph reaches back through the last `window` steps.

    gradient: grad_theta of a batch's loss at (theta, batch), with the graph of what it depends on.
    """
    state = adam_start(theta)
    for step, batch in enumerate(batches):
        if step == 0 or step <= len(batches) - window:
            theta = theta.detach().requires_grad_(True)
            state = {name: tensor.detach() for name, tensor in state.items()}
        found = gradient(theta, batch)
        if inner.optimizer == "sgd":
            theta = theta - inner.learning_rate * found
        else:
            theta, state = adam_step(theta, found, state, inner)
    return theta, state


class Phi:
    """phi_t in float64; an id that it has not met is id 0."""

    def __init__(self, config: RunConfig, stage: int) -> None:
        reference = load_reference(reference_uri(config, stage))
        self.vectors = [v.double() for v in reference.table.by_field().values()]
        self.dense = reference.dense.double()
        self.network = FlatNetwork(self.dense)
        self.theta = flatten_parameters(self.dense)
        self.unit = float(torch.cat(self.vectors).std())

    def embed(self, ids: np.ndarray) -> Tensor:
        """(n, F) -> (n, F, d)."""
        rows = []
        for row in ids.tolist():
            known = [i if i < len(v) else 0 for i, v in zip(row, self.vectors, strict=True)]
            rows.append(torch.stack([v[i] for i, v in zip(known, self.vectors, strict=True)]))
        return torch.stack(rows)

    def logits(self, ids: np.ndarray) -> Tensor:
        """(n, F) -> (n, K)."""
        return self.dense(self.embed(ids)).detach()

    def gradients(self, embeddings: Tensor, labels: Tensor) -> np.ndarray:
        """grad l of every row, (n, P), at its own parameters; labels in [0, 1]."""
        return row_gradients(self.network, self.theta.numpy(), embeddings, labels)


def band_of_a_sort(phi: Phi, rows: Rows, count: int, memory: MemoryConfig) -> Rows:
    """The `count` rows of each label group's EL2N band, in row order."""
    scores = el2n(phi.logits(rows.ids), torch.tensor(rows.labels)).numpy()
    groups = label_groups(rows.labels)
    counts = {int(g): int((groups == g).sum()) for g in np.unique(groups)}
    shares = group_shares(counts, count, memory.group_alpha)
    chosen: list[int] = []
    for group, (first, end) in bands(counts, shares, memory.percentile).items():
        members = np.flatnonzero(groups == group)
        order = members[np.lexsort((members, scores[members]))]
        chosen += order[first:end].tolist()
    return rows.take(np.sort(chosen))


class SlowMemory:
    """Embeddings (n, F, d) and labels (n, K), with a torch.optim.Adam for every row."""

    def __init__(self, embeddings: Tensor, labels: Tensor) -> None:
        self._rows = [(e.clone(), y.clone()) for e, y in zip(embeddings, labels, strict=True)]
        self._adams = [
            torch.optim.Adam([{"params": [part]} for part in row], lr=0.0) for row in self._rows
        ]

    def rows(self) -> tuple[Tensor, Tensor]:
        """As they are now."""
        return torch.stack([e for e, _ in self._rows]), torch.stack([y for _, y in self._rows])

    def step(
        self, touched: set[int], gradients: Sequence[Tensor], step_sizes: Sequence[float]
    ) -> None:
        """Move the rows `touched` by the gradients of embeddings and labels."""
        for row in touched:
            groups = self._adams[row].param_groups
            for group, gradient, size in zip(groups, gradients, step_sizes, strict=True):
                group["lr"], group["params"][0].grad = size, gradient[row].clone()
            self._adams[row].step()


@dataclass
class SlowStage:
    """A stage t > 1 whose rows are anchored and optimised in phi_{t-1}'s space (`unseen`).

    A row is its anchor and what was learned on top: E(anchor) + delta in any phi's space. Its
    label was learned on top of what phi_{t-1} says of the anchor, and so of phi_t's word for it.
    """

    config: RunConfig
    blocks: Blocks
    number: int

    def __post_init__(self) -> None:
        self.before, self.now = (Phi(self.config, t) for t in (self.number - 1, self.number))
        self.block = read_block(self.blocks, self.blocks.historical[self.number - 1])
        self.clipped = 0  # outer steps whose gradient was clipped

    def run(self, previous: SyntheticRows) -> SyntheticRows:
        """S_t from S_{t-1}; deltas, of every row, and labels in float64."""
        rows, delta, labels = self._start(previous)
        place = self.before.embed(rows.anchors)
        embeddings, labels = self._optimise(place + delta, labels)
        learned = rows.with_deltas((embeddings - place).numpy())
        taught = self.now.logits(rows.anchors).numpy()
        return replace(learned, labels=labels.numpy(), taught=taught)

    def _start(self, previous: SyntheticRows) -> tuple[SyntheticRows, Tensor, Tensor]:
        """Lineage, deltas and labels of the kept rows, then of the new ones."""
        new_count, kept_count = memory_sizes(self.config, self.blocks)[self.number - 1]
        new = band_of_a_sort(self.now, self.block, new_count, self.config.memory)
        anchors = previous.anchors
        labels = torch.tensor(previous.labels).double()
        labels = labels - self.before.logits(anchors) + self.now.logits(anchors)
        delta = torch.tensor(previous.dense_deltas()).double()
        embeddings = self.before.embed(anchors) + delta

        real = self.before.gradients(self.before.embed(new.ids), torch.tensor(new.labels))
        influence = self.before.gradients(embeddings, labels.sigmoid()) @ real.sum(axis=0)
        kept = np.sort(np.argsort(-influence, kind="stable")[:kept_count])
        fresh = SyntheticRows(
            anchors=new.ids,
            labels=np.zeros((new_count, previous.labels.shape[1])),
            taught=np.zeros((new_count, previous.labels.shape[1])),
            stages=np.full(new_count, self.number),
            source_rows=new.row_ids,
            moved=np.zeros(new_count, dtype=bool),
            deltas=previous.deltas[:0],
        )
        return (
            SyntheticRows.concatenate([previous.take(kept), fresh]),
            torch.cat([delta[kept], torch.zeros(new_count, *delta.shape[1:])]),
            torch.cat([labels[kept], self.now.logits(new.ids)]),
        )

    def _optimise(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The outer loop; rows that no gradient touches in a step are not moved by it."""
        distill, outer = self.config.distill, self.config.distill.outer
        memory = SlowMemory(embeddings, labels)
        total, norms = distill.rounds * distill.outer_steps, list[float]()
        for step in range(total):
            rows = memory.rows()
            if step % distill.outer_steps == 0:
                targets, active = self._address(*rows)
            gradients, touched = [torch.zeros_like(part) for part in rows], set()
            for shard in range(distill.logical_shards):
                *found, of_shard = self._shard(step, shard, *rows, targets, active)
                for gradient, part in zip(gradients, found, strict=True):
                    gradient[active] += part / distill.logical_shards
                touched |= of_shard
            norm = math.hypot(self.before.unit * gradients[0].norm(), gradients[1].norm())
            scale = min(1.0, outer.clip * float(np.median(norms or [norm])) / norm)
            self.clipped += scale < 1
            norms = [*norms, norm][-outer.clip_window :]
            factor = (1 + math.cos(math.pi * step / total)) / 2
            step_sizes = (
                factor * outer.embedding_step * self.before.unit,
                factor * outer.label_step,
            )
            memory.step(touched, [scale * gradient for gradient in gradients], step_sizes)
        return memory.rows()

    def _address(self, embeddings: Tensor, labels: Tensor) -> tuple[Rows, np.ndarray]:
        """Hard targets and the positions of the active rows."""
        distill, place = self.config.distill, self.before.embed(self.block.ids)
        real = self.before.gradients(place, torch.tensor(self.block.labels))
        synthetic = self.before.gradients(embeddings, labels.sigmoid())
        deficiency = real @ synthetic.sum(axis=0)
        hard = np.sort(
            np.argsort(deficiency, kind="stable")[: round(distill.hard_fraction * len(real))]
        )
        responsibility = synthetic @ real[hard].sum(axis=0)
        count = round(distill.active_fraction * len(synthetic))
        return self.block.take(hard), np.sort(np.argsort(-responsibility, kind="stable")[:count])

    def _shard(
        self,
        step: int,
        shard: int,
        embeddings: Tensor,
        labels: Tensor,
        targets: Rows,
        active: np.ndarray,
    ) -> tuple[Tensor, Tensor, set[int]]:
        """Gradients by the active rows, and the rows in differentiated steps."""
        distill, inner, seed = self.config.distill, self.config.distill.inner, self.config.seed
        path = ("meta", self.number, step // distill.outer_steps, step, shard)
        draw = numpy_generator(seed, *path)
        length = int(draw.integers(inner.window, inner.steps + 1))
        order = torch_generator(seed, *path, "batches")
        batches = inner_batches(len(active), inner.batch_size, length, order)
        chosen = draw.choice(len(targets), distill.target_batch, replace=False)
        rows = [part[active].clone().requires_grad_(True) for part in (embeddings, labels)]

        def gradient(theta: Tensor, batch: Tensor) -> Tensor:
            logits, soft = self.before.network(theta, rows[0][batch]), rows[1][batch].sigmoid()
            loss = binary_cross_entropy_with_logits(logits, soft)
            return torch.autograd.grad(loss, theta, create_graph=True)[0]

        theta, _ = unrolled(gradient, self.before.theta, batches, inner.window, inner)
        judges = targets.take(chosen)
        logits = self.before.network(theta, self.before.embed(judges.ids))
        loss = binary_cross_entropy_with_logits(logits, torch.tensor(judges.labels).double())
        by_embeddings, by_labels = torch.autograd.grad(loss, rows)
        touched = {int(active[i]) for batch in batches[-inner.window :] for i in batch}
        return by_embeddings, by_labels, touched
