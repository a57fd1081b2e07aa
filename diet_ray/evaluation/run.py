"""What the cells of one distillation have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diet_ray import devices
from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact
from diet_ray.training.reference import Reference, load_reference, reference_identity, reference_uri


@dataclass(frozen=True)
class Run:
    """A configuration, its blocks, phi_T and S_T; where only selections are judged, no S_T."""

    config: RunConfig
    blocks: Blocks
    distilled: str = ""  # URI of S_T
    variant: str = ""  # name of an ablation

    def reference_uri(self) -> str:
        """Folder of phi_T."""
        return reference_uri(self.config, len(self.blocks.historical))

    def reference(self) -> Reference:
        """phi_T."""
        return load_reference(self.reference_uri())

    def at_ratio(self, ratio: float) -> Run:
        """The same run with selections of another size."""
        memory = self.config.memory.model_copy(update={"ratio": ratio})
        return replace(self, config=self.config.model_copy(update={"memory": memory}))

    def selection_sizes(self) -> list[int]:
        """Rows that a selection takes from every historical block.

        Together as many as the distilled set has: `memory.ratio` of the history.
        """
        seen, taken, sizes = 0, 0, []
        for block in self.blocks.historical:
            seen += block.rows
            sizes.append(min(round(self.config.memory.ratio * seen) - taken, block.rows))
            taken += sizes[-1]
        return sizes

    def made_from(self) -> dict[str, Any]:
        """What determines a cell, beside the cell itself."""
        return {
            "blocks": self.blocks.fingerprint,
            "models": self.config.models.model_dump(),
            "seed": self.config.seed,
            "threads": self.config.threads,
            **devices.numerics(),
        }

    @cached_property
    def reference_identity(self) -> str:
        """Of phi_T."""
        return self.reference_identities[-1]

    @cached_property
    def reference_identities(self) -> list[str]:
        """Of phi_1..phi_T."""
        stages = range(1, len(self.blocks.historical) + 1)
        return [reference_identity(reference_uri(self.config, t)) for t in stages]

    @cached_property
    def distilled_files(self) -> dict[str, str]:
        """Checksums of S_T. Raises ArtifactError."""
        return artifact.checksums(self.distilled)
