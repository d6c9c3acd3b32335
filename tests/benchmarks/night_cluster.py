"""How many shards a second one driver gets through Ray Data, and what it keeps of each: a pipeline with nothing to do.

    python tests/benchmarks/night_cluster.py --shards 2000,8000 >> tests/benchmarks/night_cluster.jsonl

Blocks, stages, pools and outcomes are those of `jobs.pipeline.score_shards`; its reader, scorer and writer do nothing
but hand on as many bytes as real ones would of short records, and a commit record of the real form. This is a ceiling
that no number of GPUs lifts; on a machine with more cores, the driver's own time for a shard is what is left of it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from night_scale import write_job
from night_store import Night

from jobs import pipeline
from jobs.columns import Work
from jobs.packed import light

RECORD_BYTES = 64
"""That a reader hands on, of a shard's record."""
ROWS = 1000


class Idle:
    """Stands in for all three workers."""

    def __init__(self, *arguments: Any):
        pass


class Reader(Idle):
    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            yield pa.table({"shard": [row["row_start"]], "encoded": [b"0" * RECORD_BYTES * ROWS]})


class Scorer(Idle):
    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


class Writer(Idle):
    text = ""
    """Commit record to hand back."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        own = {"commit": [self.text], "lost": pa.nulls(1, pa.string()), "started": [0.0]}
        return pa.table({**own, "warnings": pa.array([[]], pa.list_(pa.string()))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--configurations", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, pipeline.cluster():
        for num_shards in options.shards:
            found = measure(Path(folder), num_shards, options.configurations)
            print(json.dumps({"shards": num_shards, "configurations": options.configurations, **found}), flush=True)


def measure(folder: Path, num_shards: int, num_configurations: int) -> dict[str, Any]:
    night = Night(num_files=num_shards, rows_per_file=ROWS, shard_rows=ROWS, kept=folder)
    job = write_job(folder / "policies", num_configurations, ROWS)
    night.make_up_commits(job)
    Writer.text = night.commits[0][0]
    for name, worker in {"Read": Reader, "Score": Scorer, "Write": Writer}.items():
        setattr(pipeline, name, type(name, (pipeline.Stage,), {"make": worker}))
    score = tuple(one.id for one in job.configurations)
    work = [Work(night.shard(number), score) for number in range(num_shards)]
    driver, kept, first = psutil.Process(), [], 0.0
    peak = before = driver.memory_info().rss
    started, used = time.perf_counter(), sum(driver.cpu_times()[:2])
    for number, outcome in enumerate(pipeline.score_shards(work, job)):
        first = first or time.perf_counter()
        kept.append(light(outcome.commit))
        if number % 100 == 0:
            peak = max(peak, driver.memory_info().rss)
    ended = time.perf_counter()
    assert len(kept) == num_shards
    return {
        "start_s": round(first - started, 1),
        "shards_per_s": round(num_shards / (ended - first), 1),
        "driver_cpu_ms_per_shard": round((sum(driver.cpu_times()[:2]) - used) * 1000 / num_shards, 1),
        "before_mb": before >> 20,
        "peak_mb": max(peak, driver.memory_info().rss) >> 20,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("csrm", "ray", "pyarrow")},
    }


if __name__ == "__main__":
    main()
