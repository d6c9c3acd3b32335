"""A scoring job whose processes die ends with the matrix of one that was left alone, and nothing is done twice."""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import committed, kill_while_running, matrix, processes
from ray.cluster_utils import Cluster


def workers(mark, stage):
    return lambda: processes(mark, f"ray::MapWorker(MapBatches({stage}))")


@pytest.mark.parametrize("stage", ["Score", "Read", "Write"])
def test_workers_are_killed(stage, seed, start, undisturbed, mark, tmp_path):
    run = start()
    num_kills, before = kill_while_running(run, workers(mark, stage), random.Random(seed), tmp_path / "out", most=4)
    assert run.wait() == 0, run.output
    assert num_kills > 0
    assert matrix(tmp_path / "out") == undisturbed
    assert before.items() <= committed(tmp_path / "out").items(), "a committed shard was written again"


def test_the_driver_is_killed_again_and_again(seed, start, undisturbed, tmp_path, request):
    """SIGKILL at a random moment, and the same command again, until a run gets through."""
    draw = random.Random(seed)
    target = tmp_path / "out"
    most = 20 if request.config.getoption("fault_rounds") > 1 else 4
    num_kills = 0
    while num_kills < most:
        before = committed(target)
        run = start(log=f"{num_kills}.log")
        if draw.random() < 0.7:
            run.wait_until(lambda before=before: committed(target).keys() > before.keys())
            time.sleep(draw.uniform(0, 0.7))
        else:
            time.sleep(draw.uniform(0, 8))
        if run.is_over:
            break
        run.process.kill()
        run.process.wait()
        num_kills += 1
        assert before.items() <= committed(target).items(), "a committed shard was written again"
    before = committed(target)
    run = start(log="last.log")
    assert run.wait() == 0, run.output
    assert num_kills >= min(most, 4)
    assert matrix(target) == undisturbed
    assert before.items() <= committed(target).items(), "a committed shard was written again"


def test_the_driver_is_killed_while_a_column_is_added(seed, start, undisturbed, policies, tmp_path):
    """The other column stays as it was, whatever the moment."""
    draw, target = random.Random(seed), tmp_path / "out"
    first = start(policies=policies / "bank.yaml", log="first.log")
    assert first.wait() == 0, first.output
    before = committed(target)
    run = start(policies=policies / "game.yaml", log="killed.log")
    run.wait_until(lambda: len(before.items() - committed(target).items()) > 2)
    time.sleep(draw.uniform(0, 1))
    run.process.kill()
    run.process.wait()
    last = start(policies=policies / "game.yaml", log="last.log")
    assert last.wait() == 0, last.output
    assert matrix(target) == undisturbed


def test_a_terminated_job_ends_soon_and_leaves_no_process(seed, start, undisturbed, mark, tmp_path):
    """SIGTERM, as before a machine is taken away. The job runs Ray by itself."""
    target = tmp_path / "out"
    others = {process.pid for process in processes(mark)}
    run = start(address="")
    run.wait_until(lambda: len(committed(target)) > 3)
    run.process.terminate()
    started = time.monotonic()
    assert run.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - started < 20
    assert "terminated; the same command resumes" in run.output
    before = committed(target)
    assert before
    _, alive = psutil.wait_procs([p for p in processes(mark) if p.pid not in others], timeout=15)
    assert not alive
    run = start(log="again.log")
    assert run.wait() == 0, run.output
    assert matrix(target) == undisturbed
    assert before.items() <= committed(target).items()


def test_of_two_jobs_started_at_once_one_writes(start, undisturbed, tmp_path):
    runs = [start(log="one.log"), start(log="two.log")]
    codes = [run.wait() for run in runs]
    assert sorted(codes) == [0, 2], "\n".join(run.output for run in runs)
    [refused] = [run.output for run, code in zip(runs, codes, strict=True) if code]
    assert "has been writing here since" in refused
    assert matrix(tmp_path / "out") == undisturbed


def test_a_node_is_removed(seed, start, undisturbed, mark, tmp_path):
    """With it go its workers and whatever its object store held."""
    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        run = start(address=cluster.address)
        run.wait_until(lambda: bool(committed(tmp_path / "out")))
        time.sleep(random.Random(seed).uniform(0, 3))
        assert not run.is_over
        before = committed(tmp_path / "out")
        cluster.remove_node(nodes[seed % 2], allow_graceful=False)
        assert run.wait() == 0, run.output
        assert matrix(tmp_path / "out") == undisturbed
        assert before.items() <= committed(tmp_path / "out").items()
    finally:
        with contextlib.suppress(ProcessLookupError):
            cluster.shutdown()


def test_poisonous_records_cost_a_row_each(start, corpus, model_folder, undisturbed, tmp_path):
    """One record kills the process that scores it, one never ends, one raises; everything else has its scores."""
    vocabulary = json.loads((model_folder / "tokenizer.json").read_text())["model"]["vocab"]
    poison = {"kill": vocabulary["7"], "hang": vocabulary["8"], "raise": vocabulary["9"]}
    source = tmp_path / "in"
    shutil.copytree(corpus, source)
    lines = (source / "a.jsonl").read_text().splitlines()
    bad = {11: "7", 207: "8", 300: "9"}
    for row, word in bad.items():
        lines[row] = json.dumps({"text": word})
    (source / "a.jsonl").write_text("\n".join(lines))
    paths = [str(Path(__file__).parent / "poison"), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = start(
        "--batch-timeout-s", "8", source=source, address="",
        CSRM_POISON=json.dumps(poison), PYTHONPATH=os.pathsep.join(paths),
    )  # fmt: skip
    assert run.wait() == 0, run.output
    rows = pq.read_table(tmp_path / "out" / "matrix").to_pylist()
    errors = {row["row"]: row["error"] for row in rows if row["error"]}
    assert len(rows) == 20 * len(undisturbed)
    assert errors == {
        11: "its process died when it was scored",
        207: "scoring took longer than 8 s",
        300: "scoring failed: RuntimeError: out of memory, or so",
    }
    before = {(row["source"], row["row"]): row["reward"] for data in undisturbed.values() for row in table(data)}
    for row in rows:
        if not row["error"]:
            assert row["reward"] == pytest.approx(before[row["source"], row["row"]], abs=1e-2)


def table(data):
    return pq.read_table(pa.BufferReader(data)).to_pylist()
