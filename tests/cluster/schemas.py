"""Strict validation of manifests: unknown keys are errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.cluster.composed import ROOT, Manifest

SCHEMAS = ROOT.parent / "shared" / "kuberay-crds"
KUBERNETES = "1.36"  # whose schemas plain objects are checked with


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest; skips where KubeRay's schemas are not there."""
    if manifest["apiVersion"].startswith("ray.io/"):
        version = manifest["apiVersion"].removeprefix("ray.io/")
        validator = jsonschema.Draft7Validator(ray_schema(manifest["kind"], version))
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    return []


@cache
def ray_schema(kind: str, version: str) -> dict[str, Any]:
    """The strict schema of a served version of a Ray resource."""
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
