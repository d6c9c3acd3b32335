"""GPUs that come when they are asked for."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from csrm.errors import InputError
from jobs import scaling


@pytest.fixture(scope="module")
def cluster():
    """A cluster that has no GPU yet."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    ray.init(address=nodes.address, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(scaling, "POLL_S", 0.05)


def wanted():
    return [one for one in placement_group_table().values() if one["state"] == "PENDING"]


@pytest.mark.slow
def test_a_job_waits_for_its_gpus(cluster, capsys):
    with pytest.raises(InputError, match="--num-gpus 2: the cluster brought up none in 61 minutes"):
        scaling.bring_up(2, clock=iter([0.0, 3660.0]).__next__)
    assert not wanted()
    assert capsys.readouterr().err == "waiting for 2 GPUs, 0 are up: at most 15 minutes, 60 for the first\n"
    with ThreadPoolExecutor() as threads:
        job = threads.submit(scaling.bring_up, 2)
        while len(wanted()) < 2:
            time.sleep(0.05)
        # What an autoscaler answers.
        assert [one["bundles"] for one in wanted()] == [{0: {"GPU": 1.0}}] * 2
        cluster.add_node(num_cpus=1, num_gpus=2)
        assert job.result(timeout=60) == 2
    # The demand is gone and the GPUs are free.
    assert not wanted()
    assert ray.get(ray.remote(num_gpus=2)(lambda: "ran").remote(), timeout=60) == "ran"
    capsys.readouterr()
    # With three, the market is empty: two will do, after a while.
    assert scaling.bring_up(3, clock=iter([0.0, 800.0, 901.0]).__next__) == 2
    assert not wanted()
    assert capsys.readouterr().err == "waiting for 3 GPUs, 2 are up: at most 15 minutes\n"
    assert scaling.bring_up(1) == 2
    assert capsys.readouterr().err == "", "nothing is waited for"
