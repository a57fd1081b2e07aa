"""What of a synthetic memory the driver holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import Peaks, in_child, own_ray, watched
from diet_ray.bench.scoring import PROCESS_BYTES, SMALL_DCN
from diet_ray.bench.whole import DISK_BYTES_PER_ROW, synthetic_config
from diet_ray.config import RunConfig, fit
from diet_ray.distill.stream import distill_stream
from diet_ray.logs.blocks import open_blocks
from diet_ray.logs.prepare import prepare
from diet_ray.training.reference import train_reference

HISTORICAL = 1 / 2
"""Of a synthetic log's rows: three days of six."""
ROW_BYTES = 4 * (7 * 16 + 3)  # of a synthetic row's embeddings and labels in float32
COPIES = 12
"""Of the whole memory that the driver and one server hold, at most; ten were measured."""


@dataclass(frozen=True)
class Driver(Measure):
    """The driver's peak memory with many synthetic rows over that with few, on the same log.

    All stages with two outer steps each, in a process and a Ray of its own; blocks and reference
    are made before.
    """

    name: ClassVar[str] = "driver"
    rows: int = size(4_000_000, "rows of the log, half of them historical")
    many: int = size(1_500_000, "synthetic rows, above")
    few: int = size(15_000, "synthetic rows, below")

    def needs(self) -> Needs:
        memory = 4 * PROCESS_BYTES + COPIES * ROW_BYTES * self.many
        return Needs(memory, DISK_BYTES_PER_ROW * self.rows + 4 * ROW_BYTES * self.many)

    def run(self, folder: str) -> Found:
        configs = [self._config(folder, count) for count in (self.many, self.few)]
        for config in configs:
            in_child(made_ready, config)
        many, few = (in_child(stage_peaks, config) for config in configs)
        return Found(
            [
                Figure(
                    f"driver's peak, {self.many:,} / {self.few:,} synthetic rows",
                    many.driver / few.driver,
                    Goal(high=1.1),
                    parts={
                        "many MB": many.driver / 1e6,
                        "few MB": few.driver / 1e6,
                        "largest worker with many MB": many.largest_worker / 1e6,
                    },
                )
            ]
        )

    def _config(self, folder: str, count: int) -> RunConfig:
        """Both runs share the reference, in which the ratio has no part."""
        changes = {
            "memory": {"ratio": count / (HISTORICAL * self.rows)},
            "distill": {"outer_steps": 2, "inner": {"networks": [], "steps": 4, "window": 2}},
            "reference": {
                "folder": f"{folder}/reference",
                "network": {"name": "dcn", "parameters": SMALL_DCN},
            },
        }
        config = synthetic_config(
            f"{folder}/{count}", self.rows, users=10_000, items=5_000, **changes
        )
        return fit(config, round(HISTORICAL * self.rows))


def made_ready(config: RunConfig) -> None:
    """Blocks, and the reference if no run has made it yet."""
    with own_ray():
        train_reference(config, prepare(config))


def stage_peaks(config: RunConfig) -> Peaks:
    """Peaks of the stages alone."""
    with own_ray(), watched() as peaks:
        distill_stream(config, open_blocks(config.place("blocks")))
    return peaks
