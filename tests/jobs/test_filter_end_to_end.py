"""The filter on Ray, killed and resumed, and on S3 servers: always the same records."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from filter_in_process import filter_in_process
from harness_of_filter import committed, wait_until

from jobs.cli import cli

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

WORDS = ["hello", "kill", "bank", "weather", "pin", "the", "a", "user", *"0123"]


def records(number, seed=0):
    draw = random.Random(seed)
    return [{"text": " ".join(draw.choices(WORDS, k=draw.randint(1, 9))), "n": n} for n in range(number)]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in visible(folder)}


def visible(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".csrm" not in path.parts)


def filtered(*arguments):
    result = CliRunner().invoke(cli, ["filter", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def corpus(tmp_path, score, in_process):
    """Three files of 120 records in shards of six."""
    folder = tmp_path / "chats" / "lang=en"
    folder.mkdir(parents=True)
    parts = [records(120, seed) for seed in range(3)]
    texts = ["".join(json.dumps(record) + "\n" for record in part).encode() for part in parts]
    (folder / "a.jsonl").write_bytes(texts[0])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(texts[1]))
    pq.write_table(pa.Table.from_pylist(parts[2]), tmp_path / "chats" / "c.parquet", row_group_size=30)
    result = score("chats", "--shard-rows", "6")
    assert result.exit_code == 0, result.output
    in_process.undo()
    return tmp_path / "out"


def test_records_are_filtered_on_ray(corpus, running_cluster, tmp_path):
    where = "reward.bank < 2.5 and n < 100"
    arguments = [corpus, "--where", where, "--rejected", tmp_path / "others", "--json", "--output", tmp_path / "kept"]
    told = json.loads(filtered(*arguments).stdout)
    assert told["records"] == 360 == told["kept"] + told["rejected"] + told["errors"]
    assert 0 < told["kept"] < 300
    names = {name.rpartition("/")[0] for name in files(tmp_path / "kept")}
    assert names == {"lang=en", ""}
    scores = {}
    for path in (corpus / "matrix").rglob("*.parquet"):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            scores[row["source"], row["row"]] = row["reward"]["bank"]
    lines = (tmp_path / "chats" / "lang=en" / "a.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(data for name, data in files(tmp_path / "kept").items() if "/a-" in name)
    assert kept == b"".join(line for n, line in enumerate(lines[:100]) if scores["lang=en/a.jsonl", n] < 2.5)
    assert "everything was filtered already" in filtered(*arguments).stderr


def test_an_error_of_a_worker_is_one_line(corpus, running_cluster, tmp_path):
    result = CliRunner().invoke(cli, ["filter", str(corpus), "-w", "text::int > 3", "-o", str(tmp_path / "kept")])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "--where fails: Could not convert string" in result.output


@pytest.mark.slow
def test_a_filter_that_is_killed_ends_with_what_it_would_have_written(corpus, running_cluster, tmp_path):
    """SIGKILL of the driver at some moments, and the same command again."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    where = "reward.bank < 2.5 and n < 100"

    def command(name):
        places = ["--output", tmp_path / name, "--rejected", tmp_path / f"{name}-others"]
        return [Path(sys.executable).with_name("csrm"), "filter", corpus, "--where", where, *places]

    filtered(*command("whole")[2:])
    draw, num_kills = random.Random(0), 0
    for most in (1, 15, 30):
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(list(map(str, command("kept"))), env=environment, stdout=log, stderr=log)
        if wait_until(lambda most=most: len(committed(tmp_path / "kept")) >= most, process):
            time.sleep(draw.uniform(0, 0.2))
            process.kill()
            num_kills += 1
        process.wait()
    before = committed(tmp_path / "kept")
    assert before
    assert num_kills
    last = subprocess.run(list(map(str, command("kept"))), env=environment, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert before.items() <= committed(tmp_path / "kept").items(), "a committed shard was written again"
    for name in ("", "-others"):
        assert files(tmp_path / f"kept{name}") == files(tmp_path / f"whole{name}")
        assert files(tmp_path / f"kept{name}")


def test_records_are_filtered_on_s3(server, connect, score, in_process, tmp_path):
    from jobs.filter import pipeline as filter_pipeline
    from jobs.storage import Folder

    in_process.setattr(filter_pipeline, "filter_shards", filter_in_process)
    root = f"s3://bucket/filter-{tmp_path.name}"
    lines = [json.dumps(record).encode() + b"\n" for record in records(40)]
    Folder.at(f"{root}/chats").publish("lang=en/a.jsonl", b"".join(lines))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records(20)), sink)
    Folder.at(f"{root}/chats").publish("b.parquet", sink.getvalue().to_pybytes())
    result = score(f"{root}/chats", "--shard-rows", "10", output=f"{root}/matrix")
    assert result.exit_code == 0, result.output
    command = [f"{root}/matrix", "-w", "n < 15", "-o", f"{root}/kept", "--rejected", f"{root}/others", "--json"]
    told = json.loads(filtered(*command).stdout)
    assert (told["kept"], told["rejected"], told["errors"]) == (30, 30, 0)
    kept = Folder.at(f"{root}/kept")
    names = [name for name in kept.sizes("") if name.startswith("lang=en/")]
    assert b"".join(kept.read(sorted(names)).values()) == b"".join(lines[:15])
    rows = [
        pq.read_table(pa.BufferReader(data))
        for name, data in kept.read(sorted(n for n in kept.sizes("") if n.startswith("b-"))).items()
    ]
    assert pa.concat_tables(rows).to_pylist() == records(15)
    marks = kept.marks("lang=en")
    assert "everything was filtered already" in filtered(*command).stderr
    assert kept.marks("lang=en") == marks
    Folder.at(f"{root}/chats").publish("lang=en/a.jsonl", b"".join(lines[:-1]))
    changed = CliRunner().invoke(cli, ["filter", f"{root}/matrix", "-w", "n < 16", "-o", f"{root}/new"])
    assert changed.exit_code == 2
    assert "a.jsonl has changed or gone since it was scored" in changed.output
