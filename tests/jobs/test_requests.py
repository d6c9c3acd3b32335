"""What a shard costs in requests to an object store, counted at one; `cluster/README.md` multiplies them."""

import gzip
import io
from collections import Counter
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_proxy import FaultProxy

from jobs.lock import Lock
from jobs.storage import Folder

pytestmark = pytest.mark.parametrize("server", ["moto"], indirect=True)

ROWS = 3


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["hello bank"] * ROWS}), sink)
    return sink.getvalue()


LINES = b'{"text": "hello bank"}\n' * ROWS
FILES = {".parquet": parquet(), ".jsonl": LINES, ".jsonl.gz": gzip.compress(LINES)}
FEW, MANY = 4, 9

PLANNED = {".parquet": 1, ".jsonl": 2, ".jsonl.gz": 2}
"""HEAD and GET of the input, to count a file's rows: its footer, or all of it after a look at its first lines."""
SCORED = {
    **{"HEAD in": 2, "GET in": 1},
    **{f"{method} _csrm/attempts": 2 for method in ("HEAD", "LIST", "PUT", "DELETE")},
    **{"PUT matrix": 1, "LIST _csrm/lock": 1, "PUT _csrm/commits": 1},
}
"""The input, once to see that it is as planned and once to read it; notes of reader and scorer; rows, a record."""


class CountingProxy(FaultProxy):
    """Counts requests by method and the folder that they are about."""

    counts: Counter

    def fault_of(self, number, method, path):
        address = urlsplit(path)
        prefix = parse_qs(address.query).get("prefix")
        key = prefix[0] if prefix else unquote(address.path).removeprefix("/bucket/")
        parts = key.split("/")[1:]  # the first is the test's own folder
        place = "/".join(parts[1:3] if parts[1:2] == ["_csrm"] else parts[1:2]) if parts[0] == "out" else parts[0]
        self.counts[f"{'LIST' if prefix else method} {place}"] += 1


@pytest.fixture
def count(server, connect, in_process, score, request):
    """Score so many files of a shard each, as many times; return what the last time asked of the store."""
    in_process.setattr(Lock, "_beat", lambda self: None)  # one listing and one PUT every five seconds

    def run(suffix, num_files, num_times):
        connect()
        store = Folder.at(f"s3://bucket/{request.node.name.partition('[')[0]}{suffix}-{num_files}-{num_times}")
        for number in range(num_files):
            store.publish(f"in/{number}{suffix}", FILES[suffix])
        for _ in range(num_times):
            with CountingProxy(server.port) as proxy:
                proxy.counts = Counter()
                connect(proxy.port)
                result = score(f"{store.url}/in", output=f"{store.url}/out")
            assert result.exit_code == 0, result.output
        return proxy.counts

    return run


@pytest.mark.parametrize("suffix", FILES)
def test_requests_of_a_shard(count, suffix):
    more = count(suffix, MANY, 1)
    more.subtract(count(suffix, FEW, 1))
    per_shard = {what: number / (MANY - FEW) for what, number in more.items() if number}
    planned = Counter({"HEAD in": PLANNED[suffix], "GET in": PLANNED[suffix]})
    assert per_shard == planned + Counter(SCORED)


def test_a_rerun_asks_no_more_for_more_shards(count):
    few, many = count(".parquet", FEW, 2), count(".parquet", MANY, 2)
    assert few == many
    assert sum(few.values()) < 60
