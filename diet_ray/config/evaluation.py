"""How candidates are trained and judged: protocol, check, benchmark."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from diet_ray.config.models import NetworkConfig, refuse_equal_titles
from diet_ray.config.section import (
    FITTED,
    Fitted,
    Fraction,
    Number,
    Percentile,
    PositiveFloat,
    PositiveInt,
    Section,
    describe_errors,
)
from diet_ray.config.space import Space, check_conditions


class ProtocolConfig(Section):
    """How a candidate is trained."""

    batch_size: Fitted[PositiveInt] = FITTED
    """Rows per step on real blocks; default: fits the log's size."""
    learning_rate: Fitted[PositiveFloat] = FITTED
    """Adam's on real blocks; one epoch. Default: fits the log's size."""
    warm_up_batch_size: PositiveInt = 128
    """Rows per step on a reduced set; smaller, or a few thousand rows give too few steps."""
    warm_up_learning_rate: PositiveFloat = 1e-3
    """Adam's on a reduced set."""
    epochs: PositiveInt = 8
    """Longest warm-up on a reduced set; the best epoch on validation counts."""

    ON_REAL_BLOCKS: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate")
    """The keys that mean something to a method without a warm-up."""

    def changed(self, keys: dict[str, float]) -> ProtocolConfig:
        """With some keys, checked already, in the place of its own."""
        checked = ProtocolConfig.model_validate(keys).model_dump(include=set(keys))
        return self.model_copy(update=checked)


def _check_changes(keys: dict[str, float], where: str, warms_up: bool = True) -> None:
    """Whether they are keys of a protocol. Raises ValueError; `where` begins its message."""
    try:
        ProtocolConfig.model_validate(keys)
    except ValidationError as error:
        raise ValueError(describe_errors(error, ProtocolConfig, where)) from None
    without_meaning = [key for key in keys if key not in ProtocolConfig.ON_REAL_BLOCKS]
    if without_meaning and not warms_up:
        raise ValueError(
            f"{where}: {without_meaning[0]} is a key of the warm-up, which is not part of this "
            f"training; remove it: {' and '.join(ProtocolConfig.ON_REAL_BLOCKS)} alone count here"
        )


class CotrainConfig(Section):
    """How a candidate is ranked on a set: table and network together, from nothing."""

    batch_size: PositiveInt = 8
    """Rows per step; small: the steps decide how far a candidate comes, the rows what it costs."""
    learning_rate: PositiveFloat = 2e-3
    """Adam's."""
    steps: PositiveInt = 300
    """Of one training, whatever the size of the set: over part of its rows, or over all of them
    again and again. With few, every candidate is still where it began; with many, they converge to
    the teacher."""
    seeds: PositiveInt = 4
    """Trainings of a candidate, side by side; its score is their mean."""


class EvaluationConfig(Section):
    methods: list[Literal["full", "warm", "random", "distilled"]] = [
        "full",
        "warm",
        "random",
        "distilled",
    ]
    """What the check after a distillation trains every candidate by; `[]` switches the check off.
    full trains on the whole log, for every candidate and seed: on a large log most of the time."""
    candidates: Fitted[Annotated[list[NetworkConfig], Field(min_length=1)]] = FITTED
    """Default: DCN and WuKong in sizes that fit the log's."""
    seeds: PositiveInt = 3
    """Each cell of the check's table is the mean over this many independent trainings; so is a
    score of `search.use: inherit`."""
    protocol: ProtocolConfig = ProtocolConfig()
    cotrain: CotrainConfig = CotrainConfig()
    full_protocol: dict[str, Number] = {}
    """`batch_size` and `learning_rate` of full data, where they differ from `protocol`'s, which is
    made for what follows a warm start and may starve a training from scratch of steps. For full
    data alone: all other methods end with the same subsequent block, and would differ by its
    protocol too if it were not one."""

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        for method in value:
            if value.count(method) > 1:
                raise ValueError(f"{method!r} stands there twice; remove one")
        return value

    @field_validator("full_protocol")
    @classmethod
    def _protocol(cls, value: dict[str, float]) -> dict[str, float]:
        _check_changes(value, "full_protocol", warms_up=False)
        return value

    @model_validator(mode="after")
    def _titles_differ(self) -> EvaluationConfig:
        refuse_equal_titles("candidates", self.candidates or [])
        return self

    def protocol_of(self, method: str) -> ProtocolConfig:
        """How the check trains a method."""
        return self.protocol.changed(self.full_protocol if method == "full" else {})


class TuningConfig(Section):
    """Every method's protocol is chosen on validation, separately."""

    tried: list[dict[str, Number]] = [{}]
    """Keys to try in the place of `evaluation.protocol`'s, such as `{learning_rate: 0.002}`; `{}`
    is the protocol itself. For the methods with a reduced set."""
    tried_without_warm_up: list[dict[str, Number]] | None = None
    """The same for full data (in the place of `evaluation.full_protocol`'s), cold and warm start,
    to which `batch_size` and `learning_rate` alone mean something. Default: those keys of `tried`,
    each pair once."""
    seeds: PositiveInt = 1
    """Trainings per candidate and tried protocol; their seeds are not among those judged."""

    @field_validator("tried", "tried_without_warm_up")
    @classmethod
    def _protocols(
        cls, value: list[dict[str, float]] | None, info: ValidationInfo
    ) -> list[dict[str, float]] | None:
        if value == []:
            raise ValueError("nothing to try; [{}] tries the protocol of the check alone")
        for number, keys in enumerate(value or [], start=1):
            _check_changes(keys, f"entry {number}", warms_up=info.field_name == "tried")
        return value

    def of(self, warms_up: bool) -> list[dict[str, float]]:
        """What a method with or without a warm-up tries."""
        if warms_up:
            return self.tried
        kept = ProtocolConfig.ON_REAL_BLOCKS
        own = [{key: keys[key] for key in kept if key in keys} for keys in self.tried]
        return self.tried_without_warm_up or own


Score = Literal["taught", "auc", "logloss"]
"""On validation rows: AUC against the reference's soft labels, AUC or LogLoss against their own."""

Study = Literal["main", "fidelity", "ratio", "ablation", "transfer", "cost"]


class ArmConfig(Section):
    """A way to score candidates cheaply, in the fidelity study."""

    method: str
    """As in `benchmark.methods`; or prefix, the first rows of the stream."""
    use: Literal["inherit", "cotrain"] = "inherit"
    """Of a reduced set: on phi_T's table with the subsequent block after it (the paper's), or table
    and network together on the set alone."""
    labels: Literal["soft", "taught", "hard"] = "soft"
    """Of a reduced set; a distilled one's soft labels are learned, taught are the reference's."""
    ratio: Fraction | None = None
    """Size of a selection; default: `memory.ratio`."""
    share: Fraction = 1.0
    """Of the stream's rows that a prefix sees."""
    protocol: dict[str, Number] = {}
    """Keys that it changes: of `evaluation.cotrain`, or else of its method's tuned protocol."""
    seeds: PositiveInt | None = None
    """Trainings of a candidate, whose mean is its score; default: 1, or those of
    `evaluation.cotrain`."""
    repetitions: PositiveInt | None = None
    """Default: those of the study."""
    score: Literal[Score, "progressive"] = "auc"
    """On validation, or the progressive loss of the last third of the training."""
    label: str | None = None
    """How tables name it; default: made of the keys above."""

    SCORES: ClassVar[dict[str, str]] = {
        "taught": "by soft labels",
        "auc": "",
        "logloss": "by LogLoss",
        "progressive": "by its loss",
    }
    """How titles name the scores."""

    @property
    def title(self) -> str:
        if self.label:
            return self.label
        share = "" if self.share == 1 else f"{100 * self.share:g}%"
        ratio = "" if self.ratio is None else f"{100 * self.ratio:g}%"
        labels = "" if self.labels == "soft" else self.labels
        use = "co-trained" if self.use == "cotrain" else ""
        changed = " ".join(f"{key}={value:g}" for key, value in self.protocol.items())
        parts = (self.method, share, ratio, labels, use, changed, self.SCORES[self.score])
        return " ".join(filter(None, parts))

    @field_validator("protocol")
    @classmethod
    def _keys_of_its_protocol(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, Any]:
        kind = CotrainConfig if info.data.get("use") == "cotrain" else ProtocolConfig
        try:
            checked = kind.model_validate(value)
        except ValidationError as error:
            raise ValueError(describe_errors(error, kind, "protocol")) from None
        return checked.model_dump(include=set(value))


class FidelityConfig(Section):
    """Does a cheap score order architectures as full training does? (Figure 1)"""

    space: Space = {}
    """Network name to hyper-parameter to values, as in `search.space`: the settings are drawn from
    it, the networks by turns. Empty: `evaluation.candidates` are the settings."""
    settings: PositiveInt = 50
    """How many are drawn."""
    full_seeds: PositiveInt = 4
    """Of full data, whose mean is the truth."""
    repetitions: PositiveInt = 2
    """Of every arm, each with a run seed of its own, hence another reference and set."""
    arms: Annotated[list[ArmConfig], Field(min_length=1)] = [
        ArmConfig(method="warm"),
        ArmConfig(method="cold"),
        ArmConfig(method="prefix", share=0.05),
        ArmConfig(method="random"),
        ArmConfig(method="distilled"),
        ArmConfig(method="random", labels="hard", use="cotrain", score="taught"),
        ArmConfig(method="random", use="cotrain", score="taught"),
        ArmConfig(method="distilled", labels="taught", use="cotrain", score="taught"),
    ]
    """What is compared; the last one against every other."""

    @field_validator("space")
    @classmethod
    def _conditions_can_hold(cls, value: Space) -> Space:
        return check_conditions(value)


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
    percentile: Percentile = 90
    """Centre of the band of EL2N scores that the method `el2n` selects, per block."""
    fidelity: FidelityConfig = FidelityConfig()
    user_field: str | None = None
    """Field that names the user: intervals over test rows then resample users, each with all of
    their rows. Without it rows count as independent, which makes intervals too narrow."""
    ratios: list[Fraction] = [0.001, 0.005, 0.015, 0.05]
    """Of the ratio study."""
    references: list[NetworkConfig] = []
    """Reference networks of the transfer and ratio studies, beside the run's own."""
    study_seeds: PositiveInt = 3
    """Of the ratio, ablation and transfer studies."""
    ablations: dict[str, dict[str, dict[str, Any]]] = {
        "with-fusion": {"memory": {"keep": 0.8}},
        "with-target-selection": {"distill": {"hard_fraction": 0.1}},
        "with-memory-selection": {"distill": {"active_fraction": 0.5}},
        "newest-block-only": {"memory": {"keep": 0.0}},
        "no-meta-gradient": {"distill": {"outer_steps": 0}},
    }
    """Name to the keys of `scoring`, `memory` and `distill` that it changes, at least one of them.
    The default switches parts of the paper's method on, one by one, in a recipe without them."""

    @model_validator(mode="after")
    def _titles_differ(self) -> BenchmarkConfig:
        refuse_equal_titles("references", self.references)
        return self
