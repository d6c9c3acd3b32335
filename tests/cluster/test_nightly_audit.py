"""The nightly audit: its script, with a kubectl and a csrm that do as a test tells them, and the CronJob around it."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from cluster_manifests import CLUSTER, OBJECTS, of_kind

SCRIPT = CLUSTER / "nightly-audit.sh"
[CRON] = of_kind("CronJob").values()
JOB = CRON["spec"]["jobTemplate"]["spec"]
[AUDITOR] = JOB["template"]["spec"]["containers"]
DAY = "2026-11-20"

# One line of `answers` for each `kubectl get`, the last one for ever after. E: exit 1, with the rest on stderr.
KUBECTL = r"""#!/bin/sh
echo "$@" >> "$FAKE/calls"
case "$*" in *" create -f "*)
    for file; do :; done
    cat "$file" > "$FAKE/created.yaml"
    answer=$(cat "$FAKE/create")
;; *)
    answer=$(head -n 1 "$FAKE/answers")
    [ "$(wc -l < "$FAKE/answers")" -gt 1 ] && sed -i 1d "$FAKE/answers"
esac
case $answer in
    E*) echo "${answer#E }" >&2; exit 1 ;;
    *) printf %s "$answer" ;;
esac
"""
CSRM = """#!/bin/sh
echo "$@" >> "$FAKE/gate"
exit "$(cat "$FAKE/gate-exit")"
"""
RUNNING, DONE = "Running/RUNNING", "Complete/SUCCEEDED"
EXISTS = 'E Error from server (AlreadyExists): rayjobs.ray.io "csrm-score-2026-11-20" already exists'
NOT_FOUND = 'E Error from server (NotFound): rayjobs.ray.io "csrm-score-2026-11-20" not found'
TIMEOUT = "E Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded)"


@pytest.fixture(params=["sh", "bash"])
def audit(request, tmp_path):
    """Return a function that starts the script as the CronJob does."""
    folder, state = tmp_path / "etc", tmp_path / "fake"
    for one in (folder, state, tmp_path / "bin", tmp_path / "tmp"):
        one.mkdir()
    for name in ("nightly-audit.sh", "ray-job.score.yaml"):
        shutil.copy(CLUSTER / name, folder)
    for name, text in (("kubectl", KUBECTL), ("csrm", CSRM)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def start(*answers, create="rayjob.ray.io/csrm-score-2026-11-20 created", gate=0, day=DAY, poll_s="0"):
        (state / "answers").write_text("".join(f"{one}\n" for one in answers))
        (state / "create").write_text(create)
        (state / "gate-exit").write_text(str(gate))
        (state / "gate").touch()
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(state),
            "TMPDIR": str(tmp_path / "tmp"),
            "CSRM_POLL_S": poll_s,
            **({"CSRM_DATE": day} if day else {}),
        }
        command = [request.param, str(folder / "nightly-audit.sh"), *AUDITOR["args"]]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(*answers, **settings):
        process = start(*answers, **settings)
        said, _ = process.communicate(timeout=60)
        assert not list((tmp_path / "tmp").iterdir())  # nothing is left behind
        return process.returncode, said

    run.start, run.state, run.folder = start, state, folder
    return run


def gates(audit):
    return (audit.state / "gate").read_text().splitlines()


def test_the_shells_understand_it():
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_it_creates_waits_and_judges(audit):
    code, said = audit("/", "Initializing/", RUNNING, RUNNING, DONE)
    assert code == 0, said
    assert gates(audit) == [
        f"report s3://example-audit/{DAY}/ --output=s3://example-audit/reports/{DAY}.html "
        "--worst=0 --max-violation-rate=0.05 --max-error-rate=0.01"
    ]
    assert len((audit.state / "calls").read_text().splitlines()) == 6


def test_what_it_creates_is_the_ray_job_of_that_day(audit):
    audit(DONE)
    created = yaml.safe_load((audit.state / "created.yaml").read_text())
    expected = OBJECTS["ray-job.score.yaml:RayJob/csrm-score"]
    assert created["metadata"].pop("name") == f"csrm-score-{DAY}"
    assert f"--date {DAY} " in created["spec"]["entrypoint"]
    created["spec"]["entrypoint"] = created["spec"]["entrypoint"].replace(f"--date {DAY}", "--date yesterday")
    metadata = {key: value for key, value in expected["metadata"].items() if key != "name"}
    assert created == {**expected, "metadata": metadata}
    assert len(f"csrm-score-{DAY}") <= 47  # KubeRay's limit


def test_what_it_waits_for_is_what_it_created(audit):
    audit(DONE)
    asked = (audit.state / "calls").read_text().splitlines()[-1]
    assert f"get rayjob csrm-score-{DAY} " in asked
    assert "{.status.jobDeploymentStatus}/{.status.jobStatus}" in asked


@pytest.mark.parametrize("end", ["Failed/FAILED", "Failed/", "Failed/RUNNING", "Complete/FAILED", "Complete/STOPPED"])
def test_a_job_that_failed_is_no_audit(audit, end):
    code, said = audit(RUNNING, end)
    assert code == 1
    assert f"ended as {end}" in said
    assert gates(audit) == []


def test_an_attempt_that_follows_another_is_waited_for(audit):
    code, _ = audit(RUNNING, "Retrying/", "Initializing/", RUNNING, DONE)
    assert code == 0


def test_whoever_comes_second_waits_for_the_first_ones_job(audit):
    code, said = audit(RUNNING, DONE, create=EXISTS)
    assert code == 0
    assert "there already" in said
    assert len(gates(audit)) == 1


def test_a_job_that_failed_earlier_still_has(audit):
    code, said = audit("Failed/FAILED", create=EXISTS)
    assert code == 1
    assert f"kubectl -n csrm delete rayjob csrm-score-{DAY}" in said


def test_a_job_that_is_gone_is_no_audit(audit):
    code, said = audit(RUNNING, NOT_FOUND)
    assert code == 1
    assert "gone" in said
    assert gates(audit) == []


def test_an_api_server_that_is_away_for_a_while_is_waited_for(audit):
    code, said = audit(*[TIMEOUT] * 19, RUNNING, *[TIMEOUT] * 19, DONE)
    assert code == 0, said


def test_an_api_server_that_stays_away_is_worth_another_try(audit):
    code, said = audit(RUNNING, TIMEOUT)
    assert code == 75
    assert "Client.Timeout" in said
    assert audit(RUNNING, create=TIMEOUT)[0] == 75
    assert gates(audit) == []


@pytest.mark.parametrize("reason", ["Forbidden", "Invalid", "BadRequest"])
def test_what_is_refused_is_not_tried_again(audit, reason):
    code, said = audit(RUNNING, create=f"E Error from server ({reason}): no")
    assert code == 2
    assert f"({reason}): no" in said


@pytest.mark.parametrize("exit_code", [1, 2, 3])
def test_the_gates_exit_code_is_the_audits(audit, exit_code):
    assert audit(DONE, gate=exit_code)[0] == exit_code


@pytest.mark.parametrize("change", [("name: csrm-score", "name: audit"), ("--date yesterday", "--date today")])
def test_a_ray_job_without_a_place_for_the_day_is_refused(audit, change):
    file = audit.folder / "ray-job.score.yaml"
    file.write_text(file.read_text().replace(*change))
    assert audit(DONE)[0] == 2
    assert not (audit.state / "calls").exists()


def test_without_a_date_it_is_yesterday(audit):
    audit(DONE, day=None)
    yesterday = subprocess.run(["date", "-u", "-d", "yesterday", "+%F"], capture_output=True, text=True, check=True)
    assert f"csrm-score-{yesterday.stdout.strip()} " in (audit.state / "calls").read_text()


def test_it_ends_at_once_when_told_to(audit):
    process = audit.start(RUNNING, poll_s="600")
    while not (audit.state / "calls").exists() or "get" not in (audit.state / "calls").read_text():
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    process.stdout.close()


def test_nights_do_not_overlap():
    spec = CRON["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    minute, hour, *rest = spec["schedule"].split()
    assert rest == ["*", "*", "*"]
    assert spec["timeZone"] == "Etc/UTC"
    latest = int(hour) * 3600 + int(minute) * 60 + spec["startingDeadlineSeconds"] + JOB["activeDeadlineSeconds"]
    # Every try of a night means the same day.
    assert latest < 24 * 3600
    # The pod waits longer than the RayJob may take, and has time left for the gate.
    ray_job = OBJECTS["ray-job.score.yaml:RayJob/csrm-score"]["spec"]
    assert ray_job["activeDeadlineSeconds"] + 3600 <= JOB["activeDeadlineSeconds"]


def test_the_pod_is_tried_again_only_where_that_helps():
    assert JOB["template"]["spec"]["restartPolicy"] == "Never"  # which a podFailurePolicy asks for
    ignored, failed = JOB["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert failed["action"] == "FailJob"
    assert failed["onExitCodes"] == {"containerName": AUDITOR["name"], "operator": "In", "values": [1, 2, 3]}
    told = re.findall(r"(\d+) the|(\d+) where", SCRIPT.read_text().split("set -eu")[0])
    assert {int(a or b) for a, b in told} == {1, 75, 3}
    assert JOB["backoffLimit"] >= 1


def test_the_gate_reads_what_the_job_writes():
    entrypoint = OBJECTS["ray-job.score.yaml:RayJob/csrm-score"]["spec"]["entrypoint"].split()
    written = entrypoint[entrypoint.index("--output") + 1]
    assert AUDITOR["args"][:3] == ["csrm", "report", written]
    [page] = [one for one in AUDITOR["args"] if one.startswith("--output=")]
    assert not page.removeprefix("--output=").startswith(written)
    assert any(one.startswith("--max-violation-rate=") for one in AUDITOR["args"])


def test_the_script_is_where_the_pod_looks_for_it():
    [mount] = [one for one in AUDITOR["volumeMounts"] if one["name"] == "nightly-audit"]
    assert AUDITOR["command"] == ["sh", f"{mount['mountPath']}/{SCRIPT.name}"]
    assert mount["readOnly"] is True
