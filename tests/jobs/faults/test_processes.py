"""A scoring job whose processes die ends with the matrix of one that was left alone, and nothing is done twice."""

import contextlib
import random
import signal
import time

import psutil
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
    assert sorted(codes) == [0, 1], "\n".join(run.output for run in runs)
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
