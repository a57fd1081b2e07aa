"""A whole run's configuration."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from diet_ray import storage
from diet_ray.config.evaluation import BenchmarkConfig, EvaluationConfig
from diet_ray.config.logs import LogsConfig
from diet_ray.config.models import ModelsConfig, ReferenceConfig
from diet_ray.config.recipe import DistillConfig, MemoryConfig, ScoringConfig
from diet_ray.config.search import SearchConfig
from diet_ray.config.section import (
    ConfigError,
    Integer,
    NonNegative,
    NonNegativeInt,
    Place,
    PositiveFloat,
    PositiveInt,
    Section,
)

NO_LOGS = (
    "required: say where the raw log comes from; only a sweep on a set that search.distilled names "
    "does without"
)


class ResourcesConfig(Section):
    scoring_workers: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Fewest and most processes that score at once: as many as there is room for. On GPUs they are
    actors, the fewest from the start, and more are added but slowly: a scan of a minute is over
    before."""
    scoring_cpus: PositiveFloat = 0.4
    """CPUs of one scoring worker; under half, since scoring and meta-workers take turns on a core
    and the memory's servers need a little."""
    scoring_gpus: NonNegative = 0
    """GPUs of one scoring worker."""
    reference_workers: NonNegativeInt | tuple[PositiveInt, PositiveInt] = 0
    """Data-parallel workers of the reference, or the fewest and the most: then training goes on
    with as many as the cluster has room for, from its last state whenever that changes. At most
    `reference.logical_shards`; 0 trains in the driver's process."""
    reference_gpu: bool = False
    reference_checkpoint_minutes: PositiveFloat = 10
    """Between two states that the reference's training keeps within a block, each three times the
    size of its embedding table; a killed run, or one with more workers, goes on from the last."""
    meta_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 2
    """Actors that compute meta-gradients, or the fewest and the most: then as many as there is room
    for beside all else that a stage needs; by `cluster_limit`, when the cluster has grown."""
    meta_worker_cpus: PositiveFloat = 0.5
    meta_worker_gpus: NonNegative = 0
    memory_servers: PositiveInt = 1
    """Parameter-server actors, each with whole files of memory rows (`memory.rows_per_file`); no
    more than there are files."""
    memory_server_cpus: PositiveFloat = 0.1
    memory_server_labels: dict[str, str] = {}
    """Labels of the nodes that the memory's servers may run on, such as `{diet-ray/group: memory}`
    (cluster/README.md); empty for any node."""
    evaluation_tasks: PositiveInt = 2
    """Candidate trainings on real blocks that run side by side."""
    trial_gpus: NonNegative = 0
    """GPUs of one trial of a sweep, such as 0.25; as many trials run as the cluster has CPUs and
    GPUs for."""
    cluster_limit: dict[str, NonNegative] = {}
    """What an elastic cluster can grow to, such as `{CPU: 64, GPU: 8}`; empty for a fixed one."""
    stall_minutes: PositiveFloat = 30
    """A job in which nothing at all is done for so long says where it hangs and stops with status
    75; above `reference_checkpoint_minutes`, by which it knows that workers of the reference live.
    Trainings of candidates, each of which may take longer, are not watched."""

    @property
    def range_of_reference_workers(self) -> tuple[int, int]:
        """Fewest and most."""
        return _range(self.reference_workers)

    @property
    def range_of_meta_workers(self) -> tuple[int, int]:
        """Fewest and most."""
        return _range(self.meta_workers)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> ResourcesConfig:
        ranges = {
            "scoring_workers": self.scoring_workers,
            "reference_workers": self.range_of_reference_workers,
            "meta_workers": self.range_of_meta_workers,
        }
        for key, (low, high) in ranges.items():
            if low > high:
                raise ValueError(f"{key} {low}, {high}: the fewest exceed the most")
        return self

    @model_validator(mode="after")
    def _states_come_before_a_stall(self) -> ResourcesConfig:
        stall, states = self.stall_minutes, self.reference_checkpoint_minutes
        if self.reference_workers and stall <= states:
            raise ValueError(
                f"stall_minutes {stall:g} is not above reference_checkpoint_minutes {states:g}: "
                "workers of the reference would be taken to hang; raise the one or lower the other"
            )
        return self


def _range(asked: int | tuple[int, int]) -> tuple[int, int]:
    return (asked, asked) if isinstance(asked, int) else asked


class RunConfig(Section):
    """One run: from raw logs to a distilled set and its check."""

    name: str = "run"
    """Shown in logs and reports."""
    seed: Integer = 0
    """Every random draw is derived from it."""
    threads: PositiveInt = 1
    """Torch threads of every worker; a fixed number, since sums depend on it in the last bits."""
    output: Place
    """Folder (any URI) for everything the run writes. A relative one is taken from where the job
    starts, which under `ray job submit` is a copy of the working folder: name an absolute one."""
    logs: LogsConfig | None = None
    """The raw log. Only a sweep on a set that `search.distilled` names does without."""
    models: ModelsConfig = ModelsConfig()
    reference: ReferenceConfig = ReferenceConfig()
    scoring: ScoringConfig = ScoringConfig()
    memory: MemoryConfig = MemoryConfig()
    distill: DistillConfig = DistillConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _something_to_work_on(self) -> RunConfig:
        if self.logs is None and self.search.distilled is None:
            raise ValueError(f"logs: {NO_LOGS}")
        return self

    @model_validator(mode="after")
    def _unseen_rows_have_anchors(self) -> RunConfig:
        if self.distill.unseen and not self.memory.anchored:
            raise ValueError("distill.unseen moves rows by their anchors; set memory.anchored too")
        return self

    @model_validator(mode="after")
    def _only_the_references_network_inherits(self) -> RunConfig:
        inner, own = self.distill.inner, self.reference.network
        others = [n.title for n in inner.networks or [] if not (own and n.same_as(own))]
        if others and inner.start != "fresh":
            raise ValueError(
                f"distill.inner.start {inner.start!r} takes the reference's parameters, which do "
                f"not fit {', '.join(others)} of distill.inner.networks; set it to fresh, or let "
                "networks name reference.network alone"
            )
        return self

    @property
    def raw_logs(self) -> LogsConfig:
        """`logs`, for what works on them. Raises ConfigError where they are left out."""
        if self.logs is None:
            raise ConfigError(f"logs: {NO_LOGS}")
        return self.logs

    def place(self, *parts: str) -> str:
        """URI of something below `output`."""
        return storage.join(self.output, *parts)

    def determining(self, *sections: str) -> dict[str, Any]:
        """The keys of `sections` (default: all) that determine the result, as plain JSON."""
        tree = self.model_dump(mode="json", exclude={"output", "resources", "name"})
        del tree["reference"]["folder"]
        proxies = tree["distill"]["inner"]["networks"] or []
        for network in filter(None, [tree["reference"]["network"], *proxies]):
            network["label"] = None  # tables use it, the rows do not
        return {key: tree[key] for key in sections} if sections else tree
