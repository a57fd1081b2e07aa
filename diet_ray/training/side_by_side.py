"""Several dense networks of one architecture trained side by side, as one stacked network.

A candidate is ranked by several seeds, on batches of a few rows, where a step is mostly the fixed
cost of its calls. Stacked (`torch.func`), the seeds take their steps in the same calls; those of a
network of ours are recorded and replayed (`replay.py`), three times as fast (RESULTS.md). Every
network still learns from rows of its own and by its own gradient alone, as it would by itself, up
to the rounding of a batched product.

A network of anyone's own may do what cannot be stacked, such as branch on its values. Its copies
then take every step one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from diet_ray import progress
from diet_ray.models.registry import DenseNetwork
from diet_ray.seeds import torch_seeded
from diet_ray.training.replay import Replayed

_ByName = dict[str, Tensor]
_Losses = Callable[[Tensor, Tensor], Tensor]
Gradients = tuple[Tensor, Tensor, Sequence[Tensor]]
"""Every row's loss (S, B); the gradient of every network's own mean loss with respect to its
embeddings (S, B, F, d); and to `SideBySide.parameters`. The next call may overwrite them."""

OURS = ("diet_ray.models.", "torch.nn.")


class SideBySide:
    """embeddings (S, B, F, d), labels (S, B, K) in [0, 1] -> `Gradients`; always of one shape.

    networks: S of one architecture. Their parameters and buffers become slices of the stack's, one
    memory, so that each of them can be asked for predictions at any time; they are trained here
    alone. Whatever a network draws (dropout) comes from torch's global generator.
    """

    def __init__(self, networks: Sequence[DenseNetwork]) -> None:
        parameters = _stacked([dict(network.named_parameters()) for network in networks])
        self._names = list(parameters)
        self.parameters = [whole.requires_grad_() for whole in parameters.values()]
        """Each (S, ..)."""
        self._buffers_by_name = _stacked([dict(network.named_buffers()) for network in networks])
        for network in networks:
            network.requires_grad_(False)
        self._networks = list(networks)
        self._gradients: Callable[[Tensor, Tensor], Gradients] | None = None

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Gradients:
        if self._gradients is None:
            self._gradients = self._way(embeddings, labels)
        return self._gradients(embeddings, labels)

    def _way(self, embeddings: Tensor, labels: Tensor) -> Callable[[Tensor, Tensor], Gradients]:
        """How the steps are taken: one after the other, together, or replayed."""
        if not self._stackable(embeddings, labels):
            return partial(self._differentiated, self._in_turn)
        together = partial(self._differentiated, self._together)
        if embeddings.is_cpu and not self._buffers_by_name and _ours(self._networks[0]):
            return Replayed(together, embeddings, labels)
        return together

    def _differentiated(self, losses_of: _Losses, embeddings: Tensor, labels: Tensor) -> Gradients:
        embeddings = embeddings.detach().requires_grad_()
        losses = losses_of(embeddings, labels)
        of_embeddings, *of_parameters = torch.autograd.grad(
            losses.mean(dim=1).sum(),  # every network's own mean: none sees another's rows
            [embeddings, *self.parameters],
            materialize_grads=True,  # a network of one's own may leave a parameter out
        )
        # a fused optimiser walks through memory
        return losses.detach(), of_embeddings, [whole.contiguous() for whole in of_parameters]

    def _together(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        def losses(parameters: _ByName, buffers: _ByName, own: Tensor, labels: Tensor) -> Tensor:
            return functional_call(self._networks[0], (parameters, buffers), (own, labels))

        parameters = dict(zip(self._names, self.parameters, strict=True))
        stacked = vmap(losses, randomness="different")
        return stacked(parameters, self._buffers_by_name, embeddings, labels)

    def _in_turn(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        parameters = [whole.unbind() for whole in self.parameters]
        losses = []
        for place, network in enumerate(self._networks):
            own = {name: parts[place] for name, parts in zip(self._names, parameters, strict=True)}
            losses.append(functional_call(network, own, (embeddings[place], labels[place])))
        return torch.stack(losses)

    def _stackable(self, embeddings: Tensor, labels: Tensor) -> bool:
        """Whether the networks can take a step together; tried, and nothing is left of it."""
        before = {name: whole.clone() for name, whole in self._buffers_by_name.items()}
        try:
            with torch.no_grad(), torch_seeded(0, "stackable"):
                self._together(embeddings, labels)
        except Exception as error:  # whatever is wrong with the network itself, its turn tells
            progress.logger.info(
                "%s: its seeds train one after the other, for they cannot be stacked: %s",
                type(self._networks[0].interaction).__name__,
                str(error).strip().partition("\n")[0],
            )
            return False
        finally:
            for name, whole in self._buffers_by_name.items():
                whole.copy_(before[name])
        return True


def _ours(network: nn.Module) -> bool:
    """Whether all of it is known to do the same in every step, as a recording demands."""
    return all(type(module).__module__.startswith(OURS) for module in network.modules())


def _stacked(of_models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By name, what the models hold, stacked (S, ..); theirs become slices of it."""
    found = {}
    for name in of_models[0]:
        found[name] = torch.stack([own[name].detach() for own in of_models])
        for own, part in zip(of_models, found[name], strict=True):
            own[name].data = part
    return found
