"""Adam over an embedding table, at the cost of the rows that a batch holds.

Adam moves every row in every step: a row without a gradient drifts on along its first moment m,
which fades by beta_1 a step. Nobody sees that before a batch holds the row again. So a row is left
alone until then, and takes all steps that it missed at once. With m and v as its last step s left
them, the k steps s + 1 .. s + k add up to

    learning_rate * m / (sqrt(v) + epsilon') * sum over j = 1..k of r^j c(s + j),
    r = beta_1 / sqrt(beta_2),    c(t) = sqrt(1 - beta_2^t) / (1 - beta_1^t),

and the sum is a difference of two entries of a table over t. This is ``torch.optim.Adam`` over the
whole table up to rounding, and up to epsilon' = epsilon * sqrt(1 - beta_2^(s + 1)), which is
epsilon as the first missed step has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults
RATIO = BETA_1 / math.sqrt(BETA_2)
HORIZON = 40_000
"""Steps after which c(t) is 1 in float64, and what a row's moments were has faded."""
MEMORY = 400
"""Steps after which r^j is below float64's resolution."""
SETTLED_AT_ONCE = 65_536
"""Rows."""


@dataclass(frozen=True)
class Taken:
    """Some rows as dense Adam would have them now; u rows of width d."""

    rows: Tensor  # (u,) int64, no row twice
    values: Tensor  # (u, d)
    first: Tensor  # (u, d), the moment m
    second: Tensor  # (u, d), the moment v


class TableAdam:
    """The state of Adam over a table; `weight` (n, d) is changed in place."""

    def __init__(self, weight: Tensor, learning_rate: float) -> None:
        self.weight, self._learning_rate = weight.detach(), learning_rate
        self.first, self.second = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.last = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        self.steps = 0
        self._lookups = _lookups(weight.device)

    def tensors(self) -> dict[str, Tensor]:
        """The table and its state, by name; what `steps` does not say."""
        return {
            "weight": self.weight,
            "first": self.first,
            "second": self.second,
            "last": self.last,
        }

    @torch.no_grad()
    def take(self, rows: Tensor) -> Taken:
        """The rows (u,), with the steps that they missed; the table itself is not changed."""
        last = self.last.index_select(0, rows).long()
        missed = self.steps - last
        values, first, second = (
            whole.index_select(0, rows) for whole in (self.weight, self.first, self.second)
        )
        sums, fading = self._lookups.sums, self._lookups.fading.index_select(0, _within(missed))
        drift = sums[_within(last + 1)] - fading[:, 0] * sums[_within(last + 1 + missed)]
        epsilon = EPSILON * self._lookups.roots[_within(last + 1)]
        root = second.sqrt().add_(_column(epsilon, second))
        values.addcdiv_(first * _column(RATIO * drift, first), root, value=-self._learning_rate)
        first.mul_(_column(fading[:, 1], first))
        second.mul_(_column(fading[:, 2], second))
        return Taken(rows, values, first, second)

    @torch.no_grad()
    def step(self, taken: Taken, gradients: Tensor) -> None:
        """One step: the rows just taken have these gradients (u, d), all others none.

        Uses up what was taken.
        """
        self.steps += 1
        taken.first.lerp_(gradients, 1 - BETA_1)
        taken.second.mul_(BETA_2).addcmul_(gradients, gradients, value=1 - BETA_2)
        root = (taken.second / (1 - BETA_2**self.steps)).sqrt_().add_(EPSILON)
        rate = self._learning_rate / (1 - BETA_1**self.steps)
        taken.values.addcdiv_(taken.first, root, value=-rate)
        self._put(taken)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the whole table to where dense Adam would have it now."""
        for rows in self.last.nonzero().squeeze(1).split(SETTLED_AT_ONCE):
            self._put(self.take(rows))

    def _put(self, taken: Taken) -> None:
        for whole, part in (
            (self.weight, taken.values),
            (self.first, taken.first),
            (self.second, taken.second),
        ):
            whole.index_copy_(0, taken.rows, part)
        self.last.index_fill_(0, taken.rows, self.steps)


@dataclass(frozen=True)
class _Lookups:
    """Over steps t or numbers of steps k, float64; found in a table, for powers are slow."""

    sums: Tensor  # (HORIZON + 1,), at t >= 1 the sum over q >= 0 of r^q c(t + q)
    roots: Tensor  # (HORIZON + 1,), sqrt(1 - beta_2^t)
    fading: Tensor  # (HORIZON + 1, 3), r^k, beta_1^k, beta_2^k


@lru_cache(maxsize=4)
def _lookups(device: torch.device) -> _Lookups:
    t = torch.arange(HORIZON + MEMORY + 1, dtype=torch.float64)
    roots = (1 - BETA_2**t).sqrt()
    c = (roots / (1 - BETA_1**t)).nan_to_num()
    sums = c.unfold(0, MEMORY, 1)[: HORIZON + 1] @ RATIO ** t[:MEMORY]
    k = t[: HORIZON + 1]
    fading = torch.stack([RATIO**k, BETA_1**k, BETA_2**k], dim=1)
    return _Lookups(sums.to(device), roots[: HORIZON + 1].to(device), fading.to(device))


def _within(steps: Tensor) -> Tensor:
    """As an index of a table: beyond its end nothing changes any more."""
    return steps.clamp(max=HORIZON)


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    """(u,) as (u, 1), in the type of the table's entries."""
    return numbers.to(like.dtype).unsqueeze(1)
