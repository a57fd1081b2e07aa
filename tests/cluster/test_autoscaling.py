"""Autoscaler v2 with the manifests' groups, as Ray itself reads them, over Ray's fake nodes."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)
from ray.autoscaler._private.kuberay import autoscaling_config

from tests.cluster.composed import OVERLAYS, ROOT, Manifest, groups, named, run_config
from tests.cluster.ray_processes import RayProcesses, wait_until
from tests.ports import HOST

GPU = ROOT / "cluster/overlays/gpu"
JOB = ROOT / "tests/cluster/asking.py"
IDLE_MINUTES = 0.2
FAKE = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def derived(overlay: Path) -> dict[str, Any]:
    """What the autoscaler beside the head makes of the overlay's cluster."""
    cluster = copy.deepcopy(named(overlay, "RayCluster", "interactive"))
    return autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_autoscaler_reads_the_groups_as_we_do(overlay: Path) -> None:
    spec: Manifest = named(overlay, "RayCluster", "interactive")["spec"]
    found = derived(overlay)
    types = found["available_node_types"]
    assert types.pop(found["head_node_type"])["resources"]["CPU"] == 0
    assert types.keys() == {group["groupName"] for group in groups(spec)}
    for group in groups(spec):
        read = types[group["groupName"]]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert read["resources"]["CPU"] == int(limits["cpu"])
        assert read["resources"].get("GPU", 0) == int(limits.get("nvidia.com/gpu", 0))
        assert read["labels"] == group["labels"]
        bounds = group["minReplicas"], group["maxReplicas"]
        assert (read["min_workers"], read["max_workers"]) == bounds
    idle = spec["autoscalerOptions"]["idleTimeoutSeconds"]
    assert found["idle_timeout_minutes"] * 60 == idle


def with_fake_nodes(overlay: Path, address: str) -> dict[str, Any]:
    """The derived configuration with processes on this machine in the place of pods.

    Memory is left out, since the fake provider cannot pass it on, and idle nodes go sooner.
    """
    config = derived(overlay)
    types = config["available_node_types"]
    types[FAKE_HEAD_NODE_TYPE] = types.pop(config["head_node_type"])
    for kind in types.values():
        kind["resources"].pop("memory", None)
    # the provider by its class: its own name needs a file that Ray's wheel leaves out
    provider = f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}"
    return {
        **config,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "external",
            "module": provider,
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
    }


def by_group(cluster: RayProcesses) -> Counter[str]:
    labels = [node["labels"] for node in cluster.states("nodes")]
    return Counter(found["diet-ray/group"] for found in labels if "diet-ray/group" in found)


def some_demands() -> list[dict[str, Any]]:
    """More than one node's worth of servers, and of meta-workers with GPUs."""
    asked = run_config(GPU).resources
    server = {
        "num_cpus": asked.memory_server_cpus,
        "label_selector": asked.memory_server_labels,
    }
    worker = {"num_cpus": asked.meta_worker_cpus, "num_gpus": asked.meta_worker_gpus}
    return [{"count": 5, **server}, {"count": 5, **worker}]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_groups_grow_for_what_asks_for_them_and_shrink_again() -> None:
    with RayProcesses() as cluster:
        config = cluster.folder / "autoscaling.json"
        address = f"{HOST}:{cluster.control_store}"
        config.write_text(json.dumps(with_fake_nodes(GPU, address)))
        head = named(GPU, "RayCluster", "interactive")["spec"]["headGroupSpec"]
        cluster.start_head(head, environment=FAKE, **{"autoscaling-config": str(config)})
        wait_until(lambda: by_group(cluster) == {"scan": 1}, "the fewest workers")

        submission = cluster.submit(["python", str(JOB), json.dumps(some_demands())])
        # four servers, or four meta-workers, to a node
        grown = {"scan": 1, "memory": 2, "gpu": 2}
        wait_until(lambda: by_group(cluster) == grown, "the groups grown", 240)
        printed, _ = submission.communicate(timeout=240)
        assert submission.returncode == 0, printed
        assert "all 10 are there" in printed
        wait_until(lambda: by_group(cluster) == {"scan": 1}, "the groups shrunk", 240)
