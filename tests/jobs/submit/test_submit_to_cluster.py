"""`csrm submit` and `csrm jobs` against a real cluster: a head with a dashboard, and nodes that come later."""

import json
import random
import re
import shlex
import signal

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from labelled_files import single, write_lines
from ray_cluster import Client, RayCluster, wait_until

from jobs.cli import cli

NUM_RECORDS, NUM_SHARDS = 4000, 80
WORDS = ["the", "a", "user", "assistant", "hello", "kill", "bank", "weather", "pin", *"0123456"]


@pytest.fixture(scope="module")
def cluster():
    started = RayCluster()
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, model_folder, policies):
    """What all nodes see, and the laptop's own policies beside it."""
    folder = tmp_path_factory.mktemp("shared")
    draw = random.Random(0)
    records = [{"text": " ".join(draw.choices(WORDS, k=draw.randint(10, 3000)))} for _ in range(NUM_RECORDS)]
    write_lines(folder / "chats.jsonl", records)
    write_lines(folder / "three.jsonl", [*records[:2], {"text": None}])
    (folder / "policies").symlink_to(policies)
    (folder / "tiny").symlink_to(model_folder)
    return folder


@pytest.fixture(scope="module")
def run(cluster, shared):
    """Start `csrm` with arguments in which /shared is the shared folder."""
    numbers = iter(range(1000))

    def start(line):
        arguments = [part.replace("/shared", str(shared)) for part in shlex.split(line)]
        return Client(cluster, shared / f"{next(numbers)}.log", *arguments)

    return start


def commits(shared):
    return {path: path.stat().st_mtime_ns for path in (shared / "matrix/_csrm/commits").glob("*.json")}


SCORE = (
    "submit --paths-on-cluster --env AWS_ENDPOINT_URL_S3=http://127.0.0.1:1 -- score /shared/chats.jsonl "
    "-c policies/ -o /shared/matrix -m /shared/tiny --shard-rows 50"
)


def test_a_life_of_a_job(cluster, shared, run):
    """From a cluster without a core to one with two nodes; followed, left, stopped and resumed."""
    first = run(SCORE)
    wait_until(lambda: "Running entrypoint" in first.output, lambda: first.output)
    [id] = re.findall(r"^(csrm-score-\S+): submitted$", first.output, re.M)

    # A second cron comes, and somebody's Ctrl-C.
    second = run(SCORE)
    wait_until(lambda: "Running entrypoint" in second.output, lambda: second.output)
    assert f"{id}: is running already; following it" in second.output
    second.process.send_signal(signal.SIGINT)
    assert second.wait() == 130, second.output
    assert f"csrm jobs logs {id} --follow --address {cluster.address}" in second.output
    assert f"csrm jobs stop {id} --address {cluster.address}" in second.output

    # Autoscaling from zero, and a node that is added amid the job.
    assert not commits(shared)
    cluster.add_node(cpus=1)
    wait_until(lambda: cluster.actors("Score"), lambda: first.output)
    cluster.add_node(cpus=1)
    wait_until(lambda: len(cluster.actors("Score")) == 2 or first.process.poll() is not None, lambda: first.output)
    assert len({node for node, _ in cluster.actors("Score")}) == 2, "the node that was added is not used"

    stopped = run(f"jobs stop {id}")
    assert stopped.wait() == 0
    assert stopped.output == f"{id}: stopped\n"
    assert first.wait() == 143, first.output
    assert "terminated; the same command resumes" in first.output
    before = commits(shared)
    assert 0 < len(before) < NUM_SHARDS

    again = run(SCORE)
    assert again.wait() == 0, again.output
    assert f"{id}-2: submitted" in again.output
    assert f"{id}-2: succeeded" in again.output
    assert re.search(rf"^{NUM_RECORDS:,} records · .* cells/s", again.output, re.M)
    assert before.items() <= commits(shared).items(), "a committed shard was scored again"
    assert pq.read_table(shared / "matrix/matrix").num_rows == NUM_RECORDS

    done = run(SCORE)
    assert done.wait() == 0
    assert done.output == f"{id}-2: has succeeded already; --again runs it anew\n"
    listed = run("jobs list --json")
    assert listed.wait() == 0
    assert {job["id"]: (job["status"], job["exit_code"]) for job in json.loads(listed.output)} == {
        id: ("STOPPED", 143),
        f"{id}-2": ("SUCCEEDED", 0),
    }


@pytest.fixture(scope="module")
def matrix(shared, cluster, run):
    """A small matrix with an error, scored by the example of the help on a GPU that comes when it is asked for."""
    example = example_of("submit")[-1].replace("chats.jsonl", "three.jsonl").replace("/matrix", "/small")
    scored = run(f"{example.replace('submit', 'submit --num-gpus 1')} -m /shared/tiny --max-error-rate 1")
    wait_until(cluster.wanted, lambda: scored.output)
    cluster.add_node(cpus=1, gpus=1)
    assert scored.wait() == 0, scored.output
    assert "3 records · 4 cells · 1 errors" in scored.output
    return scored


def example_of(*path):
    """Examples in a command's help, without the leading `csrm`."""
    text = CliRunner().invoke(cli, [*path, "-h"]).output.split("Example")[1]
    return re.findall(r"^ +csrm (.*)$", text, re.M)


def test_reports_filters_and_exit_codes_come_through(matrix, shared, run):
    report = run("submit --paths-on-cluster -- report /shared/small --json")
    gate = run("submit --paths-on-cluster -- report /shared/small --max-error-rate 0.1")
    broken = run("submit --paths-on-cluster -- report /shared/none")
    kept = run("submit --paths-on-cluster -- filter /shared/small --where 'p_safe.bank >= 0 and true' -o /shared/kept")
    assert (report.wait(), gate.wait(), broken.wait(), kept.wait()) == (0, 3, 2, 0), kept.output
    [file] = [path for path in (shared / "kept").rglob("*.jsonl") if "_csrm" not in path.parts]
    assert len(file.read_text().splitlines()) == 2
    assert '"baseline": null' in report.output
    assert re.search(r"^csrm-report-\S+: failed, exit code 3$", gate.output, re.M)
    assert "/none" in broken.output


def test_examples_of_the_help_of_jobs_run(matrix, cluster, run):
    [id] = re.findall(r"^(csrm-score-\S+): submitted$", matrix.output, re.M)
    [lists], [logs], [stop] = (example_of("jobs", name) for name in ("list", "logs", "stop"))
    listed = run(lists.replace("http://127.0.0.1:8265", cluster.address))
    assert listed.wait() == 0
    assert re.search(rf"^\S+ +succeeded +0 +{id} +csrm score ", listed.output, re.M)
    shown = run(logs.replace("csrm-score-2026-11-20-5f2c91d07b", id))
    assert shown.wait() == 0
    assert "3 records · 4 cells · 1 errors" in shown.output
    stopped = run(stop.replace("csrm-score-2026-11-20-5f2c91d07b", id))
    assert stopped.wait() == 0
    assert stopped.output == f"{id}: succeeded\n"


def test_a_job_that_does_not_exist_is_one_line(cluster, run):
    for line in ("logs nix", "logs nix --follow", "stop nix"):
        asked = run(f"jobs {line}")
        assert asked.wait() == 2
        assert asked.output == f"Error: nix: no such job at {cluster.address}; `csrm jobs list` shows all\n"


def test_no_secret_is_in_what_the_cluster_shows(matrix, cluster):
    shown = json.dumps(cluster.get("/api/jobs/"))
    assert "policies-" in shown
    assert not re.search(r"AWS_(ACCESS|SECRET|SESSION)|RAY_AUTH_TOKEN", shown)


def test_training_is_submitted(shared, cluster, run):
    write_lines(shared / "rows.jsonl", single())
    if not cluster.num_nodes:
        cluster.add_node(cpus=1)
    train = run(
        "submit --paths-on-cluster -- train --data /shared/rows.jsonl --backbone /shared/tiny --output /shared/trained "
        "--steps 2 --batch-rows 4 --no-contrasts --max-tokens 300 --dtype float32 --num-extra-clauses 0"
    )
    assert train.wait() == 0, train.output
    assert (shared / "trained/csrm.json").exists()
