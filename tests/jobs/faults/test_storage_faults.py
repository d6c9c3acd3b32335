"""A disk that runs full, and an object store that fails now and then."""

import os
import re
import subprocess

import pytest
from fault_proxy import FAULTS, FaultProxy
from harness import committed, matrix

from jobs.storage import Folder

RATE = 0.05


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of its own that holds half of the matrix."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"only who may mount a filesystem can fill one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_the_disk_runs_full(start, undisturbed, small_disk):
    run = start(target=small_disk / "out")
    assert run.wait() == 2, run.output
    assert f"Error: {small_disk}/out: no space left; make some and run again, what is committed stays" in run.output
    before = committed(small_disk / "out")
    assert 0 < len(before) < len(undisturbed)
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    run = start(target=small_disk / "out", log="again.log")
    assert run.wait() == 0, run.output
    assert matrix(small_disk / "out") == undisturbed
    assert before.items() <= committed(small_disk / "out").items(), "a committed shard was written again"


def contents(files):
    """Files of a matrix; their names without the digests, which depend on where the input is."""
    return {re.sub(r"-[0-9a-f]{16}\.parquet$", "", name): data for name, data in files.items()}


def test_requests_fail_now_and_then(seed, server, connect, start, corpus, undisturbed):
    """Input, output and locks pass through a proxy that spoils one request in twenty."""
    source, target = Folder.at(f"s3://bucket/in-{seed}"), Folder.at(f"s3://bucket/out-{seed}")
    for path in corpus.iterdir():
        source.publish(path.name, path.read_bytes())
    with FaultProxy(server.port, faults=FAULTS, rate=RATE, seed=seed) as proxy:
        run = start("--s3-endpoint", proxy.url, source=source.url, target=target.url, address="")
        assert run.wait() == 0, run.output
        assert len({fault for *_, fault in proxy.injected}) > 3, proxy.injected
    assert contents(target.read(list(target.sizes("matrix")))) == contents(undisturbed)
    assert "manifest.json" in target.sizes("")
    assert os.environ["AWS_ENDPOINT_URL_S3"] == server.endpoint
