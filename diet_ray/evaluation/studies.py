"""The studies of a benchmark: which runs, methods, candidates and seeds each one is made of.

main      every method, its labels and every candidate (paper, Table 3)
fidelity  candidates in several sizes: do they keep full data's order? (Figure 1)
ratio     sets of several sizes, distilled with several references (Figure 3)
ablation  the recipe with parts of it switched off (Table 4)
transfer  sets distilled with several references, all candidates (section 5.2.2)

Sets that differ from the run's own are distilled below ``<output>/benchmark/<name>``; they share
the run's blocks, and those of one reference network share its phi_1..phi_T.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from diet_ray.config import ConfigError, NetworkConfig, RunConfig, describe_errors
from diet_ray.distill.parts import Parts, parts
from diet_ray.distill.stream import distill_stream
from diet_ray.evaluation import fidelity
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.methods import REDUCED
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.tuning import Arm, Tuned
from diet_ray.logs.blocks import Blocks
from diet_ray.training.stream import train_reference

# What the small studies judge: in runs of their own, and in the base run.
OF_RUNS = {
    "ratio": ("warm", "distilled"),
    "ablation": ("distilled",),
    "transfer": ("warm", "distilled"),
}
OF_BASE = {
    "ratio": ("full",),
    "ablation": ("distilled",),
    "transfer": ("full",),
    "cost": ("full", "distilled"),  # judged by no cell, but timed with their protocols
}

# What an ablation may change: all else is the reference's or the candidates'.
RECIPE = ("scoring", "memory", "distill")


@dataclass(frozen=True)
class StudyCell:
    """A cell and the study that asked for it."""

    study: str
    cell: Cell
    arm: str = ""  # of the fidelity study
    repetition: int = 0
    teacher: Run | None = None  # whose reference's soft labels score it on validation


@dataclass(frozen=True)
class Variation:
    """A distilled set that a study asks for: where it differs from the run's own."""

    study: str
    name: str
    network: NetworkConfig  # the reference's
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str = ""  # name of an ablation


def arms_of(config: RunConfig, methods: list[str]) -> list[Arm]:
    """Every method with every kind of labels that it has; a distilled set's "blended" are its
    soft ones."""
    arms: list[Arm] = []
    for method in methods:
        if method not in REDUCED:
            arms.append((method, ""))
            continue
        arms += [
            (method, "soft" if method == "distilled" and labels == "blended" else labels)
            for labels in config.benchmark.labels
        ]
    return list(dict.fromkeys(arms))


def soft(method: str) -> Arm:
    """The method with the labels that all studies but main give it."""
    return (method, "soft" if method in REDUCED else "")


def all_arms(config: RunConfig) -> list[Arm]:
    """What the configured studies judge, each once."""
    benchmark = config.benchmark
    arms = arms_of(config, benchmark.methods) if "main" in benchmark.studies else []
    if "fidelity" in benchmark.studies:
        arms += [soft("full"), *map(fidelity.arm_of, fidelity.tuned_arms(config))]
    for study in benchmark.studies:
        arms += map(soft, OF_BASE.get(study, ()) + OF_RUNS.get(study, ()))
    return list(dict.fromkeys(arms))


def variations(config: RunConfig) -> list[Variation]:
    """All that the configured studies distil, study by study; some may equal the run's own."""
    benchmark, own = config.benchmark, config.reference.network
    others = [network for network in benchmark.references if not network.same_as(own)]
    made = {
        "ratio": [
            Variation("ratio", _set_name(config, n, ratio), n, {"memory": {"ratio": ratio}})
            for n in (own, *others)
            for ratio in benchmark.ratios
        ],
        "ablation": [
            Variation("ablation", f"ablation-{variant}", own, changes, variant)
            for variant, changes in benchmark.ablations.items()
        ],
        "transfer": [
            Variation("transfer", _set_name(config, n, config.memory.ratio), n)
            for n in (own, *others)
        ],
    }
    return [variation for study in benchmark.studies for variation in made.get(study, [])]


def _set_name(config: RunConfig, network: NetworkConfig, ratio: float) -> str:
    """Studies that ask for the same set call it the same."""
    part = "reference" if ratio == config.memory.ratio else f"ratio-{ratio:g}"
    return f"{network.title}-{part}"


def derived(base: RunConfig, variation: Variation) -> RunConfig:
    """The base's configuration with some keys changed, and with an output of its own.

    Where nothing changes it is the base itself. Another reference network has its phi_t below
    ``benchmark/references`` and is the proxy, too. Raises ConfigError.
    """
    for section in variation.changes:
        if section not in RECIPE:
            raise ConfigError(
                f"benchmark.ablations.{variation.variant}.{section}: an ablation changes keys of "
                f"{', '.join(RECIPE)}"
            )
    tree = _merged(base.model_dump(mode="json"), variation.changes)
    reference_folder = base.reference.folder or base.place("reference")
    if not variation.network.same_as(base.reference.network):
        tree["reference"]["network"] = variation.network.model_dump(mode="json")
        tree["distill"]["inner"]["networks"] = []
        place = _as_folder(variation.network.title)
        reference_folder = base.place("benchmark", "references", place)
    where = f"benchmark: the set {variation.name!r}"
    if _validated(tree, where) == base:
        return base
    place = _as_folder(variation.name)
    tree |= {"output": base.place("benchmark", place), "name": f"{base.name}-{place}"}
    tree["reference"]["folder"] = reference_folder
    return _validated(tree, where)


def parts_of_variants(config: RunConfig) -> dict[str, Parts]:
    """What every ablation leaves on, by its name; "" is the run's own recipe."""
    ablations = [v for v in variations(config) if v.study == "ablation"]
    found = {v.variant: parts(derived(config, v)) for v in ablations}
    return {**found, "": parts(config)}


def _as_folder(name: str) -> str:
    return re.sub(r"[^\w.+=-]", "_", name)


def _validated(tree: dict[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, RunConfig, where)) from None


def _merged(keys: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(keys)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def made_set(config: RunConfig, blocks: Blocks, distilled: bool) -> str:
    """Train the reference where it is missing; distil if asked to, and return the set's URI."""
    train_reference(config, blocks)
    return distill_stream(config, blocks) if distilled else ""


class Studies:
    """Makes the cells of the configured studies; distils what they need and is not there yet.

    make: how a set is made; a plan gives one that only takes note of it.
    """

    def __init__(
        self, base: Run, tuned: Tuned, make: Callable[[RunConfig, Blocks, bool], str] = made_set
    ) -> None:
        self._base, self._tuned, self._make = base, tuned, make
        self._runs: dict[str, Run] = {}  # by output

    def cells(self) -> list[StudyCell]:
        """Of all configured studies but "cost", which trains no candidate to judge it."""
        makers: dict[str, Callable[[], Iterator[StudyCell]]] = {
            "main": self._main,
            "fidelity": self._fidelity,
            "ratio": lambda: self._small("ratio"),
            "ablation": lambda: self._small("ablation"),
            "transfer": lambda: self._small("transfer"),
        }
        studies = [study for study in self._base.config.benchmark.studies if study in makers]
        return [cell for study in studies for cell in makers[study]()]

    def _main(self) -> Iterator[StudyCell]:
        config = self._base.config
        for arm in arms_of(config, config.benchmark.methods):
            candidates, seeds = config.evaluation.candidates, config.benchmark.seeds
            yield from self._grid("main", self._base, arm, candidates, seeds)

    def _fidelity(self) -> Iterator[StudyCell]:
        config = self._base.config
        study, tuned = config.benchmark.fidelity, self._tuned.protocols
        settings, protocol = fidelity.settings_of(config), tuned[soft("full")]
        for network in settings:
            for seed in range(study.full_seeds):
                cell = Cell(self._base, *soft("full"), network, protocol, seed)
                yield StudyCell("fidelity", cell, fidelity.TRUTH)
        runs = [self._base, *map(self._repetition, fidelity.repetitions_of(config)[1:])]
        for arm in study.arms:
            for repetition, cell in fidelity.arm_cells(runs, arm, tuned, settings):
                teacher = runs[repetition] if arm.score == "taught" else None
                yield StudyCell("fidelity", cell, arm.title, repetition, teacher)

    def _repetition(self, config: RunConfig) -> Run:
        """With a reference of its own, and a distilled set if an arm asks for it."""
        blocks = self._base.blocks
        return Run(config, blocks, self._make(config, blocks, fidelity.needs_distilled(config)))

    def _small(self, study: str) -> Iterator[StudyCell]:
        config = self._base.config
        candidates, seeds = config.evaluation.candidates, config.benchmark.study_seeds
        for method in OF_BASE[study]:
            yield from self._grid(study, self._base, soft(method), candidates, seeds)
        for variation in variations(config):
            if variation.study == study:
                run = self._run(variation)
                for method in OF_RUNS[study]:
                    yield from self._grid(study, run, soft(method), candidates, seeds)

    def _grid(
        self, study: str, run: Run, arm: Arm, candidates: list[NetworkConfig], seeds: int
    ) -> Iterator[StudyCell]:
        protocol = self._tuned.protocols[arm]
        for candidate in candidates:
            for seed in range(seeds):
                yield StudyCell(study, Cell(run, *arm, candidate, protocol, seed))

    def _run(self, variation: Variation) -> Run:
        """The varied run, distilled; the base where nothing differs from it."""
        config = derived(self._base.config, variation)
        if config == self._base.config:
            return self._base
        if config.output not in self._runs:
            blocks = self._base.blocks
            distilled = self._make(config, blocks, True)
            self._runs[config.output] = Run(config, blocks, distilled, variation.variant)
        return self._runs[config.output]
