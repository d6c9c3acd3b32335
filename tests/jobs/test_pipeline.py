"""Pools fit the cluster they were sized for; what workers raise reaches the user as they raised it."""

import os

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from csrm.errors import InputError
from jobs.columns import Work
from jobs.pipeline import (
    CORES_PER_READER,
    MAX_BLOCKS,
    MAX_THREADS,
    READ_SHARE,
    WRITE_SHARE,
    Stage,
    _blocks,
    _check_reachable,
    configure_ray_data,
    map_in_tasks,
    original_errors,
    size_pools,
)
from jobs.shards import Shard


@given(
    nodes=st.lists(st.integers(1, 128), min_size=1, max_size=8),
    num_gpus=st.integers(0, 16),
    num_shards=st.integers(0, 10_000),
    num_actors=st.none() | st.integers(1, 300),
    max_replicas=st.integers(1, 100),
)
def test_pools_fit_the_cluster(nodes, num_gpus, num_shards, num_actors, max_replicas):
    pools = size_pools(nodes, num_gpus, num_shards, num_actors=num_actors, max_replicas=max_replicas)
    cores = sum(nodes)
    assert 1 <= pools.num_scorers <= max(1, num_shards)
    assert 1 <= pools.num_threads <= min(MAX_THREADS, min(nodes))
    assert pools.num_threads == 1 or pools.num_scorers * pools.num_threads <= cores, "replicas fight over cores"
    scorers = pools.num_scorers * pools.scorer_cpus
    assert scorers + READ_SHARE + WRITE_SHARE <= cores + 1e-9, "nothing could read or write beside the scorers"
    everything = scorers + pools.num_readers * READ_SHARE + pools.num_writers * WRITE_SHARE
    assert everything <= cores + 1e-9
    assert pools.scorer_gpus * -(-pools.num_scorers // max(1, num_gpus)) == pytest.approx(float(num_gpus > 0))
    assert num_actors or num_gpus or pools.num_scorers <= max_replicas
    if num_actors:
        assert pools.num_scorers == min(num_actors, max(1, num_shards))


@given(
    num_cores=st.integers(1, 256),
    num_nodes=st.integers(0, 8),
    num_gpus=st.integers(0, 16),
    num_actors=st.none() | st.integers(1, 300),
    max_replicas=st.integers(1, 500),
)
def test_nodes_that_are_added_get_scorers_and_those_that_are_there_no_more(
    num_cores, num_nodes, num_gpus, num_actors, max_replicas
):
    pools = size_pools([num_cores] * num_nodes, num_gpus, 1000, num_actors=num_actors, max_replicas=max_replicas)
    cores = num_cores * num_nodes
    is_limited = num_actors is not None or (not num_gpus and max_replicas < max(1, cores))
    assert pools.max_scorers == (pools.num_scorers if is_limited else 1000)
    if not is_limited and not num_gpus and num_nodes:
        left = num_cores - num_cores * pools.scorer_cpus
        assert round(pools.scorer_cpus, 4) == pools.scorer_cpus, "Ray would round it"
        assert left + 1e-9 >= READ_SHARE + WRITE_SHARE
        others = num_cores // CORES_PER_READER * (READ_SHARE + WRITE_SHARE)
        assert left - others < pools.scorer_cpus, "room for one that has no core"


@given(nodes=st.lists(st.integers(1, 128), min_size=1, max_size=6))
def test_nodes_of_different_sizes_have_no_room_for_more_scorers_than_cores(nodes):
    pools = size_pools(nodes, 0, 10_000)
    assert pools.num_scorers == sum(nodes)
    others = pools.num_readers * READ_SHARE + pools.num_writers * WRITE_SHARE
    room = [int((cores + 1e-9) / pools.scorer_cpus) for cores in nodes]
    assert min(have - cores for have, cores in zip(room, nodes, strict=True)) >= 0, "each core has its scorer"
    assert int((max(nodes) - others + 1e-9) / pools.scorer_cpus) + sum(room) - max(room) <= sum(nodes)


@pytest.mark.parametrize(
    ("nodes", "num_gpus", "scorers", "threads", "readers"),
    [([1], 0, 1, 1, 1), ([2], 0, 2, 1, 1), ([16], 0, 16, 1, 2), ([2] * 4, 0, 8, 1, 1), ([16], 1, 1, 8, 15)],
)
def test_usual_machines(nodes, num_gpus, scorers, threads, readers):
    pools = size_pools(nodes, num_gpus, 1000)
    assert (pools.num_scorers, pools.num_threads, pools.num_readers) == (scorers, threads, readers)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_one_line_and_soon(address):
    with pytest.raises(InputError, match=rf"RAY_ADDRESS={address}: no cluster to join .*; start it or unset it"):
        _check_reachable(address)
    _check_reachable("auto")


def test_blocks_are_bounded_and_keep_shards_in_order():
    shards = [Shard(url=f"/{n}", source=str(n // 3), mark="1", row_start=n, num_rows=1, group=0) for n in range(30_000)]
    blocks = _blocks([Work(shard, ("bank",)) for shard in shards])
    assert len(blocks) <= MAX_BLOCKS
    assert [row for block in blocks for row in block["url"].to_pylist()] == [shard.url for shard in shards]
    assert all(block["source"].to_pylist().count(block["source"][0].as_py()) == 3 for block in blocks[:5])


@pytest.mark.usefixtures("running_cluster")
def test_files_are_planned_in_tasks_in_order():
    numbers = list(range(300))
    assert list(map_in_tasks(lambda number: (number, os.getpid() != 0), numbers)) == [(n, True) for n in numbers]


@pytest.mark.usefixtures("running_cluster")
def test_a_workers_error_arrives_as_it_was_raised():
    @ray.remote
    def fail(error):
        raise error

    with pytest.raises(InputError) as caught, original_errors():
        ray.get(fail.remote(InputError("a.jsonl: broken; mend it")))
    assert str(caught.value) == "a.jsonl: broken; mend it"
    with pytest.raises(ZeroDivisionError), original_errors():
        ray.get(fail.remote(ZeroDivisionError("a bug of ours")))


@pytest.fixture
def broken():
    class Broken(Stage):  # no name of this module, which workers could not import
        @staticmethod
        def make(path):
            raise InputError(f"{path}: broken; mend it")

    return Broken


class Sound(Stage):
    @staticmethod
    def make(one, two):
        return one.__add__


def test_a_failed_start_is_raised_by_the_first_call(broken):
    stage = broken("model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: broken; mend it"):
        stage(None)
    assert Sound(1, 2)(3) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
@pytest.mark.usefixtures("running_cluster")
def test_a_failed_start_reaches_the_driver_through_ray_data_as_one_line(broken):
    configure_ray_data()
    rows = ray.data.from_items([1]).map_batches(
        broken, fn_constructor_args=("a",), compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.2
    )
    with pytest.raises(InputError) as caught, original_errors():
        list(rows.iter_rows())
    assert str(caught.value) == "a: broken; mend it"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_shards_go_to_scorers_on_the_node_that_read_them():
    """Ray Data does so where one is free there, unless it is told not to."""
    from ray.data import DataContext

    configure_ray_data()
    assert DataContext.get_current().execution_options.actor_locality_enabled
