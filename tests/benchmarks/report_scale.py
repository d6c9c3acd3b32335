"""What a report costs: seconds and memory of `csrm report` over matrices of many rows.

    python tests/benchmarks/report_scale.py --rows 1000000,10000000,100000000 >> tests/benchmarks/report_scale.jsonl

The rows of all shards are those of one file under many names (hard links), so that a hundred million fit on a laptop's
disk; for the report they are as good as others. Each measurement is a JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from csrm import Clause, Configuration
from jobs.manifest import FORMAT
from jobs.writing import to_parquet

SHARD_ROWS = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--configurations", type=int, default=16)
    options = parser.parse_args()
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), num_rows, options.configurations)
        print(json.dumps({"rows": num_rows, "configurations": options.configurations, **found}), flush=True)


def measure(folder: Path, num_rows: int, num_configurations: int) -> dict[str, Any]:
    num_shards = -(-num_rows // SHARD_ROWS)
    write_matrix(folder, num_shards, num_configurations)
    started = time.monotonic()
    program = [sys.executable, "-c", "from jobs.cli import main; main()", "report", str(folder), "--json"]
    with subprocess.Popen([*program, "--output", str(folder / "page.html")], stdout=subprocess.PIPE) as process:
        assert process.stdout
        found = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert found["num_rows"] == num_shards * SHARD_ROWS
    assert [column["rate"]["total"] for column in found["columns"]] == [num_shards * SHARD_ROWS] * num_configurations
    seconds = time.monotonic() - started
    return {
        "seconds": round(seconds, 1),
        "rows_per_s": round(num_rows / seconds),
        "peak_mb": usage.ru_maxrss // 1024,
        "page_mb": round((folder / "page.html").stat().st_size / 1e6, 2),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("csrm", "pyarrow", "numpy")},
    }


def write_matrix(folder: Path, num_shards: int, num_configurations: int) -> None:
    """A matrix as `csrm score` leaves it, with nights of thirty days."""
    rng = np.random.default_rng(0)
    names = [f"policy_{number}" for number in range(num_configurations)]
    p_safe = rng.beta(6, 1, (num_configurations, SHARD_ROWS)).astype(np.float32)
    clauses = pa.array([f"clause {number}" for number in range(8)])
    fields = [pa.array(column) for column in p_safe]
    table = pa.table(
        {
            "record_id": [f"record-{row}" for row in range(SHARD_ROWS)],
            "source": ["chats.jsonl"] * SHARD_ROWS,
            "row": np.arange(SHARD_ROWS),
            "num_tokens": np.full(SHARD_ROWS, 100, np.int32),
            "num_windows": np.ones(SHARD_ROWS, np.int32),
            "error": pa.nulls(SHARD_ROWS, pa.string()),
            "reward": pa.StructArray.from_arrays(fields, names),
            "p_safe": pa.StructArray.from_arrays(fields, names),
            "worst_clause": pa.StructArray.from_arrays(
                [clauses.take(pa.array(rng.integers(0, 8, SHARD_ROWS))) for _ in names], names
            ),
        }
    )
    (folder / "one.parquet").write_bytes(to_parquet(table))
    (folder / "_csrm" / "commits").mkdir(parents=True)
    for number in range(num_shards):
        shard, day = f"chats-{number:010d}-{number:016x}", f"date=2026-11-{1 + number % 30:02d}"
        part = folder / "matrix" / day / f"{shard}.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.hardlink_to(folder / "one.parquet")
        commit = {
            "shard": shard,
            "source": f"{day}/chats-{number}.jsonl",
            "mark": "1-1",
            "row_start": 0,
            "num_records": SHARD_ROWS,
            "files": {f"matrix/{day}/{shard}.parquet": {"num_rows": SHARD_ROWS, "num_bytes": part.stat().st_size}},
            "place": {"row_start": 0, "group": 0},
            "explain": True,
        }
        (folder / "_csrm" / "commits" / f"{shard}.json").write_text(json.dumps(commit))
    (folder / "manifest.json").write_text(json.dumps(manifest(names)))


def manifest(names: list[str]) -> dict[str, Any]:
    configurations = [Configuration(id=name, clauses=(Clause(category="c", guideline="g"),)) for name in names]
    described = [
        {"id": one.id, "title": one.title, "threshold": 0.5, "clauses": [{"category": "c", "guideline": "g"}]}
        for one in configurations
    ]
    return {
        "format": FORMAT,
        "configurations": described,
        "columns": {},
        "model": {"name": "none", "path": "none", "fingerprint": "0" * 64},
        "calibration": {"scale": 1.0, "bias": 0.0},
        "input": "nowhere",
        "options": {"input": "nowhere", "configurations": "nowhere", "output": "nowhere", "columns": {}},
        "versions": {},
        "counts": {},
        "lost": [],
    }


if __name__ == "__main__":
    main()
