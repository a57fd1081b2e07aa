"""Every overlay against KubeRay's and Kubernetes' own schemas, strictly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.composed import COMPOSED, ROOT, Manifest, manifests, named
from tests.cluster.schemas import problems

CPU = ROOT / "cluster/overlays/cpu"
WORKER_GROUP = "spec.rayClusterSpec.workerGroupSpecs.0"


@pytest.mark.parametrize("folder", COMPOSED, ids=lambda path: path.name)
def test_the_schemas_accept_it(folder: Path) -> None:
    found = {f"{m['kind']} {m['metadata']['name']}": problems(m) for m in manifests(folder)}
    assert {name: told for name, told in found.items() if told} == {}


def place(manifest: Manifest, path: str) -> Any:
    """What lies at `a.b.0.c`."""
    found: Any = manifest
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


@pytest.mark.parametrize(
    ("kind", "name", "path", "old", "new"),
    [
        ("RayJob", "distill", WORKER_GROUP, "maxReplicas", "maxReplica"),
        ("RayJob", "sweep", "spec", "backoffLimit", "backofLimit"),
        ("RayCluster", "interactive", "spec.autoscalerOptions", "version", "ver"),
        (
            "RayCluster",
            "interactive",
            "spec.headGroupSpec.template.spec.securityContext",
            "runAsNonRoot",
            "runAsNoRoot",
        ),
        ("StatefulSet", "diet-ray-redis", "spec.template.spec", "securityContext", "security"),
        ("NetworkPolicy", "diet-ray", "spec", "ingress", "ingres"),
        ("PodDisruptionBudget", "distill-head", "spec", "minAvailable", "minAvailible"),
    ],
)
def test_a_schema_catches_a_typo(kind: str, name: str, path: str, old: str, new: str) -> None:
    manifest = copy.deepcopy(named(CPU, kind, name))
    mapping = place(manifest, path)
    mapping[new] = mapping.pop(old)
    found = problems(manifest)
    assert any(new in problem for problem in found), found


def test_a_schema_catches_a_wrong_type() -> None:
    manifest = copy.deepcopy(named(CPU, "RayJob", "distill"))
    place(manifest, WORKER_GROUP)["maxReplicas"] = "eight"
    assert any("'eight' is not of type 'integer'" in problem for problem in problems(manifest))
