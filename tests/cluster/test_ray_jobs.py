"""The RayJobs: how they begin, scale, retry and end; their commands are ones that `csrm` understands."""

import re
import shlex
import tomllib

import click
import pytest
import ray
from cluster_manifests import CLUSTER, ROOT, containers, of_kind

from jobs.cli import cli

SPECS = {name: manifest["spec"] for name, manifest in of_kind("RayJob").items()}
SCORE, TRAIN = (SPECS[f"ray-job.{job}.yaml:RayJob/csrm-{job}"] for job in ("score", "train"))
[CRON] = of_kind("CronJob").values()
AUDIT = CRON["spec"]["jobTemplate"]["spec"]
[AUDITOR] = AUDIT["template"]["spec"]["containers"]


def understood(command):
    """Return what click makes of a command line; nothing is run."""
    name, *arguments = shlex.split(command)
    assert name == "csrm"
    # With the group's own settings: a command keeps the help option that it was first asked for.
    context = click.Context(cli, info_name="csrm", **cli.context_settings)
    _, subcommand, rest = cli.resolve_command(context, arguments)
    return subcommand.make_context(subcommand.name, rest, parent=context).params


COMMANDS = {
    **{name: spec["entrypoint"] for name, spec in SPECS.items()},
    "gate": shlex.join(AUDITOR["args"]).replace("{date}", "2026-11-20"),  # as nightly-audit.sh does
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_understood(name):
    assert understood(COMMANDS[name])


def test_a_misspelt_option_would_be_found():
    with pytest.raises(click.NoSuchOption):
        understood(COMMANDS["gate"].replace("--max-error-rate", "--max-error-rates"))


def test_the_readmes_commands_are_understood():
    commands = re.findall(r'"(csrm [^"]+)"', (CLUSTER / "README.md").read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        assert understood(command)


@pytest.mark.parametrize("name", SPECS)
def test_a_job_ends_and_takes_its_machines_along(name):
    spec = SPECS[name]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert 1 <= spec["backoffLimit"] <= 5
    assert 0 < spec["activeDeadlineSeconds"] <= 24 * 3600


@pytest.mark.parametrize("name", SPECS)
def test_gpus_come_and_go(name):
    cluster = SPECS[name]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    [group] = cluster["workerGroupSpecs"]
    assert group["minReplicas"] == 0
    [worker] = group["template"]["spec"]["containers"]
    resources = worker["resources"]
    # Ray takes its resources from the limits; GPUs cannot be promised without being limited.
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
    assert int(resources["limits"]["cpu"]) > 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in group["template"]["spec"][
        "tolerations"
    ]


def test_a_job_asks_for_the_gpus_that_it_may_have():
    [score], [train] = (spec["rayClusterSpec"]["workerGroupSpecs"] for spec in (SCORE, TRAIN))
    # Scoring sizes itself by the GPUs that are up, and none is until it asks.
    assert understood(SCORE["entrypoint"])["num_gpus"] == score["maxReplicas"]
    assert score["replicas"] == 0
    # Training refuses a cluster with fewer GPUs than workers.
    assert understood(TRAIN["entrypoint"])["num_workers"] == train["replicas"] == train["maxReplicas"]
    assert understood(TRAIN["entrypoint"])["use_gpu"] is True


@pytest.mark.parametrize("name", SPECS)
def test_no_task_runs_on_the_head(name):
    head = SPECS[name]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    [container] = head["template"]["spec"]["containers"]
    assert not any("gpu" in resource for resource in container["resources"]["limits"])


def test_a_further_attempt_goes_on_where_the_last_one_ended():
    assert understood(TRAIN["entrypoint"])["resume"] is True
    assert understood(SCORE["entrypoint"])["overwrite"] is False


def test_training_is_on_the_volume():
    options = understood(TRAIN["entrypoint"])
    paths = [*options["data"], *options["preferences"], options["backbone"], str(options["output"])]
    cluster = TRAIN["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        [container] = template["spec"]["containers"]
        [mount] = [one for one in container["volumeMounts"] if one["name"] == "train"]
        assert all(path.startswith(f"{mount['mountPath']}/") for path in paths)
    [claim] = of_kind("PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_one_version_of_ray():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))["ray"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [one for one in project["dependencies"] if one.startswith("ray[")]
    wanted += [one for one in project["optional-dependencies"]["cluster"] if one.startswith("ray[")]
    tag = f"{project['version']}-ray{pinned}"
    assert pinned == ray.__version__
    assert [one.split("]")[1] for one in wanted] == [f">={pinned.rsplit('.', 1)[0]},<3"] * 2
    assert {spec["rayClusterSpec"]["rayVersion"] for spec in SPECS.values()} == {pinned}
    assert {container["image"].rsplit(":", 1)[1] for container in containers().values()} == {tag}
    for name in ("Dockerfile", "README.md", "ray-cluster.aws.yaml"):
        tags = set(re.findall(r"/csrm:(\S+)", (CLUSTER / name).read_text(encoding="utf-8")))
        assert tags == {tag}, name
