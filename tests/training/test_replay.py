"""A recorded computation against itself, called anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diet_ray.training.replay import Replayed

CALLS = 4


def given(call: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(call)
    return tuple(torch.randn(3, 5, generator=draw, dtype=torch.float64) for _ in range(2))


def views(one: Tensor, other: Tensor) -> Tensor:
    """Of what is given, of what is computed, and of views."""
    product = one.transpose(0, 1)[1:] @ other.view(3, 5)
    return product.expand(2, 4, 5).reshape(8, 5)[::2].flatten()


def written_over(one: Tensor, other: Tensor) -> Tensor:
    """What begins as a constant must begin so in every call; a view of it is the same memory."""
    total = torch.zeros(5, dtype=torch.float64)
    total[1:] += one[0, 1:]
    total.mul_(other[0])
    return total + torch.ones_like(one) * torch.arange(5)


def several_results(one: Tensor, other: Tensor) -> Tensor:
    values, places = one.max(dim=1)
    norm = torch.nn.functional.layer_norm(other, (5,))
    return torch.cat([values, places.double(), *norm.unbind()])


def differentiated(one: Tensor, other: Tensor) -> Tensor:
    """Only one of a layer norm's gradients is asked for."""
    leaf = one.detach().requires_grad_()
    weight = torch.ones(5, dtype=torch.float64)
    loss = torch.nn.functional.layer_norm(leaf, (5,), weight).sigmoid() * other
    return torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("function", [views, written_over, several_results, differentiated])
def test_a_replay_gives_what_the_function_would(function: Callable[..., Tensor]) -> None:
    replayed = Replayed(function, *given(0))
    for call in range(CALLS):
        assert torch.equal(replayed(*given(call)), function(*given(call)))


def test_what_changed_in_place_is_read_anew() -> None:
    weight = torch.ones(5, dtype=torch.float64)
    replayed = Replayed(lambda one, other: (one + other) @ weight.view(5, 1), *given(0))
    for call in range(CALLS):
        weight.add_(call)
        one, other = given(call)
        assert torch.equal(replayed(one, other), (one + other) @ weight.view(5, 1))


def test_the_next_call_overwrites_what_was_found() -> None:
    replayed = Replayed(torch.add, *given(0))
    found = replayed(*given(1))
    replayed(*given(2))
    assert torch.equal(found, torch.add(*given(2)))


def test_what_is_drawn_is_drawn_anew() -> None:
    def noise(one: Tensor, other: Tensor) -> Tensor:
        return torch.nn.functional.dropout(one, 0.5) + torch.rand(3, 5, dtype=torch.float64) * other

    torch.manual_seed(0)
    replayed = Replayed(noise, *given(0))
    for call in range(CALLS):
        torch.manual_seed(call)
        found = replayed(*given(0)).clone()
        torch.manual_seed(call)
        assert torch.equal(found, noise(*given(0)))


def test_what_depends_on_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="depends on a value"):
        Replayed(lambda one, other: one * float(other.sum()), *given(0))
