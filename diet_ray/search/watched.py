"""A sweep under way in TensorBoard, and in MLflow where one is named.

``search/tensorboard/<network>-<key>/`` holds a trial's curves: score, AUC and LogLoss after every
round, the loss after every pass. Where `output` is no local folder, the curves lie in a temporary
one of the driver's machine, which is named in the log.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ray import tune
from tensorboardX import SummaryWriter

from diet_ray import progress, storage
from diet_ray.config import ConfigError, RunConfig
from diet_ray.models.candidate import Candidate

SHOWN = ("score", "validation_auc", "validation_logloss", "loss")


def callbacks(config: RunConfig) -> list[tune.Callback]:
    """What watches the sweep's trials. Raises ConfigError where MLflow is named but not there."""
    found: list[tune.Callback] = [Curves(config.place("search", "tensorboard"))]
    if config.search.mlflow:
        found.append(_mlflow(config.search.mlflow, config.name))
    return found


def _mlflow(uri: str, experiment: str) -> tune.Callback:
    try:
        from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415

        return MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"search.mlflow: {uri}: {error}; pip install 'diet_ray[mlflow]', or remove the key"
        ) from None


class Curves(tune.Callback):
    """Writes what trials report as TensorBoard's scalars."""

    def __init__(self, folder: str) -> None:
        local = storage.local_path(folder)
        if local is None:
            local = tempfile.mkdtemp(prefix="tensorboard-")
            progress.logger.info("TensorBoard: %s on this machine", local)
        self.folder = Path(local)
        self.writers: dict[str, SummaryWriter] = {}

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        writer = self.writers.get(trial.trial_id)
        if writer is None:
            told = trial.config["trial"]
            network = Candidate.from_json(told["candidate"]).network.name.replace(":", ".")
            writer = SummaryWriter(str(self.folder / f"{network}-{told['key'][:8]}"))
            self.writers[trial.trial_id] = writer
        for name in SHOWN:
            if name in result:
                step = result.get("round", result.get("pass"))
                writer.add_scalar(name, result[name], global_step=step)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        self._close(trial)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        self._close(trial)

    def _close(self, trial: Any) -> None:
        writer = self.writers.pop(trial.trial_id, None)
        if writer is not None:
            writer.close()
