"""A made table of results, with logits that belong to it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from diet_ray.config import ArmConfig
from diet_ray.distill.parts import Parts
from diet_ray.evaluation.fidelity import FIRST_SEED, SEEDS_OF_A_REPETITION, TRUTH

LEVELS = {"full": 0.75, "cold": 0.65, "warm": 0.70, "random": 0.72, "distilled": 0.74}
CANDIDATES = {"dcn": 0.0, "wukong": 0.01}
SEEDS = (0, 1, 2)
TASKS = 2
TEST_ROWS = 120
FULL_ROWS = 1000
TRAINED_ROWS = {"full": FULL_ROWS, "cold": 100, "warm": 100, "random": 130, "distilled": 140}
ARMS = [
    ArmConfig(method="random"),
    ArmConfig(method="distilled", seeds=2, label="ours"),
]
"""Of the fidelity study."""
REPETITIONS = 2
PARTS = {
    "no-fusion": Parts(False, True, True),
    "no-target-selection": Parts(True, False, True),
    "none": Parts(False, False, False),
    "": Parts(True, True, True),
}


def made_row(study: str, method: str, candidate: str, seed: int, **values: object) -> dict:
    """A cell's row; `auc` is the method's level, shifted by candidate and seed."""
    free = method in ("full", "cold")
    reduced = method in ("random", "distilled")
    auc = LEVELS[method] + CANDIDATES.get(candidate, 0) + (seed - 1) / 1000
    row = {
        "study": study,
        "arm": "",
        "repetition": 0,
        "reference": "" if free else "dcn",
        "method": method,
        "labels": "soft" if reduced else "",
        "use": "inherit" if reduced else "",
        "variant": "",
        "ratio": 0.015 if reduced else np.nan,
        "candidate": candidate,
        "network": candidate.partition("-")[0],
        "parameters": 1000,
        "seed": seed,
        "auc": auc,
        "logloss": 1.2 - auc,
        "validation_auc": auc,
        "validation_logloss": 1.2 - auc,
        "taught_auc": np.nan,
        "progressive_loss": 1.3 - auc,
        "trained_rows": TRAINED_ROWS[method],
        "warm_up_epochs": 8 if reduced else 0,
        "seconds": 1.0,
    }
    return row | values


def frame(rows: list[dict]) -> pd.DataFrame:
    """Indexed by what stands for a cell's key."""
    keys = pd.Index([f"cell-{i}" for i in range(len(rows))], name="key")
    return pd.DataFrame(rows, index=keys)


def main_rows() -> list[dict]:
    rows = [made_row("main", m, c, s) for m in LEVELS for c in CANDIDATES for s in SEEDS]
    return rows + [
        made_row("main", method, c, s, labels="hard", auc=0.71 + s / 1000)
        for method in ("random", "distilled")
        for c in CANDIDATES
        for s in SEEDS
    ]


def fidelity_rows(settings: int = 4) -> list[dict]:
    """Full data tells `settings` of either network apart well, ours less, random rows hardly.

    An arm's score is `validation_auc`; its test AUC is one for all settings and says nothing.
    """
    random = np.random.default_rng(0)
    named = [(f"{n}-{i}", 0.01 * i) for i in range(settings) for n in CANDIDATES]
    rows = [
        made_row("fidelity", "full", name, seed, arm=TRUTH)
        | {"auc": LEVELS["full"] + quality + random.normal(scale=0.002)}
        for name, quality in named
        for seed in SEEDS
    ]
    noise = {"distilled": 0.004, "random": 0.02}
    return rows + [
        made_row("fidelity", arm.method, name, first + seed, arm=arm.title, repetition=repetition)
        | {"validation_auc": LEVELS[arm.method] + quality + random.normal(scale=noise[arm.method])}
        for arm in ARMS
        for repetition in range(REPETITIONS)
        for first in [FIRST_SEED + repetition * SEEDS_OF_A_REPETITION]
        for name, quality in named
        for seed in range(arm.seeds or 1)
    ]


def ratio_rows() -> list[dict]:
    """Beside main's reference and ratio, two ratios more and one reference more."""
    return [
        made_row("ratio", "distilled", "dcn", s, reference=reference, ratio=ratio)
        | {"auc": 0.74 + 0.01 * np.log10(ratio) + s / 1000}
        for reference, own in (("dcn", ()), ("wukong", (0.015,)))
        for ratio in (0.001, *own, 0.05)
        for s in SEEDS
    ]


def ablation_rows() -> list[dict]:
    losses = {"no-fusion": 0.003, "no-target-selection": 0.001, "none": 0.004}
    return [
        made_row("ablation", "distilled", "dcn", s, variant=variant, auc=0.74 + s / 1000 - loss)
        for variant, loss in losses.items()
        for s in SEEDS
    ]


def transfer_rows() -> list[dict]:
    return [
        made_row("transfer", method, c, s, reference="wukong")
        for method in ("warm", "distilled")
        for c in CANDIDATES
        for s in SEEDS
    ]


def all_rows() -> list[dict]:
    return [*main_rows(), *fidelity_rows(), *ratio_rows(), *ablation_rows(), *transfer_rows()]


def made_logits(results: pd.DataFrame) -> tuple[dict[object, np.ndarray], np.ndarray]:
    """Cell to float32 (TEST_ROWS, TASKS), better where the cell's AUC is; and the labels."""
    random = np.random.default_rng(1)
    labels = (random.random((TEST_ROWS, TASKS)) < 0.4).astype(np.int8)
    logits = {
        cell: (labels * 8 * (auc - 0.5) + random.normal(size=labels.shape)).astype(np.float32)
        for cell, auc in results["auc"].items()
    }
    return logits, labels


PHASES = pd.DataFrame(
    {
        "phase": ["full training", "distillation", "distilled training"],
        "seconds_per_epoch": [120.0, 30.0, 1.5],
        "peak_bytes": [4.5e9, 24.8e9, 4.5e9],
        "device": ["H200"] * 3,
    }
)
