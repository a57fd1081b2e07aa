"""Eval mode for as long as a network is asked, not trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode that it was in.

    BatchNorm then applies the statistics of its training and dropout lets everything through, so
    a row's answer depends on that row alone.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
