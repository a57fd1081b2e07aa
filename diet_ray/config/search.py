"""The sweep over architectures (`jobs/sweep.py`)."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from diet_ray.config.evaluation import Score
from diet_ray.config.section import NonNegativeInt, Place, PositiveFloat, PositiveInt, Section
from diet_ray.config.space import OptionConfig, Space, check_conditions


class BudgetConfig(Section):
    """After either of these is spent no new trial begins; what is under way ends."""

    seconds: PositiveFloat | None = None
    """Of this start of the sweep."""
    cost: PositiveFloat | None = None
    """Rows trained by all trials, earlier starts included, over those of one full training."""


class SearchConfig(Section):
    space: Space = {
        "dcn": {
            "num_cross_layers": OptionConfig(integer=(1, 4)),
            "dnn_hidden_units": OptionConfig(choice=[[32], [64, 32], [128, 64], [256, 128]]),
        },
        "dcnv2": {
            "num_cross_layers": OptionConfig(integer=(1, 3)),
            "parallel_dnn_hidden_units": OptionConfig(
                choice=[[32], [64, 32], [128, 64], [256, 128]]
            ),
        },
        "finalnet": {
            "block1_hidden_units": OptionConfig(choice=[[32, 32], [64, 64], [128, 128]]),
            "block2_hidden_units": OptionConfig(choice=[[32], [64, 64], [128, 128]]),
        },
        "finalmlp": {
            "mlp1_hidden_units": OptionConfig(choice=[[32], [64, 32], [128, 64]]),
            "mlp2_hidden_units": OptionConfig(choice=[[32]]),
            "use_fs": OptionConfig(choice=[False]),
            "num_heads": OptionConfig(choice=[1]),
            "fusion_dim": OptionConfig(choice=[16]),
        },
        "wukong": {
            "num_layers": OptionConfig(integer=(1, 3)),
            "fmb_features": OptionConfig(choice=[8, 16]),
            "lcb_features": OptionConfig(choice=[8, 16]),
            "rank": OptionConfig(choice=[4, 8]),
            "fmb_units": OptionConfig(choice=[[32], [64]]),
            "mlp_hidden_units": OptionConfig(choice=[[64], [128, 64]]),
        },
    }
    """Network name, or "*" for all of them, to hyper-parameter to its values: a list of choices,
    {range: [low, high], log: true}, {integer: [low, high]}, or one value; {choice: [..], when:
    {other: value}} only where another has a value. `learning_rate` and `embedding_dim` (the width
    of the table) may stand beside the hyper-parameters."""
    algorithm: Literal["random", "grid", "tpe"] = "random"
    """How candidates are proposed: drawn by the seed, every combination, or by Optuna's TPE from
    the scores so far."""
    trials: PositiveInt = 24
    """Candidates at most, each one once."""
    budget: BudgetConfig = BudgetConfig()
    stop: Literal["none", "median", "asha"] = "none"
    """Which trials end early: those below the median of the others at the same round, or all but
    the best half of each rung (ASHA). A co-training's rounds are its seeds, since a training of
    fewer steps says little about the order (RESULTS.md); a warm-up's are its epochs."""
    use: Literal["cotrain", "inherit"] = "cotrain"
    """How a trial trains: table and network together from nothing, as `evaluation.cotrain` says,
    on the set's folder alone; or the network on phi_T's table, a warm-up as
    `evaluation.protocol` says, which needs the run's blocks and reference too (the paper's)."""
    distilled: Place | None = None
    """Folder (any URI) of a published set; default: the run's last stage."""
    score: Score | None = None
    """What candidates are ranked by, the mean over seeds; default: taught, or auc to inherit."""
    verify: NonNegativeInt = 0
    """Candidates, spread evenly over the leaderboard, that are trained on full data too, by
    `evaluation.seeds` seeds each: how far to trust the order. Needs the run's blocks."""
    finish: NonNegativeInt = 0
    """So many of the best go on: warm-started on the set, trained on the subsequent block, judged
    on test, and kept as models to deploy. Needs the run's blocks and reference."""
    mlflow: str | None = None
    """Tracking URI of an MLflow store that trials are logged to as well, such as
    sqlite:///mlflow.db; needs the extra diet_ray[mlflow]."""

    @property
    def ranked_by(self) -> Score:
        """What candidates are ranked by."""
        return self.score or ("taught" if self.use == "cotrain" else "auc")

    @field_validator("verify")
    @classmethod
    def _one_has_no_order(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one candidate has no order; name 2 or more, or 0 for none")
        return value

    @field_validator("space")
    @classmethod
    def _conditions_can_hold(cls, value: Space) -> Space:
        return check_conditions(value)

    @model_validator(mode="after")
    def _score_is_known(self) -> SearchConfig:
        if self.use == "inherit" and self.score == "taught":
            raise ValueError(
                "score: taught compares with the reference, whose finished table every candidate "
                "of use: inherit has; set score to auc or logloss"
            )
        if self.use == "inherit" and any("embedding_dim" in o for o in self.space.values()):
            raise ValueError(
                "space: embedding_dim: with use: inherit every candidate has phi_T's table, whose "
                "width is models.embedding_dim; remove it, or set use to cotrain"
            )
        return self
