"""How candidates are trained and judged: protocol, check, benchmark, search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from diet_ray import storage
from diet_ray.config.models import NetworkConfig, refuse_equal_titles
from diet_ray.config.section import Fraction, PositiveFloat, PositiveInt, Section, describe_errors


class ProtocolConfig(Section):
    """How a candidate is trained."""

    batch_size: PositiveInt = 512
    """Rows per step on real blocks."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's on real blocks; one epoch."""
    warm_up_batch_size: PositiveInt = 128
    """Rows per step on a reduced set; smaller, or a few thousand rows give too few steps."""
    warm_up_learning_rate: PositiveFloat = 1e-3
    """Adam's on a reduced set."""
    epochs: PositiveInt = 8
    """Longest warm-up on a reduced set; the best epoch on validation counts."""

    @staticmethod
    def changes(keys: dict[str, float]) -> dict[str, Any]:
        """Some keys, checked, with their types. Raises pydantic's ValidationError."""
        return ProtocolConfig.model_validate(keys).model_dump(include=set(keys))


class CotrainConfig(Section):
    """How a candidate is ranked on a set: table and network together, from nothing."""

    batch_size: PositiveInt = 32
    """Rows per step."""
    learning_rate: PositiveFloat = 2e-3
    """Adam's."""
    passes: PositiveInt = 1
    """Over the set; with many of them all candidates converge to the teacher."""


class EvaluationConfig(Section):
    candidates: Annotated[list[NetworkConfig], Field(min_length=1)] = [
        NetworkConfig(name="dcn"),
        NetworkConfig(name="wukong"),
    ]
    seeds: PositiveInt = 3
    """Each cell of the table is the mean over this many independent trainings."""
    protocol: ProtocolConfig = ProtocolConfig()
    cotrain: CotrainConfig = CotrainConfig()

    @model_validator(mode="after")
    def _titles_differ(self) -> EvaluationConfig:
        refuse_equal_titles("candidates", self.candidates)
        return self


class TuningConfig(Section):
    """Every method's protocol is chosen on validation, each method from the same list."""

    tried: list[dict[str, float]] = [{}]
    """Keys of `evaluation.protocol` to try in its place, such as `{learning_rate: 0.002}`; `{}` is
    the protocol itself."""
    seeds: PositiveInt = 1
    """Trainings per candidate and tried protocol; their seeds are not among those judged."""

    @field_validator("tried")
    @classmethod
    def _protocols(cls, value: list[dict[str, float]]) -> list[dict[str, float]]:
        if not value:
            raise ValueError("nothing to try; [{}] tries evaluation.protocol alone")
        for number, keys in enumerate(value, start=1):
            try:
                ProtocolConfig.changes(keys)
            except ValidationError as error:
                raise ValueError(
                    describe_errors(error, ProtocolConfig, f"entry {number}")
                ) from None
        return value


Study = Literal["main", "fidelity", "ratio", "ablation", "transfer", "cost"]


class BenchmarkConfig(Section):
    """The paper's tables and figures (`jobs/benchmark.py`)."""

    studies: list[Study] = ["main", "fidelity", "ratio", "ablation", "transfer", "cost"]
    """main: Table 3; fidelity: Figure 1; ratio: Figure 3; ablation: Table 4; transfer: other
    references; cost: Table 5."""
    methods: Annotated[list[str], Field(min_length=1)] = [
        "full",
        "cold",
        "warm",
        "random",
        "kmeans",
        "el2n",
        "distilled",
    ]
    labels: Annotated[list[Literal["soft", "blended", "hard"]], Field(min_length=1)] = [
        "soft",
        "hard",
    ]
    """Labels of the selected rows in the main study: the reference's, those blended with the truth
    by `memory.truth_blend`, or the truth. Soft ones in all other studies."""
    seeds: PositiveInt = 10
    """Of candidates and selections, in the main study."""
    tuning: TuningConfig = TuningConfig()
    percentile: Annotated[float, Field(gt=0, lt=100)] = 90
    """Centre of the band of EL2N scores that the method `el2n` selects, per block."""
    space: dict[str, dict[str, list[Any]]] = {}
    """Network name to hyper-parameter to values: the settings of the fidelity study are drawn from
    it, the networks by turns. Empty: `evaluation.candidates` are the settings."""
    settings: PositiveInt = 50
    """How many are drawn."""
    fidelity_seeds: PositiveInt = 4
    ratios: list[Fraction] = [0.001, 0.005, 0.015, 0.05]
    """Of the ratio study."""
    references: list[NetworkConfig] = []
    """Reference networks of the transfer and ratio studies, beside the run's own."""
    study_seeds: PositiveInt = 3
    """Of the ratio, ablation and transfer studies."""
    ablations: dict[str, dict[str, dict[str, Any]]] = {
        "no-fusion": {"memory": {"keep": 0.0}},
        "no-target-selection": {"distill": {"hard_fraction": 1.0}},
        "no-memory-selection": {"distill": {"active_fraction": 1.0}},
        "none": {
            "memory": {"keep": 0.0},
            "distill": {"hard_fraction": 1.0, "active_fraction": 1.0},
        },
    }
    """Name to the keys that switch a part of the recipe off."""

    @model_validator(mode="after")
    def _titles_differ(self) -> BenchmarkConfig:
        refuse_equal_titles("references", self.references)
        return self


class SearchConfig(Section):
    space: dict[str, dict[str, list[Any]]] = {"dcn": {}, "wukong": {}}
    """Network name to hyper-parameter to the values tried."""
    trials: PositiveInt = 8
    """Candidates drawn from the space without repetition."""
    use: Literal["cotrain", "inherit"] = "cotrain"
    """How a trial trains: table and network together from nothing, as `evaluation.cotrain` says,
    on the set's folder alone; or the network on phi_T's table, a warm-up as
    `evaluation.protocol` says, which needs the run's blocks and reference too (the paper's)."""
    distilled: str | None = None
    """Folder (any URI) of a published set; default: the run's last stage."""
    seeds: PositiveInt = 2
    """Trainings of every candidate; its score is their mean."""

    @field_validator("distilled")
    @classmethod
    def _same_place_in_every_process(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)
