"""The manifests of `cluster/`, as the tests read them."""

import copy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(
    path for path in CLUSTER.glob("*.yaml") if path.name not in ("kustomization.yaml", "ray-cluster.aws.yaml")
)


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, as kubectl does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key twice among {keys}"
        return super().construct_mapping(node, deep)


def documents(path):
    # Aliases become one object in memory; tests change copies of parts.
    loaded = yaml.load_all(path.read_text(encoding="utf-8"), Loader=UniqueKeys)
    return [copy.deepcopy(one) for one in loaded]


OBJECTS = {f"{path.name}:{one['kind']}/{one['metadata']['name']}": one for path in FILES for one in documents(path)}


def of_kind(kind):
    return {name: one for name, one in OBJECTS.items() if one["kind"] == kind}


def pod_templates(manifest):
    """Yield the name and the pod template of every pod that an object makes."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        yield "job", spec["jobTemplate"]["spec"]["template"]
    if manifest["kind"] == "RayJob":
        yield "submitter", spec["submitterPodTemplate"]
        yield "head", spec["rayClusterSpec"]["headGroupSpec"]["template"]
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
            yield group["groupName"], group["template"]


def autoscaler(manifest):
    """Return the container that KubeRay makes of `autoscalerOptions`, in the head's pod."""
    options = dict(manifest["spec"]["rayClusterSpec"]["autoscalerOptions"])
    for own in ("version", "idleTimeoutSeconds"):
        options.pop(own)
    return {"name": "autoscaler", **options}


def pods():
    """All pods: `file:kind/name:role` and the template, the autoscaler among the head's containers."""
    found = {}
    for name, manifest in OBJECTS.items():
        for role, template in pod_templates(manifest):
            template = copy.deepcopy(template)
            if role == "head":
                template["spec"]["containers"].append(autoscaler(manifest))
            found[f"{name}:{role}"] = template
    return found


def containers():
    return {
        f"{name}:{one['name']}": one
        for name, template in pods().items()
        for one in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
    }
