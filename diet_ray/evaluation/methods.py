"""What a candidate is trained on, by method: all under one protocol (paper, section 5.1.3).

full       all historical blocks and the subsequent one, from scratch, one epoch
prefix     the first rows of that stream alone (`Cell.share` of them)
cold       the subsequent block alone, from scratch
warm       phi_T's embedding tables, then the subsequent block
random     warm, after a warm-up on rows drawn at random from every historical block
kmeans     the same on the rows nearest to the centroids of a k-means of the rows' embeddings
el2n       the same on rows around a percentile of the EL2N scores
distilled  the same on the distilled set

A reduced set has two uses: `inherit`, the above, and `cotrain` (`training/cotrain.py`), in which a
candidate trains a table of its own on the set alone.

The rows of a selection are labelled by phi_T (soft), by the truth (hard) or by both (blended, as
`memory.truth_blend` says, which is how the distilled set starts). A distilled set's soft labels
are learned; it has phi_T's own of its rows as well (taught).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from diet_ray.config import ConfigError
from diet_ray.distill.start import SMALLEST_PROBABILITY, synthesise
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import selected_rows
from diet_ray.logs.blocks import read_rows
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.memory.rows import SyntheticRows

METHODS = ("full", "prefix", "cold", "warm", "random", "kmeans", "el2n", "distilled")
REFERENCE_FREE = ("full", "prefix", "cold")
WITH_HISTORY = ("full", "prefix")
OF_TABLES = tuple(method for method in METHODS if method != "prefix")  # it is a rival as a score
REDUCED = ("random", "kmeans", "el2n", "distilled")

Labels = Literal["", "soft", "taught", "blended", "hard"]
Use = Literal["", "inherit", "cotrain"]


def check_methods(
    methods: Sequence[str], where: str = "benchmark.methods", known: Sequence[str] = OF_TABLES
) -> None:
    """Raises ConfigError for a name that is no method."""
    for method in methods:
        if method not in known:
            close = difflib.get_close_matches(method, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ConfigError(f"{where}: no method {method!r}{hint} Known: {', '.join(known)}")


def reduced_rows(run: Run, method: str, labels: Labels, seed: int) -> SyntheticRows:
    """The reduced set of a method in REDUCED, in phi_T's space, as many rows for each."""
    torch.set_num_threads(run.config.threads)
    if method == "distilled":
        rows = artifact.read(run.distilled)
        if labels == "hard":
            return replace(rows, labels=_truth(run, rows))
        if labels == "taught":
            return replace(rows, labels=rows.taught)
        return rows
    selected = selected_rows(run, method, seed)
    blend = {"soft": 0.0, "blended": run.config.memory.truth_blend, "hard": 1.0}[labels]
    return synthesise(selected, run.reference(), blend)


def _truth(run: Run, rows: SyntheticRows) -> np.ndarray:
    """The labels of the real rows that synthetic ones started from, as logits (n, K).

    Raises ArtifactError for a row that started from none of these blocks.
    """
    labels = np.full_like(rows.labels, np.nan)
    for block in run.blocks.historical:
        first = block.fragments[0].first_row_id
        inside = (rows.source_rows >= first) & (rows.source_rows < first + block.rows)
        if inside.any():
            labels[inside] = read_rows(run.blocks, block, rows.source_rows[inside]).labels
    unknown = rows.source_rows[np.isnan(labels).any(axis=1)]
    if len(unknown):
        raise ArtifactError(
            f"{run.distilled}: source_row {unknown[0]} is in no historical block of "
            f"{run.blocks.uri}; judge the set on the blocks it was distilled from"
        )
    return torch.logit(torch.from_numpy(labels), eps=SMALLEST_PROBABILITY).numpy()
