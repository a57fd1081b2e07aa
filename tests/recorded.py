"""What is given to Ray's metrics, where there is no Ray to take it."""

from __future__ import annotations

from collections import defaultdict

from diet_ray.telemetry import Metric

Given = list[tuple[float, dict[str, str]]]


class Recorded:
    """Values and tags by metric, in the order in which they came."""

    def __init__(self) -> None:
        self.given: defaultdict[str, Given] = defaultdict(list)

    def recorder(self, metric: Metric) -> Recorder:
        return Recorder(self.given[metric.name])

    def values(self, metric: Metric) -> list[float]:
        return [value for value, _ in self.given[metric.name]]


class Recorder:
    """Stands for Ray's own metric, of any kind."""

    def __init__(self, given: Given) -> None:
        self._given = given

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._given.append((value, tags))

    inc = observe = set
