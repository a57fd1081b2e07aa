"""Networks, their common sizes, and the reference model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from diet_ray.config.section import (
    FITTED,
    Fitted,
    NetworkSize,
    Place,
    PositiveFloat,
    PositiveInt,
    Section,
)


class NetworkConfig(Section):
    name: str
    """A registered network, `package.module:Class` for any `torch.nn.Module` of your own, or
    `fuxictr:package.module:Class` for a model class of FuxiCTR's (`diet_ray/models/own.py`,
    `fuxictr.py`)."""
    parameters: dict[str, Any] = {}
    """Its hyper-parameters; checked against the network's own typed list, or its constructor."""
    label: str | None = None
    """How tables name it; default: `name`. Needed when one network stands in two sizes."""

    @property
    def title(self) -> str:
        return self.label or self.name

    def same_as(self, other: NetworkConfig) -> bool:
        """Whether both are the same network, whatever they are called."""
        return (self.name, self.parameters) == (other.name, other.parameters)


class MMoEConfig(Section):
    experts: NetworkSize = 8
    expert_units: Annotated[list[NetworkSize], Field(min_length=1)] = [512, 256, 128]
    gate_units: list[NetworkSize] = [128, 64]
    tower_units: list[NetworkSize] = [128, 64]


class ModelsConfig(Section):
    embedding_dim: NetworkSize = 16
    """d: width of every field's vector, shared by the reference and all candidates."""
    embedding_std: PositiveFloat = 0.01
    """Standard deviation of a fresh embedding."""
    mmoe: Fitted[MMoEConfig] = FITTED
    """The multi-task head; default: one that fits the log's size. What a head that is given leaves
    out is the largest one's."""


class ReferenceConfig(Section):
    folder: Place | None = None
    """Folder (any URI) of a reference that another run trained with the same settings on the same
    blocks; default: `reference` below `output`. What is missing is trained and published there."""
    network: Fitted[NetworkConfig] = FITTED
    """Default: DCN and WuKong on one table in sizes that fit the log's, or DCN on a large log."""
    batch_size: Fitted[PositiveInt] = FITTED
    """Rows per step, over all workers together; default: fits the log's size."""
    learning_rate: Fitted[PositiveFloat] = FITTED
    """Adam's; one epoch per block. Default: fits the log's size."""
    logical_shards: Fitted[PositiveInt] = FITTED
    """A batch is cut into so many parts, whose gradients are added in order; so the number of
    `resources.reference_workers`, of which there are no more, changes no bit. Default: 8, or as
    many as leave each part 128 rows: of smaller ones a step takes longer."""


def refuse_equal_titles(what: str, networks: list[NetworkConfig]) -> None:
    """Tables tell networks apart by their titles. Raises ValueError."""
    titles = [network.title for network in networks]
    for title in titles:
        if titles.count(title) > 1:
            raise ValueError(f"two {what} are called {title!r}; give each its own label")
