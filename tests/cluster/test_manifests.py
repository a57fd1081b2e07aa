"""What schemas cannot see in cluster/: overlays against this repository and its configurations."""

from __future__ import annotations

import copy
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private import ray_constants

from diet_ray.pipeline import check_networks
from diet_ray.running import stopping
from diet_ray.runtime import IDLE_WORKER_SECONDS
from diet_ray.search.sweep import check_space
from diet_ray.version import __version__
from tests.cluster.composed import (
    COMPOSED,
    CONFIG_FILE,
    OVERLAYS,
    ROOT,
    RUN,
    Manifest,
    cluster_specs,
    cpus,
    gpus,
    groups,
    manifests,
    named,
    of_kind,
    pod_templates,
    ray_container,
    run_config,
    text_of,
)

README = (ROOT / "cluster/README.md").read_text()
IMAGE = re.compile(r"(YOUR-REGISTRY/)?diet-ray:(?P<ours>[\d.]+)-ray(?P<ray>[\d.]+)(-gpu)?")
SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
LITERAL_CREDENTIAL = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN"
    r"|(secret|password|token|access_key)\w* *[:=] *['\"]?[\w/+]{8,}",
    re.IGNORECASE,
)
FILES = sorted(path for path in (ROOT / "cluster").rglob("*") if path.is_file())

every_folder = pytest.mark.parametrize("folder", COMPOSED, ids=lambda path: path.name)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)


def containers(folder: Path) -> Iterator[tuple[Manifest, Manifest]]:
    """Every container with its pod."""
    for template in pod_templates(folder):
        pod = template["spec"]
        for container in pod["containers"] + pod.get("initContainers", []):
            yield container, pod


def pinned(package: str) -> str:
    pins = (ROOT / "constraints.txt").read_text()
    (version,) = re.findall(rf"^{package}==(.+)$", pins, re.MULTILINE)
    return version


def test_there_is_an_overlay_for_each_place() -> None:
    assert [path.name for path in OVERLAYS] == ["cpu", "gpu", "kind"]


@every_overlay
def test_both_jobs_have_the_shape_of_the_interactive_cluster(overlay: Path) -> None:
    shapes = copy.deepcopy(dict(cluster_specs(overlay)))
    assert sorted(shapes) == ["distill", "interactive", "sweep"]
    shapes["interactive"].pop("gcsFaultToleranceOptions", None)  # of no use to a job
    for name, shape in shapes.items():
        labels = shape["headGroupSpec"]["template"]["metadata"]["labels"]
        assert labels.pop("diet-ray/part") == name
    assert shapes["distill"] == shapes["sweep"] == shapes["interactive"]


@every_folder
def test_no_container_may_be_root(folder: Path) -> None:
    for container, pod in containers(folder):
        assert pod["securityContext"]["runAsNonRoot"] is True, container["name"]
        assert pod["securityContext"]["runAsUser"] > 0, container["name"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        check_restricted(container["securityContext"], container["name"])
    for name, spec in cluster_specs(folder):
        check_restricted(spec["autoscalerOptions"]["securityContext"], name)


def check_restricted(security: Manifest, name: str) -> None:
    """What the namespace's standard `restricted` asks of a container."""
    assert security["allowPrivilegeEscalation"] is False, name
    assert security["capabilities"] == {"drop": ["ALL"]}, name
    assert security["runAsNonRoot"] is True, name
    assert security.get("runAsUser", 1) > 0, name


@every_folder
def test_every_container_has_requests_and_limits(folder: Path) -> None:
    for container, _ in containers(folder):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]


@every_folder
def test_every_server_is_probed(folder: Path) -> None:
    for template in pod_templates(folder):
        container = template["spec"]["containers"][0]
        if container["name"] != "ray-job-submitter":
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), container["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_literal_credentials(path: Path) -> None:
    assert LITERAL_CREDENTIAL.findall(path.read_text()) == []


@every_folder
def test_secrets_are_named_never_held(folder: Path) -> None:
    assert of_kind(folder, "Secret") == []
    for container, _ in containers(folder):
        for variable in container.get("env", []):
            assert variable.keys() == {"name", "valueFrom"}, f"{container['name']}: a plain value"


@pytest.mark.parametrize(
    "text",
    ["AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG", "password = 'hunter2hunter2'"],
)
def test_a_literal_credential_would_be_seen(text: str) -> None:
    assert LITERAL_CREDENTIAL.search(text)


@every_folder
def test_clusters_are_as_the_manual_says(folder: Path) -> None:
    for name, spec in cluster_specs(folder):
        assert spec["rayVersion"] == pinned("ray")
        assert spec["authOptions"] == {"mode": "token"}, name
        assert spec["enableInTreeAutoscaling"] is True, name
        assert spec["autoscalerOptions"]["version"] == "v2", name
        assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}, name
        limits = [(g["minReplicas"], g["replicas"], g["maxReplicas"]) for g in groups(spec)]
        assert limits == [tuple(sorted(counts)) for counts in limits], name


@every_overlay
def test_images_are_of_the_pinned_versions(overlay: Path) -> None:
    ours = [c["image"] for c, _ in containers(overlay) if c["name"] != "redis"]
    found = [IMAGE.fullmatch(image) for image in ours]
    assert all(found), f"{ours} do not name our version and Ray's"
    assert {match["ray"] for match in found if match} == {pinned("ray")}
    assert {match["ours"] for match in found if match} == {__version__}
    assert len(set(ours)) == 1, "two builds of torch in one run may differ in the last bits"


@every_overlay
def test_a_job_is_tried_again_by_a_driver_that_goes_on(overlay: Path) -> None:
    for job in of_kind(overlay, "RayJob"):
        spec = job["spec"]
        assert spec["submissionMode"] in SUBMISSION_MODES
        assert spec["backoffLimit"] > 0
        assert spec["shutdownAfterJobFinishes"] is True
        words = shlex.split(spec["entrypoint"])
        assert words == ["python", f"jobs/{job['metadata']['name']}.py", "--config", words[-1]]
        assert (ROOT / words[1]).is_file()
        assert words[-1] == f"/etc/diet-ray/{CONFIG_FILE}"


@every_overlay
def test_what_is_referred_to_is_there_or_in_the_manual(overlay: Path) -> None:
    here = {(m["kind"], m["metadata"]["name"]) for m in manifests(overlay)}
    for kind, name in set(references([t["spec"] for t in pod_templates(overlay)])):
        if kind == "Secret":
            assert f" {name} " in README, f"{kind} {name}: the manual does not tell how to make it"
        else:
            assert (kind, name) in here


def references(tree: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of what pods need beside themselves."""
    kinds = {"configMap": "ConfigMap", "secretRef": "Secret", "secretKeyRef": "Secret"}
    if isinstance(tree, list):
        for part in tree:
            yield from references(part)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "serviceAccountName":
                yield "ServiceAccount", value
            elif key == "persistentVolumeClaim":
                yield "PersistentVolumeClaim", value["claimName"]
            elif key in kinds:
                yield kinds[key], value["name"]
            else:
                yield from references(value)


@every_folder
def test_only_the_head_may_speak_to_kubernetes(folder: Path) -> None:
    assert of_kind(folder, "RoleBinding") == of_kind(folder, "ClusterRoleBinding") == []
    assert (
        named(folder, "ServiceAccount", "diet-ray-worker")["automountServiceAccountToken"] is False
    )
    heads = [spec["headGroupSpec"]["template"] for _, spec in cluster_specs(folder)]
    for template in pod_templates(folder):
        account = "diet-ray-head" if template in heads else "diet-ray-worker"
        assert template["spec"]["serviceAccountName"] == account


@every_folder
def test_policy_and_budgets_select_the_pods_that_they_are_for(folder: Path) -> None:
    ours = named(folder, "NetworkPolicy", "diet-ray")["spec"]["podSelector"]["matchLabels"]
    for template in pod_templates(folder):
        assert ours.items() <= template["metadata"]["labels"].items()
    budgets = {
        budget["spec"]["selector"]["matchLabels"]["diet-ray/part"]
        for budget in of_kind(folder, "PodDisruptionBudget")
    }
    assert {name for name, _ in cluster_specs(folder)} <= budgets


@every_folder
def test_what_is_applied_by_its_part_has_one(folder: Path) -> None:
    parts = {m["metadata"]["labels"]["diet-ray/part"] for m in manifests(folder)}
    assert parts <= {"common", "interactive", "distill", "sweep"}


def demands(overlay: Path) -> list[tuple[str, int, Manifest, dict[str, str]]]:
    """Each kind of actor or task that holds resources for long: its name, how many there are at
    most, what one asks for, the labels of the nodes that it must run on."""
    config = run_config(overlay)
    asked = config.resources
    worker = {"CPU": asked.meta_worker_cpus, "GPU": asked.meta_worker_gpus}
    scoring = {"CPU": asked.scoring_cpus, "GPU": asked.scoring_gpus}
    server = {"CPU": asked.memory_server_cpus, "GPU": 0}
    reference = {"CPU": 1, "GPU": int(asked.reference_gpu)}
    return [
        ("meta_workers", asked.range_of_meta_workers[1], worker, {}),
        ("scoring_workers", asked.scoring_workers[1], scoring, {}),
        ("memory_servers", asked.memory_servers, server, asked.memory_server_labels),
        ("reference_workers", asked.range_of_reference_workers[1], reference, {}),
        ("evaluation_tasks", asked.evaluation_tasks, {"CPU": config.threads, "GPU": 0}, {}),
        ("a trial", 1, {"CPU": config.threads, "GPU": asked.trial_gpus}, {}),
    ]


def room(group: Manifest, one: dict[str, float]) -> int:
    """How many of these the group holds when it is as large as it gets and empty."""
    has = {"CPU": cpus(group), "GPU": gpus(group)}
    fit = [int(has[kind] / count + 1e-9) for kind, count in one.items() if count]
    return group["maxReplicas"] * min(fit)


@every_overlay
def test_the_groups_can_grow_to_what_the_configuration_asks_for(overlay: Path) -> None:
    _, spec = cluster_specs(overlay)[0]
    for name, count, one, labels in demands(overlay):
        fitting = [g for g in groups(spec) if labels.items() <= g["labels"].items()]
        assert sum(room(group, one) for group in fitting) >= count, name
    total = {"CPU": 0.0, "GPU": 0.0}
    for name, count, one, _ in demands(overlay):
        if name in ("meta_workers", "scoring_workers", "memory_servers"):  # side by side
            total = {kind: total[kind] + count * one[kind] for kind in total}
    limit = run_config(overlay).resources.cluster_limit
    assert all(total[kind] <= limit.get(kind, 0) for kind in total), total


@every_overlay
def test_what_lives_long_leaves_the_servers_nodes_alone(overlay: Path) -> None:
    _, spec = cluster_specs(overlay)[0]
    labels = run_config(overlay).resources.memory_server_labels
    theirs = [g for g in groups(spec) if labels and labels.items() <= g["labels"].items()]
    for name, _, one, wanted in demands(overlay):
        if name not in ("memory_servers", "reference_workers"):  # done before servers start
            assert wanted == {}
            assert all(cpus(group) < one["CPU"] for group in theirs), name


@every_overlay
def test_the_cluster_limit_is_what_the_groups_can_grow_to(overlay: Path) -> None:
    _, spec = cluster_specs(overlay)[0]
    total = {
        "CPU": sum(group["maxReplicas"] * cpus(group) for group in groups(spec)),
        "GPU": sum(group["maxReplicas"] * gpus(group) for group in groups(spec)),
    }
    stated = run_config(overlay).resources.cluster_limit
    assert {"GPU": 0.0, **stated} == total


@every_folder
def test_a_pod_has_the_time_to_be_left(folder: Path) -> None:
    """Ray announces the end of a node and waits so long before it ends its processes."""
    announced = ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    for _, spec in cluster_specs(folder):
        for group in [spec["headGroupSpec"], *groups(spec)]:
            granted = group["template"]["spec"].get("terminationGracePeriodSeconds", 30)
            assert granted >= announced + stopping.GRACE_SECONDS


@every_overlay
def test_the_reference_is_trained_by_no_more_workers_than_it_has_shards(overlay: Path) -> None:
    config = run_config(overlay)
    fewest, most = config.resources.range_of_reference_workers
    assert fewest > 0, "the driver would train, on the head"
    assert most <= config.reference.logical_shards


@every_overlay
def test_the_jobs_accept_the_configuration_before_they_start_ray(overlay: Path) -> None:
    check_networks(run_config(overlay))
    check_space(run_config(overlay))


@every_overlay
def test_a_result_lies_where_every_pod_can_reach_it(overlay: Path) -> None:
    output = run_config(overlay).output
    if "://" not in output:
        for _, spec in cluster_specs(overlay):
            for group in [spec["headGroupSpec"], *groups(spec)]:
                mounts = [m["mountPath"] for m in ray_container(group).get("volumeMounts", [])]
                assert any(output.startswith(f"{mount}/") for mount in mounts)


def test_the_image_is_slim_and_not_root() -> None:
    dockerfile = (ROOT / "cluster/Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.+)$", dockerfile, re.MULTILINE)
    assert base.startswith("python:3.11-slim-")
    users = re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE)
    assert users[-1] == "1000:1000"
    assert "digest: sha256" in text_of_all("kustomization.yaml")
    idle = f"ENV RAY_idle_worker_killing_time_threshold_ms={1000 * IDLE_WORKER_SECONDS}\n"
    assert idle in dockerfile


def text_of_all(name: str) -> str:
    return "\n".join(path.read_text() for path in FILES if path.name == name)


@pytest.mark.parametrize("name", ["Dockerfile", "README.md"])
def test_paths_that_the_image_copies_or_the_manual_names_exist(name: str) -> None:
    text = (ROOT / "cluster" / name).read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    sources = [*itertools.chain.from_iterable(line.split() for line in copied)]
    named_here = re.findall(r"\b(?:cluster|configs|jobs|tests)/[\w./]+\w", text)
    missing = [path for path in sources + named_here if not (ROOT / path).exists()]
    assert missing == []


def test_the_version_in_the_manual_is_ours() -> None:
    tags = set(re.findall(r"diet-ray:([\w.-]+)", README))
    expected = f"{__version__}-ray{pinned('ray')}"
    assert tags == {expected, f"{expected}-gpu"}


def test_every_file_of_a_component_is_put_to_use() -> None:
    for path in FILES:
        if path.suffix == ".yaml" and path.name != "kustomization.yaml":
            beside = yaml.safe_load((path.parent / "kustomization.yaml").read_text())
            assert path.name in str(beside), f"{path} is in no kustomization"
    used = text_of_all("kustomization.yaml")
    for component in (ROOT / "cluster/components").iterdir():
        assert f"components/{component.name}\n" in used, f"no overlay has {component.name}"


def test_composing_changes_nothing_that_is_written_in_the_configuration() -> None:
    for overlay in OVERLAYS:
        written = (overlay / CONFIG_FILE).read_text()
        assert named(overlay, "ConfigMap", RUN)["data"][CONFIG_FILE] == written
        assert "kind: RayJob" in text_of(overlay)
