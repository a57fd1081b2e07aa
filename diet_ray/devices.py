"""The devices that workers compute on, and what of them decides a result's bits."""

from __future__ import annotations

import numpy as np
import torch

from diet_ray.version import __version__


def use_device(gpus: float, threads: int) -> torch.device:
    """The device of a worker that was given `gpus`; also fixes its number of torch threads."""
    torch.set_num_threads(threads)
    return torch.device("cuda" if gpus and torch.cuda.is_available() else "cpu")


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array on `device`: on a CPU the same memory; to a GPU from pinned memory, which lets the
    caller go on while it is copied."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def numerics(gpus: float = 0) -> dict[str, str]:
    """What decides a result's bits beside its inputs: code, torch, kind of device."""
    return {
        "diet_ray": __version__,
        "torch": torch.__version__,
        "device": device_kind(gpus),
    }


def device_kind(gpus: float) -> str:
    """Of a worker that is given `gpus`."""
    return "cuda" if gpus else "cpu"
