"""A machine whose every step takes a second, so that an estimate counts steps."""

from __future__ import annotations

from diet_ray.config import CotrainConfig, DistillConfig, NetworkConfig
from diet_ray.plan.pace import Pace


class SteadyPace(Pace):
    """Every row, gradient and co-training takes one second; notes the networks it was asked."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def _one(self, network: NetworkConfig) -> float:
        self.asked.add(network.title)
        return 1.0

    def training(self, network: NetworkConfig, batch_size: int) -> float:
        return self._one(network)

    def warm_up(self, network: NetworkConfig, batch_size: int) -> float:
        return self._one(network)

    def prediction(self, network: NetworkConfig) -> float:
        return self._one(network)

    def alignment(self, network: NetworkConfig, count: int) -> float:
        return self._one(network)

    def meta_gradient(self, network: NetworkConfig, distill: DistillConfig) -> float:
        return self._one(network)

    def co_training(self, network: NetworkConfig, protocol: CotrainConfig, set_rows: int) -> float:
        return self._one(network)

    def staging(self) -> float:
        return 1.0
