"""Manifests have no field that Kubernetes or KubeRay does not know.

An API server drops what it does not know without a word, so that a limit with a misspelt name is no limit. Schemas are
closed here. KubeRay's are read from CSRM_KUBERAY_CRDS, a folder of its published ray.io_*.yaml; without it,
kuberay_fields.yaml stands in.
"""

import copy
import os
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster_manifests import CLUSTER, FILES, OBJECTS, autoscaler, documents, of_kind, pod_templates

KUBERNETES = "1.33"
"""The oldest that is supported upstream; everything we use is stable there."""
CRDS = os.environ.get("CSRM_KUBERAY_CRDS")
FIELDS = Path(__file__).with_name("kuberay_fields.yaml")
needs_crds = pytest.mark.skipif(not CRDS, reason="CSRM_KUBERAY_CRDS names no folder with KubeRay's definitions")

RAY_JOBS = of_kind("RayJob")
KUBERNETES_OBJECTS = {name: one for name, one in OBJECTS.items() if one["kind"] != "RayJob"}


def closed(schema):
    """Return a schema that refuses properties it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        open_on_purpose = schema.get("x-kubernetes-preserve-unknown-fields")
        result.setdefault("additionalProperties", bool(open_on_purpose))
    return result


@cache
def published(kind):
    path = Path(CRDS) / f"ray.io_{kind}.yaml"
    definition = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return next(one["schema"]["openAPIV3Schema"] for one in definition["spec"]["versions"] if one["name"] == "v1")


@cache
def schema():
    compact = yaml.safe_load(FIELDS.read_text(encoding="utf-8"))
    return closed(published("rayjobs") if CRDS else compact)


def check_ray_job(manifest):
    jsonschema.validate(manifest, schema(), cls=jsonschema.Draft202012Validator)
    for name, template in pod_templates(manifest):
        check_pod(name, template)
    head = next(template for name, template in pod_templates(manifest) if name == "head")
    with_autoscaler = copy.deepcopy(head)
    with_autoscaler["spec"]["containers"].append(autoscaler(manifest))
    check_pod("head", with_autoscaler)


def check_pod(name, template):
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    pod["metadata"] = {"name": name, **pod.get("metadata", {})}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", KUBERNETES_OBJECTS)
def test_kubernetes_knows_every_field(name):
    kubernetes_validate.validate(OBJECTS[name], KUBERNETES, strict=True)


@pytest.mark.parametrize("name", RAY_JOBS)
def test_kuberay_knows_every_field(name):
    check_ray_job(OBJECTS[name])


def changed(*path, value):
    manifest = copy.deepcopy(OBJECTS["ray-job.score.yaml:RayJob/csrm-score"])
    part = manifest["spec"]
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return manifest


CLUSTER_SPEC, WORKERS = "rayClusterSpec", ("rayClusterSpec", "workerGroupSpecs", 0)


@pytest.mark.parametrize(
    "manifest",
    [
        changed("activeDeadlineSecond", value=60),
        changed("backoffLimit", value="2"),
        changed(CLUSTER_SPEC, "enableAutoscaling", value=True),
        changed(CLUSTER_SPEC, "authOptions", "mode", value="password"),
        changed(CLUSTER_SPEC, "autoscalerOptions", "idleTimeout", value=60),
        changed(CLUSTER_SPEC, "headGroupSpec", "rayStartParams", "num-cpus", value=0),
        changed(CLUSTER_SPEC, "autoscalerOptions", "securityContext", "readOnlyRootFileSystem", value=True),
        changed(*WORKERS, "minReplica", value=0),
        changed(*WORKERS, "template", "spec", "serviceAccount-Name", value="a"),
        changed(*WORKERS, "template", "spec", "containers", 0, "securityContext", "runAsNonroot", value=True),
        changed("submitterPodTemplate", "spec", "restartPolicy", value=3),
    ],
    ids=lambda manifest: "",
)
def test_a_misspelt_or_mistyped_field_is_found(manifest):
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_ray_job(manifest)


def test_a_worker_group_without_bounds_is_found():
    manifest = copy.deepcopy(OBJECTS["ray-job.score.yaml:RayJob/csrm-score"])
    del manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"]
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        check_ray_job(manifest)


@needs_crds
def test_the_fields_that_stand_in_are_kuberays():
    def check(ours, theirs, path):
        assert ours.get("type") == theirs.get("type"), path
        assert ours.get("enum") == theirs.get("enum"), path
        if ours.get("x-pod-template") or path in ("/metadata",):
            return
        if "properties" in ours:
            assert ours.get("required", []) == theirs.get("required", []), path
        assert ours.get("additionalProperties") == theirs.get("additionalProperties"), path
        for name, part in ours.get("properties", {}).items():
            assert name in theirs["properties"], f"{path}/{name}"
            check(part, theirs["properties"][name], f"{path}/{name}")
        if "items" in ours:
            check(ours["items"], theirs["items"], f"{path}[]")

    check(yaml.safe_load(FIELDS.read_text(encoding="utf-8")), published("rayjobs"), "")


@needs_crds
def test_kuberays_own_cron_knows_no_overlap_policy():
    """Why the audit is a CronJob of Kubernetes; once this fails, think again."""
    assert set(published("raycronjobs")["properties"]["spec"]["properties"]) == {
        *("jobTemplate", "schedule", "suspend", "timeZone")
    }


def test_kustomization_lists_what_is_there():
    [kustomization] = documents(CLUSTER / "kustomization.yaml")
    [generated] = kustomization["configMapGenerator"]
    for name in [*kustomization["resources"], *generated["files"]]:
        assert (CLUSTER / name).is_file()
    jobs = {path.name for path in FILES if path.name.startswith("ray-job.")}
    assert {path.name for path in FILES} - jobs == set(kustomization["resources"])
    namespaces = {one["metadata"].get("namespace") for one in OBJECTS.values() if one["kind"] != "Namespace"}
    assert (
        namespaces == {kustomization["namespace"]} == {one["metadata"]["name"] for one in of_kind("Namespace").values()}
    )


def test_every_name_that_an_object_refers_to_is_there():
    accounts = {one["metadata"]["name"] for one in of_kind("ServiceAccount").values()}
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim").values()}
    [kustomization] = documents(CLUSTER / "kustomization.yaml")
    maps = {one["name"] for one in kustomization["configMapGenerator"]}
    for manifest in OBJECTS.values():
        for _, template in pod_templates(manifest):
            spec = template["spec"]
            assert spec.get("serviceAccountName") in {*accounts, None}
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            for volume in volumes.values():
                assert volume.get("persistentVolumeClaim", {}).get("claimName") in {*claims, None}
                assert volume.get("configMap", {}).get("name") in {*maps, None}
            for container in spec["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    for binding in of_kind("RoleBinding").values():
        assert {subject["name"] for subject in binding["subjects"]} <= accounts
        assert binding["roleRef"]["name"] in {one["metadata"]["name"] for one in of_kind("Role").values()}
