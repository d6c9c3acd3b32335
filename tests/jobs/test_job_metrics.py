"""Metrics of a job: what is counted is what was committed, and a scrape of a real node shows it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
from s3_servers import free_ports

from jobs import metrics, scoring, writing
from jobs.metrics import METRICS


@pytest.fixture
def told(in_process):
    """What is counted and observed, without Ray."""
    found = Counter()

    def count(name, value, **tags):
        assert set(tags) == set(METRICS[name].tags)
        found[(name, *tags.values())] += value

    def observe(name, seconds):
        assert METRICS[name].boundaries
        assert seconds >= 0
        found[(name,)] += 1

    in_process.setattr(writing, "count", count)
    in_process.setattr(scoring, "observe", observe)
    return found


def write_chats(path, num_rows):
    lines = [{"text": ["hello bank", "kill the user", "weather"][row % 3]} for row in range(num_rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"text": 5}, {"text": 6}]))


def test_counts_are_those_of_the_manifest(told, score, tmp_path):
    write_chats(tmp_path / "chats.jsonl", 30)
    result = score("chats.jsonl", "--shard-rows", "8", "--max-error-rate", "1")
    assert result.exit_code == 0, result.output
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert told[("csrm_records_total",)] == counts["records"] == 32
    assert told[("csrm_cells_total",)] == counts["cells"] == 60
    assert told[("csrm_tokens_total",)] == counts["tokens"]
    assert told[("csrm_errors_total", "read")] == counts["errors"] == 2
    commits = [json.loads(file.read_text()) for file in (tmp_path / "out" / "_csrm" / "commits").iterdir()]
    for name in ("game", "bank"):
        violations = sum(commit["summary"][name]["num_violations"] for commit in commits)
        assert told[("csrm_violations_total", name)] == violations
    assert told[("csrm_batch_seconds",)] == told[("csrm_queue_wait_seconds",)] == len(commits) == 4
    assert told[("csrm_model_load_seconds",)] == 1


def test_a_further_configuration_counts_its_own_cells_only(told, score, tmp_path, policies):
    write_chats(tmp_path / "chats.jsonl", 10)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "game.yaml").write_text((policies / "game.yaml").read_text())
    assert score("chats.jsonl", "--max-error-rate", "1", configurations=tmp_path / "one").exit_code == 0
    assert told[("csrm_cells_total",)] == 10
    assert score("chats.jsonl", "--max-error-rate", "1").exit_code == 0
    assert told[("csrm_cells_total",)] == 20


def test_outside_of_ray_nothing_is_made():
    before = metrics._made.cache_info().currsize
    metrics.count("csrm_records_total", 3)
    metrics.observe("csrm_batch_seconds", 1.0)
    assert metrics._made.cache_info().currsize == before


def scrape(port):
    """Samples by name and tags that are ours; histograms by their counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = Counter()
    for name, labels, value in re.findall(r"^ray_(csrm_\w+)\{([^}]*)\} ([0-9.e+-]+)$", text, re.M):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        own = METRICS[name.removesuffix("_count")].tags if name.removesuffix("_count") in METRICS else None
        if own is not None:
            found[(name, *(tags[tag] for tag in own))] += float(value)
    return found


def test_a_scrape_shows_what_a_job_did(tmp_path, policies, model_folder):
    """A node of Ray's with its agent, `csrm score` as a user runs it, and what Prometheus would read."""
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs ray[default]")
    from ray.cluster_utils import Cluster

    write_chats(tmp_path / "chats.jsonl", 30)
    [port] = free_ports(1)
    node = {"num_cpus": 2, "include_dashboard": False, "metrics_export_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        command = ["score", tmp_path / "chats.jsonl", "-c", policies, "-m", model_folder, "-o", tmp_path / "out"]
        program = [sys.executable, "-c", "from jobs.cli import main; main()", *map(str, command)]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        options = ["--shard-rows", "8", "--max-error-rate", "1", "--num-actors", "2"]
        done = subprocess.run([*program, *options], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        expected = {("csrm_records_total",): 32, ("csrm_cells_total",): 60, ("csrm_batch_seconds_count",): 4}
        deadline, found = time.monotonic() + 60, Counter()
        while not expected.items() <= found.items() and time.monotonic() < deadline:
            time.sleep(1)
            found = scrape(port)
        assert expected.items() <= found.items(), found
        assert found[("csrm_errors_total", "read")] == 2
        assert ("csrm_queue_wait_seconds_count",) in found
        assert 1 <= found[("csrm_model_load_seconds_count",)] <= 2, "an actor loads its model once, for all shards"
        assert {name for name, *_ in found if name == "csrm_violations_total"}
    finally:
        cluster.shutdown()
