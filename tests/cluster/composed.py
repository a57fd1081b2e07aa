"""The overlays of cluster/ as `kubectl apply -k` sends them, and the commands they mean."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from diet_ray.config import RunConfig

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.parent for path in (ROOT / "cluster/overlays").glob("*/kustomization.yaml"))
COMPOSED = [ROOT / "cluster/base", *OVERLAYS]

RUN = "diet-ray-run"  # the ConfigMap with the run's configuration
CONFIG_FILE = "run.yaml"

Manifest = dict[str, Any]


@cache
def kubectl() -> str:
    """The pinned kubectl of the test environment, or the machine's; skips where there is none."""
    ours = Path(sys.executable).parent / "kubectl"
    found = str(ours) if ours.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl, whose kustomize puts the overlays together")
    return found


@cache
def text_of(folder: Path) -> str:
    """What kustomize makes of a folder, as YAML."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def manifests(folder: Path) -> list[Manifest]:
    """All objects of a folder; shared, so whoever changes one copies it first."""
    return list(yaml.load_all(text_of(folder), Loader=yaml.CSafeLoader))


def of_kind(folder: Path, kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests(folder) if manifest["kind"] == kind]


def named(folder: Path, kind: str, name: str) -> Manifest:
    (found,) = (m for m in of_kind(folder, kind) if m["metadata"]["name"] == name)
    return found


def cluster_specs(folder: Path) -> list[tuple[str, Manifest]]:
    """Every Ray cluster that a folder describes, with the name of what it belongs to."""
    clusters = [(m["metadata"]["name"], m["spec"]) for m in of_kind(folder, "RayCluster")]
    jobs = of_kind(folder, "RayJob")
    return clusters + [(m["metadata"]["name"], m["spec"]["rayClusterSpec"]) for m in jobs]


def run_config(folder: Path) -> RunConfig:
    """The configuration that the overlay's jobs read."""
    text = named(folder, "ConfigMap", RUN)["data"][CONFIG_FILE]
    return RunConfig.model_validate(yaml.safe_load(text))


def pod_templates(folder: Path) -> Iterator[Manifest]:
    """Of every pod that anything in the folder starts."""
    for _, spec in cluster_specs(folder):
        yield from (group["template"] for group in [spec["headGroupSpec"], *groups(spec)])
    for job in of_kind(folder, "RayJob"):
        yield job["spec"]["submitterPodTemplate"]
    for stateful in of_kind(folder, "StatefulSet"):
        yield stateful["spec"]["template"]


def groups(spec: Manifest) -> list[Manifest]:
    return list(spec["workerGroupSpecs"])


def ray_container(group: Manifest) -> Manifest:
    """KubeRay starts Ray in a pod's first container."""
    return group["template"]["spec"]["containers"][0]


def cpus(group: Manifest) -> int:
    """That Ray has for tasks and actors on one node of the group."""
    asked = group["rayStartParams"].get("num-cpus")
    return int(asked if asked is not None else ray_container(group)["resources"]["limits"]["cpu"])


def gpus(group: Manifest) -> int:
    return int(ray_container(group)["resources"]["limits"].get("nvidia.com/gpu", 0))


def start_parameters(group: Manifest) -> dict[str, str]:
    """Options of `ray start`, as KubeRay derives them from a group (of ports and addresses only
    what the manifest states)."""
    options = {"num-cpus": str(cpus(group)), **group["rayStartParams"]}
    if gpus(group):
        options["num-gpus"] = str(gpus(group))
    if "labels" in group:
        options["labels"] = ",".join(f"{key}={value}" for key, value in group["labels"].items())
    return options
