"""A corpus that takes a few seconds, a cluster to score it on, and the matrix that it gives undisturbed."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import Run, committed, marked, matrix
from ray.cluster_utils import Cluster

NUM_SHARDS = 64
WORDS = ["the", "a", "user", "assistant", "hello", "kill", "bank", "weather", "pin", *"0123456"]


def pytest_generate_tests(metafunc):
    """Run tests of random faults with as many seeds as were asked for."""
    if "seed" in metafunc.fixturenames:
        rounds = metafunc.config.getoption("fault_rounds")
        metafunc.parametrize("seed", range(rounds), ids="seed{}".format)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Four files of 16 shards of 20 records; a shard takes a fraction of a second."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    records = [{"text": " ".join(draw.choices(WORDS, k=draw.randint(10, 3000)))} for _ in range(20 * NUM_SHARDS)]
    parts = [records[start : start + 320] for start in range(0, len(records), 320)]
    texts = ["".join(json.dumps(record) + "\n" for record in part).encode() for part in parts]
    (folder / "a.jsonl").write_bytes(texts[0])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(texts[1]))
    (folder / "c.jsonl.zst").write_bytes(pa.compress(texts[2], codec="zstd", asbytes=True))
    pq.write_table(pa.Table.from_pylist(parts[3]), folder / "d.parquet", row_group_size=60)
    return folder


@pytest.fixture(scope="session")
def mark():
    """Tells the processes of these tests from others."""
    with marked() as mark:
        yield mark


@pytest.fixture(scope="session")
def address(mark):
    """A cluster of one node with two cores, which drivers join."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def run_of(corpus, policies, model_folder, address):
    """Start a run on the cluster; `address=""` has it start Ray by itself."""

    def run(target, *options, source=corpus, policies=policies, address=address, log="log", **environment):
        arguments = [source, "-c", policies, "-o", target, "-m", model_folder, "--shard-rows", "20", *options]
        environment |= {"RAY_ADDRESS": address} if address else {}
        return Run(*map(str, arguments), log=log, environment=environment)

    return run


@pytest.fixture
def start(run_of, tmp_path):
    """Start a run whose target and log are the test's own."""

    def run(*options, target=tmp_path / "out", log="log", **settings):
        return run_of(target, *options, log=tmp_path / log, **settings)

    return run


@pytest.fixture(scope="session")
def undisturbed(run_of, tmp_path_factory):
    """The files of the matrix."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = run_of(folder / "out", log=folder / "log")
    assert run.wait() == 0, run.output
    assert len(committed(folder / "out")) == NUM_SHARDS
    return matrix(folder / "out")
