"""The image, line by line, and what the documents of `cluster/` name."""

import re
import shlex
import subprocess
import tomllib

import pytest
from cluster_manifests import CLUSTER, ROOT, containers, of_kind

README = (CLUSTER / "README.md").read_text(encoding="utf-8")


def instructions():
    text = re.sub(r"^#.*\n", "", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line]


DOCKERFILE = instructions()


def of(word):
    return [rest for name, rest in DOCKERFILE if name == word]


def test_it_runs_as_nobody_in_particular():
    assert DOCKERFILE[-1] == ("USER", "1000:1000")
    for manifest in of_kind("RayJob").values():
        security = manifest["spec"]["submitterPodTemplate"]["spec"]["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == DOCKERFILE[-1][1]


def test_bases_are_pinned():
    for base in of("FROM"):
        assert re.search(r":v?\d+\.\d+\.\d+(?:-[\w.-]+)?(?:@sha256:[0-9a-f]{64})?(?: AS \w+)?$", base), base


def test_its_python_is_one_that_is_tested():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    [python] = [base for base in of("FROM") if base.startswith("python:")]
    assert tuple(map(int, re.search(r":(\d+)\.(\d+)", python).groups())) >= tuple(
        map(int, wanted.removeprefix(">=").split("."))
    )


def test_nothing_comes_from_an_unknown_place():
    assert not of("ADD")
    commands = " ".join(of("RUN"))
    assert not re.search(r"\b(?:curl|wget) ", commands.replace("install -y", "").split("rm -rf", 1)[1])
    assert "--trusted-host" not in commands


def test_every_package_is_pinned():
    installs = [shlex.split(part) for line in of("RUN") for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 2
    for install in installs:
        assert install[install.index("-c") + 1] == "constraints.txt"
    torch, project = installs
    assert torch[-1] == "torch"
    # The dashboard and the Jobs API are in ray[default], which the extra is for.
    assert project[-1] == ".[cluster,lora]"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("ray[default]") for one in extras["cluster"])
    assert "lora" in extras


def test_nothing_secret_is_built_in():
    names = [*of("ARG"), *of("ENV")]
    assert not [one for one in names if re.search(r"(?i)token|secret|password|key", one)]
    assert of("ARG") == ['PIP_OPTIONS=""']


def test_what_is_copied_is_there_and_reaches_the_builder():
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"  # only what is named after it
    allowed = {line.removeprefix("!") for line in patterns if line.startswith("!")}
    copied = {name for line in of("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", *copied], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in tracked if re.search(r"\.env|\.pem|credentials|id_rsa", name)]


def test_what_the_pods_start_is_in_the_image():
    assert any("/usr/local/bin/kubectl" in line for line in of("COPY"))
    assert containers()["cron.nightly-audit.yaml:CronJob/nightly-audit:job:audit"]["args"][0] == "csrm"


def test_files_that_the_readme_names_are_there():
    named = set(re.findall(r"`(?:cluster/)?([\w.-]+\.(?:yaml|json|sh|md)|Dockerfile\S*)`", README))
    assert {name for name in named if not (CLUSTER / name).exists() and not (ROOT / name).exists()} == set()
    here = {path.name for path in CLUSTER.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    assert here <= named
    for path in re.findall(r"cluster/[\w./-]+\w", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("word", ["NetworkPolicy", "port-forward", "RAY_AUTH_MODE=token", "runtime environment"])
def test_the_readme_tells_of_the_fences(word):
    assert word in README.split("## Security")[1]
