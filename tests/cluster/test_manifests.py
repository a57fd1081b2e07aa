"""The manifests of cluster/ against KubeRay's schemas, and against this repository."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from diet_ray.version import __version__

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT.parent / "shared" / "kuberay-crds"
MANIFESTS = sorted((ROOT / "cluster").glob("*.yaml"))
PLACEHOLDER_IMAGE = re.compile(r"YOUR-REGISTRY/diet-ray:(?P<ours>[\d.]+)-ray(?P<ray>[\d.]+)(-gpu)?")
LITERAL_CREDENTIAL = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|(secret|password|token|access_key)\w*\s*[:=]\s*['\"]?[\w/+]{8,}",
    re.IGNORECASE,
)

every_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)


def strict(schema: Any) -> Any:
    """An OpenAPI schema of Kubernetes as a JSON schema that refuses undeclared properties."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not free:
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


@cache
def resource_schema(kind: str, version: str) -> dict[str, Any]:
    """The strict schema of a served version of a Ray resource; skips where it is absent."""
    source = SCHEMAS / f"ray.io_{kind.lower()}s.yaml"
    if not source.exists():
        pytest.skip(f"no {source.name} beside the repository (shared/kuberay-crds)")
    definition = yaml.load(source.read_text(), Loader=yaml.CSafeLoader)
    for served in definition["spec"]["versions"]:
        if served["name"] == version and served["served"]:
            schema = strict(served["schema"]["openAPIV3Schema"])
            schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
            return schema
    raise AssertionError(f"{source.name} does not serve {version}")


def problems(manifest: dict[str, Any]) -> list[str]:
    group, _, version = manifest["apiVersion"].partition("/")
    assert group == "ray.io"
    validator = jsonschema.Draft7Validator(resource_schema(manifest["kind"], version))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def load(path: Path) -> dict[str, Any]:
    (document,) = yaml.safe_load_all(path.read_text())
    return document


def pod_specs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod of the submitter, the head and each worker group."""
    spec = manifest["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"]["spec"], *(group["template"]["spec"] for group in groups)]


def containers(manifest: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every container with its pod."""
    for pod in pod_specs(manifest):
        for container in pod["containers"] + pod.get("initContainers", []):
            yield container, pod


def pinned(package: str) -> str:
    pins = (ROOT / "constraints.txt").read_text()
    (version,) = re.findall(rf"^{package}==(.+)$", pins, re.MULTILINE)
    return version


def changed(manifest: dict[str, Any], path: str, old: str, new: str) -> dict[str, Any]:
    """A copy in which the key `old` of the mapping at `path` is called `new`."""
    result = copy.deepcopy(manifest)
    place = result
    for part in path.split("."):
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[new] = place.pop(old)
    return result


def test_there_is_a_manifest() -> None:
    assert [path.name for path in MANIFESTS] == ["rayjob.yaml"]


@every_manifest
def test_the_schema_accepts_it(manifest: Path) -> None:
    assert problems(load(manifest)) == []


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("spec.rayClusterSpec.workerGroupSpecs.0", "maxReplicas", "maxReplica"),
        ("spec", "backoffLimit", "backofLimit"),
        ("spec.rayClusterSpec.autoscalerOptions", "idleTimeoutSeconds", "idleTimeout"),
        (
            "spec.rayClusterSpec.headGroupSpec.template.spec.securityContext",
            "runAsNonRoot",
            "runAsNoRoot",
        ),
    ],
)
def test_the_schema_catches_a_typo(path: str, old: str, new: str) -> None:
    manifest = load(ROOT / "cluster" / "rayjob.yaml")
    found = problems(changed(manifest, path, old, new))
    assert any(new in problem for problem in found), found


def test_the_schema_catches_a_wrong_type() -> None:
    manifest = load(ROOT / "cluster" / "rayjob.yaml")
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = "eight"
    assert any("'eight' is not of type 'integer'" in problem for problem in problems(manifest))


@every_manifest
def test_no_container_runs_as_root(manifest: Path) -> None:
    content = load(manifest)
    for container, pod in containers(content):
        assert pod["securityContext"]["runAsNonRoot"] is True, container["name"]
        assert pod["securityContext"]["runAsUser"] > 0, container["name"]
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, container["name"]
        assert security["capabilities"] == {"drop": ["ALL"]}, container["name"]
        assert security.get("runAsUser", 1) > 0, container["name"]
    autoscaler = content["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"]
    assert autoscaler["allowPrivilegeEscalation"] is False


@every_manifest
def test_every_container_has_requests_and_limits(manifest: Path) -> None:
    for container, _ in containers(load(manifest)):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").iterdir()), ids=lambda path: path.name)
def test_no_literal_credentials(path: Path) -> None:
    assert LITERAL_CREDENTIAL.findall(path.read_text()) == []
    if path.suffix == ".yaml":
        for container, _ in containers(load(path)):
            assert "env" not in container, f"{container['name']}: use envFrom with a secretRef"


@pytest.mark.parametrize(
    "text",
    ["AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG", "password = 'hunter2hunter2'"],
)
def test_a_literal_credential_would_be_seen(text: str) -> None:
    assert LITERAL_CREDENTIAL.search(text)


@every_manifest
def test_versions_are_the_pinned_ones(manifest: Path) -> None:
    content = load(manifest)
    assert content["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    for container, _ in containers(content):
        image = PLACEHOLDER_IMAGE.fullmatch(container["image"])
        assert image, f"{container['image']} does not name our version and Ray's"
        assert image["ray"] == pinned("ray")
        assert image["ours"] == __version__


def test_the_image_is_built_on_the_pinned_ray() -> None:
    dockerfile = (ROOT / "cluster" / "Dockerfile").read_text()
    bases = re.findall(r"rayproject/ray:([\d.]+)-py(\d+)", dockerfile)
    assert set(bases) == {(pinned("ray"), "311")}
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["1000:100"]


@pytest.mark.parametrize("name", ["Dockerfile", "README.md"])
def test_paths_that_the_image_copies_or_the_manual_names_exist(name: str) -> None:
    text = (ROOT / "cluster" / name).read_text()
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE)
    sources = [*itertools.chain.from_iterable(line.split() for line in copied)]
    named = re.findall(r"\b(?:cluster|configs|jobs)/[\w.]+\w", text)
    missing = [path for path in sources + named if not (ROOT / path).exists()]
    assert missing == []


@every_manifest
def test_the_entrypoint_names_files_that_exist(manifest: Path) -> None:
    words = shlex.split(load(manifest)["spec"]["entrypoint"])
    assert words[0] == "python"
    paths = [word for word in words if "/" in word and "=" not in word]
    assert paths[0].startswith("jobs/")
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@every_manifest
def test_the_cluster_limit_is_what_the_groups_can_grow_to(manifest: Path) -> None:
    spec = load(manifest)["spec"]
    stated = dict(re.findall(r"resources\.cluster_limit\.(CPU|GPU)=(\d+)", spec["entrypoint"]))
    total = {"CPU": 0, "GPU": 0}
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        total["CPU"] += group["maxReplicas"] * int(limits["cpu"])
        total["GPU"] += group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    assert {key: int(value) for key, value in stated.items()} == total
