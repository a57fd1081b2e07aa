"""A sweep under way in TensorBoard, and in MLflow where one is named.

``search/tensorboard/<network>-<key>/`` holds a trial's curves: the score, AUC and LogLoss after
every round, the loss after every pass. TensorBoard reads local folders, so they are written where
the driver runs if `output` is elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ray import tune
from ray.tune.logger import TBXLoggerCallback

