"""The recipe of a distillation: scoring, memory, inner loop, outer loop.

The defaults are the recipe for a log that nobody has looked at: random rows of every block, all of
them kept and moved along with the reference, meta-gradients with small steps from fresh proxies.
`configs/*_paper.yaml` state the paper's where it differs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diet_ray.config.models import NetworkConfig
from diet_ray.config.section import (
    FITTED,
    Fitted,
    Fraction,
    HeldCount,
    NonNegative,
    NonNegativeInt,
    Percentile,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    ShareBelowOne,
)

AlignmentMode = Literal["jvp", "difference"]
Precision = Literal["float32", "bfloat16"]


class ScoringConfig(Section):
    batch_rows: PositiveInt = 1_024
    """Rows per forward or JVP pass: few enough that a network's activations stay in a core's cache
    (a tenth faster than 8,192). A GPU wants tens of thousands."""
    el2n_precision: Precision = "float32"
    """Of the matrix products that EL2N's forward passes take. bfloat16 takes three fifths of the
    time on a CPU that multiplies it; of a band of a tenth of the rows it selects the same but for
    three in a thousand at most (RESULTS.md)."""
    sketch_k: Annotated[int, Field(ge=8, le=65_535)] = 400
    """Size of the KLL quantile sketches; larger brackets a band more tightly (the cut is exact)."""
    alignment: AlignmentMode = "jvp"
    """How addressing weighs real rows: exactly, by forward-mode differentiation, or by a central
    difference along the direction, in two thirds of the time or less; the tenth that it selects
    is the same but for a row in a hundred."""


class MemoryConfig(Section):
    ratio: Fitted[Fraction] = FITTED
    """Synthetic rows over historical rows; default: fits the log's size."""
    keep: Share = 1.0
    """Share of the previous memory that fusion keeps; the rest makes place for new rows. 1 keeps it
    all; the paper's is below."""
    new_rows: Literal["boundary", "random"] = "random"
    """Which rows of a block become new synthetic rows: the EL2N band of each label group (the
    paper's), or rows drawn at random."""
    percentile: Percentile = 90
    """Centre of the EL2N band from which new rows are taken, within each label group."""
    group_alpha: Share = 0.5
    """A label group's share is proportional to |group|^alpha: 1 proportional, 0 uniform."""
    truth_blend: ShareBelowOne = 0
    """Share of a row's own labels in the soft labels it starts from; the paper's is 0."""
    validation_rows: HeldCount = 65_536
    """Rows of the validation block, drawn at random, that the set carries along with their labels
    and the reference's, so that candidates can be judged without the log; at most as many as the
    block has."""
    rows_per_file: HeldCount = 65_536
    """Rows of one file of the set; a memory server holds whole files."""
    label_precision: Literal["float32", "float16"] = "float32"
    """How a published set stores soft labels."""
    delta_precision: Literal["float32", "float16"] = "float16"
    """How a published set stores what was learned of embeddings."""
    anchored: bool = True
    """Kept rows move along with the reference: what phi_t changed of their source row is added to
    them. The paper leaves them in the space of the stage that made them."""


class InnerConfig(Section):
    networks: Fitted[list[NetworkConfig]] = FITTED
    """Networks that the proxy takes by turns from shard to shard, so that the rows serve them all;
    the first one is the proxy of fusion and addressing. Empty: the reference's. Default: the
    members of a reference that is fitted to the log's size, with `start` fresh; else empty."""
    start: Literal["previous_reference", "fresh", "mixed"] = "fresh"
    """theta_0 of the proxy: phi_{t-1}'s dense network (fresh at t = 1), a freshly initialised one,
    or the two by turns from shard to shard. Networks other than the reference's start `fresh`."""
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Fitted[PositiveFloat] = FITTED
    """Default: fits the log's size."""
    batch_size: PositiveInt = 128
    steps: PositiveInt = 140
    """N: the longest unroll."""
    window: PositiveInt = 20
    """W: only the last W steps are differentiated (RaT-BPTT)."""

    @model_validator(mode="after")
    def _window_fits(self) -> InnerConfig:
        if self.window > self.steps:
            raise ValueError(
                f"window {self.window} is longer than the unroll of {self.steps} steps"
            )
        return self


class OuterConfig(Section):
    embedding_step: NonNegative = 0
    """Adam step of the embeddings in units of the reference table's standard deviation; the
    paper's recipes have 0.15. With 0 only soft labels are learned, and a set stores no number of
    an embedding: a tenth of the bytes or less, for the same AUC (RESULTS.md)."""
    label_step: PositiveFloat = 0.04
    """Adam step of the soft labels, in logits."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Over all outer steps of a stage."""
    clip: PositiveFloat = 2.0
    """The meta-gradient's norm is clipped at this multiple of the median of the last ones."""
    clip_window: PositiveInt = 9
    """Of how many steps' norms that median is."""


class DistillConfig(Section):
    rounds: PositiveInt = 1
    """Addressing (hard targets, active memory) is renewed this often per stage."""
    outer_steps: NonNegativeInt = 60
    """M: meta-gradient steps per round; 0 leaves the rows with the reference's labels, for no
    cost."""
    candidate_fraction: Fraction = 1.0
    """Share of the block that is looked at for hard targets, drawn anew each round."""
    hard_fraction: Fraction = 1.0
    """Share of those candidates, the least aligned, that become hard targets; 1 takes them all."""
    active_fraction: Fraction = 1.0
    """Share of the memory, the most responsible, that is updated; 1 takes it all."""
    target_batch: PositiveInt = 2_048
    """Real rows in one shard's outer loss."""
    logical_shards: Fitted[PositiveInt] = FITTED
    """G: independent meta-gradients averaged in one outer step, at most as many as there is work
    for meta-workers. Default: as many as it takes for a stage to pass over the active memory once,
    and at least 2."""
    unseen: bool = True
    """From stage 2 on, rows are embedded by phi_{t-1}, which has not trained on them, as candidates
    meet new rows; else by phi_t (the paper's). The artifact is in phi_t's space either way."""
    dropped_limit: ShareBelowOne = 0.05
    """Share of a stage's shards that may be left out because their loss or gradient is not a finite
    number; with more the stage stops."""
    commit_every: PositiveInt = 10
    """Outer steps between two durable states of the memory."""
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()

    @property
    def steps_of_stage(self) -> int:
        """Outer steps of all rounds of a stage."""
        return self.rounds * self.outer_steps

    def rows_of_stage(self) -> int:
        """Rows of the memory that a stage differentiates by, each as often as it comes: every shard
        takes as many as its window's batches hold."""
        shards = self.steps_of_stage * self.logical_shards
        return shards * self.inner.window * self.inner.batch_size
