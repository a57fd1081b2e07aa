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
from dataclasses import dataclass
from typing import Any

from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.distill.stream import distill_stream
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.methods import REDUCED
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.tuning import Arm, Tuned
from diet_ray.training.reference import train_reference


@dataclass(frozen=True)
class StudyCell:
    """A cell and the study that asked for it."""

    study: str
    cell: Cell


def arms_of(config: RunConfig, methods: list[str]) -> list[Arm]:
    """Every method with every kind of labels that it has; a distilled set's "blended" are its
    soft ones."""
    arms: list[Arm] = []
    for method in methods:
        if method not in REDUCED:
            arms.append((method, ""))
            continue
        arms += [
            (method, labels)
            for labels in config.benchmark.labels
            if not (method == "distilled" and labels == "blended")
        ]
    return arms


def soft(method: str) -> Arm:
    """The method with the labels that all studies but main give it."""
    return (method, "soft" if method in REDUCED else "")


class Studies:
    """Makes the cells of the configured studies; distils what they need and is not there yet."""

    def __init__(self, base: Run, tuned: Tuned) -> None:
        self._base, self._tuned = base, tuned
        self._runs: dict[str, Run] = {}

    def cells(self) -> list[StudyCell]:
        """Of all configured studies but "cost", which trains no candidate to judge it."""
        makers: dict[str, Callable[[], Iterator[StudyCell]]] = {
            "main": self._main,
            "fidelity": self._fidelity,
            "ratio": self._ratio,
            "ablation": self._ablation,
            "transfer": self._transfer,
        }
        studies = [study for study in self._base.config.benchmark.studies if study in makers]
        return [cell for study in studies for cell in makers[study]()]

    def _main(self) -> Iterator[StudyCell]:
        config = self._base.config
        candidates, seeds = config.evaluation.candidates, config.benchmark.seeds
        for arm in arms_of(config, config.benchmark.methods):
            yield from self._grid("main", self._base, arm, candidates, seeds)

    def _fidelity(self) -> Iterator[StudyCell]:
        config = self._base.config
        settings = [*config.evaluation.candidates, *config.benchmark.settings]
        for method in config.benchmark.methods:
            if method != "cold":
                arm, seeds = soft(method), config.benchmark.fidelity_seeds
                yield from self._grid("fidelity", self._base, arm, settings, seeds)

    def _ratio(self) -> Iterator[StudyCell]:
        for network in self._references():
            for ratio in self._base.config.benchmark.ratios:
                changes = {"memory": {"ratio": ratio}}
                run = self._run(f"{network.title}-ratio-{ratio:g}", changes, network)
                yield from self._small("ratio", run, "distilled")
        yield from self._small("ratio", self._base, "full")

    def _ablation(self) -> Iterator[StudyCell]:
        yield from self._small("ablation", self._base, "distilled")
        for variant, changes in self._base.config.benchmark.ablations.items():
            run = self._run(f"without-{variant}", changes, variant=variant)
            yield from self._small("ablation", run, "distilled")

    def _transfer(self) -> Iterator[StudyCell]:
        yield from self._small("transfer", self._base, "full")
        for network in self._references():
            run = self._run(f"{network.title}", {}, network)
            for method in ("warm", "random", "distilled"):
                yield from self._small("transfer", run, method)

    def _references(self) -> list[NetworkConfig]:
        own = self._base.config.reference.network
        others = self._base.config.benchmark.references
        return [own, *(network for network in others if network.title != own.title)]

    def _small(self, study: str, run: Run, method: str) -> Iterator[StudyCell]:
        config = run.config
        seeds = config.benchmark.study_seeds
        yield from self._grid(study, run, soft(method), config.evaluation.candidates, seeds)

    def _grid(
        self, study: str, run: Run, arm: Arm, candidates: list[NetworkConfig], seeds: int
    ) -> Iterator[StudyCell]:
        protocol = self._tuned.protocols[arm]
        for candidate in candidates:
            for seed in range(seeds):
                yield StudyCell(study, Cell(run, *arm, candidate, protocol, seed))

    def _run(
        self,
        name: str,
        changes: dict[str, Any],
        network: NetworkConfig | None = None,
        variant: str = "",
    ) -> Run:
        """The run `name`, distilled; the base where nothing differs from it."""
        if name not in self._runs:
            base = self._base.config
            config = derived(base, name, changes, network)
            if config.determining() == base.determining():
                self._runs[name] = self._base
            else:
                train_reference(config, self._base.blocks)
                distilled = distill_stream(config, self._base.blocks)
                self._runs[name] = Run(config, self._base.blocks, distilled, variant)
        return self._runs[name]


def derived(
    base: RunConfig, name: str, changes: dict[str, Any], network: NetworkConfig | None = None
) -> RunConfig:
    """The base's configuration with some keys changed and an output of its own.

    `network` is the reference's; where it is another than the base's, its phi_t lie below
    ``benchmark/references``, and the proxy takes it too.
    """
    tree = base.model_dump(mode="json")
    place = re.sub(r"[^\w.+=-]", "_", name)
    tree |= {"output": base.place("benchmark", place), "name": f"{base.name}-{place}"}
    tree["reference"]["folder"] = base.reference.folder or base.place("reference")
    if network is not None and network != base.reference.network:
        tree["reference"]["network"] = network.model_dump(mode="json")
        tree["reference"]["folder"] = base.place("benchmark", "references", network.title)
    for section, keys in changes.items():
        tree[section] = _merged(tree[section], keys)
    return RunConfig.model_validate(tree)


def _merged(keys: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(keys)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
