"""What the manifests of `cluster/` never do, and what every pod is given."""

import re

import pytest
import yaml
from cluster_manifests import CLUSTER, OBJECTS, containers, of_kind, pods

PODS, CONTAINERS = pods(), containers()
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(CLUSTER.iterdir()) if path.is_file()}
LITERALS = {"HOME"}
"""Environment variables with a value of their own. A credential would have to be named here first."""
CREDENTIALS = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"(?i)(?:password|passwd|secret_?(?:access_?)?key|api_?key|auth_?token|bearer)\b\s*[:=]\s*[\"']?\w{3}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\b(?:ghp|gho|github_pat|hf|sk|xox[abp])[-_][A-Za-z0-9_-]{16,}",
    r"://[^/\s:@]+:[^/\s@]+@",
)
NODE_PORTS = {8080, 44217, 44227}
JOBS_API = 8265
RAY_NODE = {"ray.io/is-ray-node": "yes"}


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)(|Mi|Gi)", str(text)).groups()
    return int(number) * {"": 1, "Mi": 2**20, "Gi": 2**30}[unit]


def test_all_pods_are_looked_at():
    assert {name.split("/")[1] for name in PODS} == {
        *("csrm-score:submitter", "csrm-score:head", "csrm-score:gpu"),
        *("csrm-train:submitter", "csrm-train:head", "csrm-train:gpu", "nightly-audit:job"),
    }
    assert sum(name.endswith(":autoscaler") for name in CONTAINERS) == 2


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_may_do_nothing_of_the_kind(name):
    container, security = CONTAINERS[name], CONTAINERS[name]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    # What a pod says of users holds unless a container says otherwise.
    assert set(security) == {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}
    assert not any("hostPort" in port for port in container.get("ports", []))
    # Without a limit one pod takes the node's memory, and other pods with it.
    assert quantity(container["resources"]["limits"]["memory"]) > 0


@pytest.mark.parametrize("name", PODS)
def test_pods_run_as_nobody_in_particular(name):
    spec = PODS[name]["spec"]
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert min(security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")) >= 1000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "persistentVolumeClaim"}
    for volume in spec["volumes"]:
        if "emptyDir" in volume:
            assert quantity(volume["emptyDir"]["sizeLimit"]) > 0


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_must_be_written_has_a_place(name):
    container = CONTAINERS[name]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    # Ray's sessions and every cache lie under /tmp: nothing else can be written.
    assert {"name": "HOME", "value": "/tmp"} in container["env"]
    assert "/tmp" in mounts
    if not container["name"].startswith("ray-") or "submitter" in container["name"]:
        return
    [pod] = [template for pod, template in PODS.items() if name.rsplit(":", 1)[0] == pod]
    [shared] = [one["emptyDir"] for one in pod["spec"]["volumes"] if one["name"] == mounts["/dev/shm"]]
    assert shared["medium"] == "Memory"
    # Ray's default; with less, the object store lies on a disk and is slow.
    assert quantity(shared["sizeLimit"]) >= 0.3 * quantity(container["resources"]["limits"]["memory"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_credential_is_in_an_environment(name):
    container = CONTAINERS[name]
    assert {one["name"] for one in container["env"]} <= LITERALS
    assert "envFrom" not in container


def test_nothing_secret_is_in_a_manifest():
    assert not of_kind("Secret")
    for name, text in TEXTS.items():
        for pattern in CREDENTIALS:
            assert not re.search(pattern, text), f"{name}: {pattern}"
    for manifest in of_kind("RayJob").values():
        assert "runtimeEnvYAML" not in manifest["spec"]  # whoever reads the dashboard reads it


@pytest.mark.parametrize(
    "text",
    [
        "AWS_ACCESS_KEY_ID: AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJalr",
        'password: "hunter2"',
        "-----BEGIN RSA PRIVATE KEY-----",
        "hf_abcdefghijklmnopqrst",
        "https://me:word@registry.example.com",
    ],
)
def test_a_credential_would_be_found(text):
    assert any(re.search(pattern, text) for pattern in CREDENTIALS)


def test_placeholders_say_that_they_are():
    """So that `grep -rn example cluster/` finds all there is to fill in."""
    for name, text in TEXTS.items():
        if not name.endswith((".yaml", ".sh")):
            continue
        for place in re.findall(r"s3://[\w.-]+|arn:aws:iam::\d+:[\w/.-]+|[\w.-]+/csrm:\S+|storageClassName: \S+", text):
            assert "example" in place, f"{name}: {place}"


def test_images_are_of_one_version():
    images = {container["image"] for container in CONTAINERS.values()}
    assert len(images) == 1
    assert not images.pop().endswith(":latest")
    assert not any(re.search(r":latest\b", text) for text in TEXTS.values())


def test_the_namespace_refuses_pods_that_may_more():
    [namespace] = of_kind("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_what_talks_to_the_api_server_has_a_token():
    with_token = {name.split("/")[1] for name, pod in PODS.items() if pod["spec"]["automountServiceAccountToken"]}
    assert with_token == {"csrm-score:head", "csrm-train:head", "nightly-audit:job"}
    assert not any(one["automountServiceAccountToken"] for one in of_kind("ServiceAccount").values())


def test_each_job_has_an_identity_of_its_own():
    accounts = {name.split("/")[1]: pod["spec"].get("serviceAccountName") for name, pod in PODS.items()}
    assert accounts == {
        **{f"csrm-{job}:{role}": f"csrm-{job}" for job in ("score", "train") for role in ("head", "gpu")},
        **{f"csrm-{job}:submitter": None for job in ("score", "train")},
        "nightly-audit:job": "csrm-audit",
    }
    roles = [one["metadata"].get("annotations", {}) for one in of_kind("ServiceAccount").values()]
    arns = [role["eks.amazonaws.com/role-arn"] for role in roles if role]
    assert len(arns) == len(set(arns)) == 2


def test_the_audit_may_create_and_read_ray_jobs_and_nothing_else():
    [role] = of_kind("Role").values()
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    assert not of_kind("ClusterRole")
    assert not of_kind("ClusterRoleBinding")
    [binding] = of_kind("RoleBinding").values()
    assert [(one["kind"], one["name"]) for one in binding["subjects"]] == [("ServiceAccount", "csrm-audit")]


def selects(selector, labels):
    assert set(selector) <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def reaches(source, namespace, target, port):
    """Whether the policies let a pod reach a port of a pod in our namespace (labels of both, name of a namespace)."""
    policies = [one["spec"] for one in of_kind("NetworkPolicy").values() if selects(one["spec"]["podSelector"], target)]
    assert all(policy["policyTypes"] == ["Ingress"] for policy in policies)
    if not policies:
        return True
    for rule in (rule for policy in policies for rule in policy.get("ingress", [])):
        if "ports" in rule and port not in {one["port"] for one in rule["ports"]}:
            continue
        for peer in rule["from"]:
            home = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": "csrm"}})
            if selects(home, {"kubernetes.io/metadata.name": namespace}) and selects(peer["podSelector"], source):
                return True
    return False


HEAD = {**RAY_NODE, "ray.io/node-type": "head"}
WORKER = {**RAY_NODE, "ray.io/node-type": "worker"}
SUBMITTER = {"app.kubernetes.io/component": "csrm-submitter"}
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator", "app.kubernetes.io/name": "kuberay-operator"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


@pytest.mark.parametrize(
    ("source", "namespace", "target", "ports"),
    [
        (WORKER, "csrm", HEAD, {6379, JOBS_API, 10001, 31337, *NODE_PORTS}),
        (HEAD, "csrm", WORKER, {6379, JOBS_API, 10001, 31337, *NODE_PORTS}),
        (SUBMITTER, "csrm", HEAD, {JOBS_API}),
        (OPERATOR, "kuberay-system", HEAD, {JOBS_API}),
        (PROMETHEUS, "monitoring", HEAD, NODE_PORTS),
        (PROMETHEUS, "monitoring", WORKER, NODE_PORTS),
        (SUBMITTER, "csrm", WORKER, set()),
        (SUBMITTER, "default", HEAD, set()),
        (OPERATOR, "default", HEAD, set()),
        (HEAD, "default", HEAD, set()),
        ({}, "kuberay-system", HEAD, set()),
        ({}, "monitoring", HEAD, set()),
        ({}, "default", HEAD, set()),
        ({}, "csrm", HEAD, set()),
        ({"app.kubernetes.io/component": "csrm-nightly-audit"}, "csrm", HEAD, set()),
        (WORKER, "csrm", SUBMITTER, set()),
        ({}, "csrm", {"app": "whatever else"}, set()),
    ],
)
def test_who_reaches_what(source, namespace, target, ports):
    asked = {22, 6379, JOBS_API, 10001, 31337, *NODE_PORTS}
    assert {port for port in asked if reaches(source, namespace, target, port)} == (asked if ports >= {6379} else ports)


def test_the_policies_labels_are_the_pods():
    for manifest in of_kind("RayJob").values():
        assert manifest["spec"]["submitterPodTemplate"]["metadata"]["labels"] == SUBMITTER
        head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]
        # KubeRay's own labels, on which the policies rest, are not ours to give.
        assert not any(key.startswith("ray.io/") for key in head["template"]["metadata"].get("labels", {}))
        assert head.get("serviceType") is None
        assert "enableIngress" not in head


def test_rays_apis_ask_for_a_token():
    for manifest in of_kind("RayJob").values():
        assert manifest["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_no_way_in_from_outside():
    assert not {one["kind"] for one in OBJECTS.values()} & {"Ingress", "Service", "Gateway", "HTTPRoute"}


def test_kustomize_makes_no_secret():
    kustomization = yaml.safe_load(TEXTS["kustomization.yaml"])
    assert "secretGenerator" not in kustomization
