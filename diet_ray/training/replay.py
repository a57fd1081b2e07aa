"""A computation of fixed shapes, recorded once and then replayed without Python's way to it.

A step on a few rows is hundreds of calls on small tensors, most of whose time is not spent in
them: in functional transforms, autograd, views, fresh memory. A recording runs the computation
once and keeps its calls, as they arrive below all that, with the tensors that they read and wrote.
Replayed, every call writes to the same memory again, so that a view needs no call any more.

What holds: the same calls in the same order on the same memory layouts, hence the same bits. What
must hold: the computation is a function of its arguments, of tensors that stay where they are and
change in place (parameters), and of torch's generator. Whatever Python decides on the way is
decided once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Call = Callable[[], Any]


class Replayed:
    """A function of tensors, as it was recorded with the first ones.

    Called with others of the same shapes it gives what the function would; the tensors that it
    gives are overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Any], *given: Tensor) -> None:
        self._given = [tensor.clone() for tensor in given]
        with _Recorder() as recorder:
            self._found = function(*self._given)
        self._calls = recorder.calls()

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> Any:
        for own, tensor in zip(self._given, given, strict=True):
            own.copy_(tensor)
        for call in self._calls:
            call()
        return self._found


class _Recorder(TorchDispatchMode):
    """Keeps what is called while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[tuple[_Call, int | None]] = []  # the memory of a constant, else None
        self._changed: set[int] = set()

    def calls(self) -> list[_Call]:
        """What a replay calls: constants only if something is written over them."""
        return [call for call, of in self._made if of is None or of in self._changed]

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        read = {_memory(leaf) for leaf in _tensors((args, kwargs))}
        written = _tensors(found)
        if not written:
            raise ValueError(f"{function}: a recording cannot hold what depends on a value")
        if function._schema.is_mutable:
            self._changed |= {_memory(tensor) for tensor in written}
            self._made.append((partial(function, *args, **kwargs), None))
        elif not all(_memory(tensor) in read for tensor in written):  # else it is a view
            random = torch.Tag.nondeterministic_seeded in function.tags
            constant = _memory(written[0]) if not read and not random else None
            self._made.append((_again(function, args, kwargs, found), constant))
        return found


def _tensors(of: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _again(
    function: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any
) -> _Call:
    """A call of the function that writes to what it has found before."""
    results = found if isinstance(found, tuple | list) else (found,)
    variant = _writing_variant(function)
    if variant is not None and all(isinstance(result, Tensor) for result in results):
        writing, names = variant
        return partial(writing, *args, **kwargs, **dict(zip(names, results, strict=True)))
    return partial(_copied, function, args, kwargs, results)


def _copied(
    function: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], results: Any
) -> None:
    found = function(*args, **kwargs)
    found = found if isinstance(found, tuple | list) else (found,)
    for result, fresh in zip(results, found, strict=True):
        if result is not None:  # a gradient that nobody asked for
            result.copy_(fresh)


@cache
def _writing_variant(function: OpOverload) -> tuple[OpOverload, list[str]] | None:
    """The overload that takes the same and writes to given tensors, and how it calls them."""
    own = [(argument.name, str(argument.type)) for argument in function._schema.arguments]
    packet = function.overloadpacket
    for name in packet.overloads():
        other = getattr(packet, name)
        taken = other._schema.arguments
        names = [argument.name for argument in taken if argument.is_out]
        if names and [(a.name, str(a.type)) for a in taken if not a.is_out] == own:
            return other, names
    return None
