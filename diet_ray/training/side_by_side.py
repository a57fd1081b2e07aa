"""Several models of one architecture trained side by side, as one stacked model.

A candidate is ranked by several seeds, on batches of a few rows, where a step is mostly the fixed
cost of its calls. Stacked (`torch.func`), the seeds take their steps in the same calls: four of
them cost about 1.7 times one (RESULTS.md). Every model still learns from rows of its own and by
its own gradient alone, as it would by itself, up to the rounding of a batched product.

A network of anyone's own may do what cannot be stacked, such as branch on its values. Its models
then take every step one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from diet_ray import progress
from diet_ray.seeds import torch_seeded
from diet_ray.training.model import Recommender

_ByName = dict[str, Tensor]


class SideBySide(nn.Module):
    """ids (S, B, F), labels (S, B, K) in [0, 1] -> every row's training loss (S, B).

    models: S of one architecture. Their parameters and buffers become slices of this module's, one
    memory, so that each of them can be asked for predictions at any time; they are trained here
    alone. Whatever a network draws (dropout) comes from torch's global generator.
    """

    def __init__(self, models: Sequence[Recommender]) -> None:
        super().__init__()
        parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._names, self.stacked = list(parameters), nn.ParameterList(parameters.values())
        self._buffers_by_name = _stacked([dict(model.named_buffers()) for model in models])
        for model in models:
            model.requires_grad_(False)
        self._models = list(models)
        self._losses: Callable[..., Tensor] | None = None

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        if self._losses is None:
            self._losses = self._together if self._stackable(ids, labels) else self._in_turn
        return self._losses(ids, labels)

    def _together(self, ids: Tensor, labels: Tensor) -> Tensor:
        def losses(parameters: _ByName, buffers: _ByName, ids: Tensor, labels: Tensor) -> Tensor:
            return functional_call(self._models[0], (parameters, buffers), (ids, labels))

        parameters = dict(zip(self._names, self.stacked, strict=True))
        return vmap(losses, randomness="different")(parameters, self._buffers_by_name, ids, labels)

    def _in_turn(self, ids: Tensor, labels: Tensor) -> Tensor:
        parameters = [whole.unbind() for whole in self.stacked]
        losses = []
        for place, model in enumerate(self._models):
            own = {name: parts[place] for name, parts in zip(self._names, parameters, strict=True)}
            losses.append(functional_call(model, own, (ids[place], labels[place])))
        return torch.stack(losses)

    def _stackable(self, ids: Tensor, labels: Tensor) -> bool:
        """Whether the models can take a step together; tried, and nothing is left of it."""
        before = {name: whole.clone() for name, whole in self._buffers_by_name.items()}
        try:
            with torch.no_grad(), torch_seeded(0, "stackable"):
                self._together(ids, labels)
        except Exception as error:  # whatever is wrong with the network itself, its turn tells
            progress.logger.info(
                "%s: its seeds train one after the other, for they cannot be stacked: %s",
                type(self._models[0].dense.interaction).__name__,
                str(error).strip().partition("\n")[0],
            )
            return False
        finally:
            for name, whole in self._buffers_by_name.items():
                whole.copy_(before[name])
        return True


def _stacked(of_models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By name, what the models hold, stacked (S, ..); theirs become slices of it."""
    found = {}
    for name in of_models[0]:
        found[name] = torch.stack([own[name].detach() for own in of_models])
        for own, part in zip(of_models, found[name], strict=True):
            own[name].data = part
    return found
