"""The meta-gradient beside what autograd makes of the whole unroll, as one graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from diet_ray.bench.made import Dense, dense, network_names
from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import in_child, rise
from diet_ray.bench.scoring import PROCESS_BYTES
from diet_ray.bench.timing import by_turns, ratio, seconds_of
from diet_ray.config import InnerConfig
from diet_ray.distill.inner_loop import BETA_1, BETA_2, EPSILON, inner_loss
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.models.functional import row_losses

LEARNING_RATE = 1e-3
GRAPH_COPIES = 40
"""Vectors as long as theta that the graph of one step of Adam and its batch holds, at most."""


@dataclass(frozen=True)
class Meta(Measure):
    """Meta-gradient over an unrolled autograd graph: peak memory, and time.

    Each runs in processes of its own; memory is how far the first call raises its process. All
    steps of the unroll are differentiated.
    """

    name: ClassVar[str] = "meta"
    window: int = size(80, "W, steps of the unroll, all differentiated")
    batch_rows: int = size(128, "synthetic rows of a step")
    target_rows: int = size(2_048, "real rows of the outer loss")
    repeats: int = size(3, "processes of each, by turns")

    def needs(self) -> Needs:
        parameters = max(dense(name, 1).flat.parameter_count for name in network_names())
        return Needs(PROCESS_BYTES + GRAPH_COPIES * 4 * parameters * self.window)

    def run(self, folder: str) -> Found:  # noqa: ARG002 - nothing is written
        return Found([f for name in network_names() for f in self._figures(name)])

    def _figures(self, name: str) -> list[Figure]:
        found: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}

        def child(way: str) -> float:
            found[way].append(
                in_child(time_and_rise, way, name, self.window, self.batch_rows, self.target_rows)
            )
            return found[way][-1][0]

        taken = by_turns({way: partial(child, way) for way in WAYS}, self.repeats)
        peaks = {way: [float(peak) for _, peak in found[way]] for way in WAYS}
        seconds, memory = (ratio(of["ours"], of["graph"]) for of in (taken, peaks))
        of = f"meta-gradient / unrolled graph, {name}, W {self.window}"
        rises = {"ours MB": memory.over / 1e6, "graph MB": memory.under / 1e6}
        times = {"ours CPU s": seconds.over, "graph CPU s": seconds.under}
        return [
            Figure(f"{of}: peak memory", memory.median, Goal(high=1 / 8), parts=rises),
            Figure(f"{of}: CPU time", seconds.median, Goal(high=1.3), parts=times),
        ]


@dataclass(frozen=True)
class Unroll:
    """One meta-gradient to compute: the synthetic rows of each step, and the targets."""

    case: Dense  # its rows are the synthetic ones
    soft: Tensor  # (m, K), their labels as logits
    batches: list[Tensor]
    targets: Dense
    inner: InnerConfig


def unroll(
    name: str,
    window: int,
    batch_rows: int,
    target_rows: int,
    dtype: torch.dtype = torch.float32,
) -> Unroll:
    """An unroll of `window` steps, each on rows of its own."""
    case = dense(name, window * batch_rows, dtype)
    inner = InnerConfig(
        steps=window, window=window, batch_size=batch_rows, learning_rate=LEARNING_RATE
    )
    batches = list(torch.arange(window * batch_rows).split(batch_rows))
    return Unroll(case, 2 * case.labels - 1, batches, dense(name, target_rows, dtype), inner)


def ours(of: Unroll) -> tuple[Tensor, Tensor]:
    """d outer loss / d embeddings (m, F, d) and labels (m, K)."""
    found = meta_gradient(
        of.case.flat,
        of.case.theta,
        of.case.embeddings,
        of.soft,
        of.batches,
        of.targets.embeddings,
        of.targets.labels,
        of.inner,
    )
    assert found.embeddings is not None  # they were asked for
    return found.embeddings, found.labels


def whole_graph(of: Unroll) -> tuple[Tensor, Tensor]:
    """The same by one graph of all steps."""
    rows, soft = (x.clone().requires_grad_(True) for x in (of.case.embeddings, of.soft))
    flat, theta = of.case.flat, of.case.theta.clone().requires_grad_(True)
    first = second = torch.zeros_like(theta)
    for step, batch in enumerate(of.batches, start=1):
        loss = inner_loss(flat, theta, rows[batch], soft[batch])
        gradient = torch.autograd.grad(loss, theta, create_graph=True)[0]
        first = BETA_1 * first + (1 - BETA_1) * gradient
        second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
        theta = theta - of.inner.learning_rate * _adams_direction(first, second, step)
    outer = row_losses(flat(theta, of.targets.embeddings), of.targets.labels).mean()
    by_rows, by_soft = torch.autograd.grad(outer, [rows, soft])
    return by_rows, by_soft


def _adams_direction(first: Tensor, second: Tensor, step: int) -> Tensor:
    """After `step` steps; the root's derivative counts as 0 where nothing has moved yet."""
    moved = second > 0
    root = torch.where(moved, torch.where(moved, second, 1).sqrt(), 0)
    return first / (1 - BETA_1**step) / (root / (1 - BETA_2**step) ** 0.5 + EPSILON)


WAYS: dict[str, Callable[[Unroll], tuple[Tensor, Tensor]]] = {"ours": ours, "graph": whole_graph}


def time_and_rise(
    way: str, name: str, window: int, batch_rows: int, target_rows: int
) -> tuple[float, int]:
    """CPU seconds of a call, and the bytes by which another one raised the process."""
    torch.set_num_threads(1)
    WAYS[way](unroll(name, 2, batch_rows, target_rows))  # what only a first call pays
    of = unroll(name, window, batch_rows, target_rows)
    _, peak = rise(lambda: WAYS[way](of))
    return seconds_of(lambda: WAYS[way](of), time.process_time), peak
