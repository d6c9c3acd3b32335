"""What a night costs the driver: seconds and memory of `csrm score` around the scoring, over a listing of any size.

    python tests/benchmarks/night_scale.py --files 10000 --rows-per-file 100000 --shard-rows 16384

No conversation exists. `night_store` makes up an object store of as many files and what earlier runs committed; the
driver is the real one (`jobs.run.run`: listing, planning, lock, commit records, index, manifest), and where it would
hand shards to the cluster, records of the real form come back at once. Each state that a night may be found in is
measured in a process of its own, and is a JSON line: nothing committed, half of it (a killed run), everything; `listed`
lists and counts the input, and goes no further.

Seconds are this process's own, without a network: what a store takes to answer comes on top, by `requests`. Listing and
counting are by one process; on a cluster, tasks do the counting.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import yaml
from night_store import Night
from rich.console import Console

from csrm import load_configurations
from jobs import lock, pipeline, run
from jobs.columns import Work
from jobs.commits import INDEX, MANIFEST
from jobs.job import Job, kept_schema, read_model_facts
from jobs.options import ScoreOptions
from jobs.storage import Folder

STATES = {"listed": 0.0, "none": 0.0, "half": 0.5, "all": 1.0}
"""Share of the shards that are committed when the run starts."""
PHASES = {
    "list": "list_inputs",
    "count": "plan_files",
    "read_commits": "read_copies",
    "stale": "stale_commits",
    "leftovers": "remove_leftovers",
    "remaining": "_remaining",
    "settle": "_settled",
    "write_index": "write_index",
    "write_manifest": "write_manifest",
    "sum": "sum_commits",
}
"""Functions that `jobs.run` calls, by what they are for; some are called more than once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", required=True, type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--rows-per-file", type=int, default=1000)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--configurations", type=int, default=50)
    parser.add_argument("--states", default=",".join(STATES), type=lambda text: text.split(","))
    options = parser.parse_args()
    for num_files in options.files:
        shape = {"num_files": num_files, "rows_per_file": options.rows_per_file, "shard_rows": options.shard_rows}
        with tempfile.TemporaryDirectory() as folder:
            for state in options.states:
                found = measure(Path(folder), state, options.configurations, shape)
                print(json.dumps(found), flush=True)


def measure(folder: Path, state: str, num_configurations: int, shape: dict[str, int]) -> dict[str, Any]:
    """One run of the driver, in a process of its own; what it writes stays in the folder for the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(measure_here, folder, state, num_configurations, shape).result()
    versions = {name: version(name) for name in ("csrm", "pyarrow", "s3fs")}
    return {"state": state, **shape, "configurations": num_configurations, **found, "versions": versions}


def measure_here(folder: Path, state: str, num_configurations: int, shape: dict[str, int]) -> dict[str, Any]:
    (folder / "kept").mkdir(exist_ok=True)
    night = Night(**shape, kept=folder / "kept")
    if state != "all":  # a run that was killed left no index
        night.kept_path(f"out/{INDEX}").unlink(missing_ok=True)
    job = write_job(folder / "policies", num_configurations, shape["shard_rows"])
    night.make_up_commits(job)
    night.num_committed = int(night.num_shards * STATES[state])
    seconds: Counter[str] = Counter()
    lock.SETTLE_S = 0.0
    pipeline.cluster = contextlib.nullcontext
    pipeline.map_in_tasks = map
    pipeline.score_shards = functools.partial(commit_at_once, night, seconds)
    for phase, name in PHASES.items():
        setattr(run, name, timed(getattr(run, name), seconds, phase))
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    sizes = (list_and_count if state == "listed" else run_and_check)(night, job)
    total = time.perf_counter() - started - seconds.pop("made_up", 0)
    return {
        "shards": night.num_shards,
        "seconds": round(total, 1),
        "phases_s": {phase: round(seconds[phase], 1) for phase in (*PHASES, "blocks") if phase in seconds},
        "before_mb": before >> 20,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        **sizes,
        "requests": dict(night.requests),
        "cores": os.cpu_count(),
    }


def list_and_count(night: Night, job: Job) -> dict[str, Any]:
    plan = run.plan_files(run.list_inputs(job.options.input).files, night.shard_rows)
    assert plan.num_records == night.num_records
    return {}


def run_and_check(night: Night, job: Job) -> dict[str, Any]:
    """Run, and see that all records are in the matrix, each once; return how large its files are."""
    printed = io.StringIO()
    assert run.run(job.options, Console(file=printed), Console(file=io.StringIO())) == 0
    counts = json.loads(night.kept_path(f"out/{MANIFEST}").read_text())["counts"]
    assert counts["records"] == counts["rows"] == night.num_records
    assert night.num_committed == night.num_shards
    assert f"{counts['records']:,} records · {counts['cells']:,} cells · 0 errors" in printed.getvalue()
    return {
        "commit_bytes": len(night.commits[0][0]),
        "index_mb": round(night.kept_path(f"out/{INDEX}").stat().st_size / 1e6, 2),
        "manifest_mb": round(night.kept_path(f"out/{MANIFEST}").stat().st_size / 1e6, 2),
    }


def write_job(policies: Path, num_configurations: int, shard_rows: int) -> Job:
    """A job over the made-up input, under policies of four clauses each."""
    policies.mkdir(exist_ok=True)
    for number in range(num_configurations):
        clauses = [{"category": f"rule {n}", "guideline": f"no {number} of {n}"} for n in range(4)]
        text = yaml.safe_dump({"id": f"policy_{number:02d}", "clauses": clauses})
        (policies / f"{number:02d}.yaml").write_text(text)
    places = {"input": "night://in", "configurations": str(policies), "output": "night://out"}
    options = ScoreOptions(**places, shard_rows=shard_rows)
    return Job(
        options=options,
        configurations=tuple(load_configurations(policies)),
        model=read_model_facts(None),
        input_root="night://in",
        target=Folder.at(options.output),
        kept=kept_schema([], []),
    )


def commit_at_once(night: Night, seconds: Counter[str], pending: Sequence[Work], job: Job) -> Iterator[Any]:
    """Stands in for the cluster: shards are described to it as ever, and are committed when they are asked for."""
    timed(pipeline._blocks, seconds, "blocks")(pending)
    first = night.num_shards - len(pending)
    for number, work in enumerate(pending, first):
        started = time.perf_counter()
        text = night.commit(work.shard, number)
        night.num_committed = number + 1
        seconds["made_up"] += time.perf_counter() - started
        yield pipeline.Outcome.from_row({"commit": text, "lost": None, "started": time.time(), "warnings": []})


def timed(function: Callable[..., Any], seconds: Counter[str], phase: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def run_timed(*arguments: Any, **settings: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **settings)
        finally:
            seconds[phase] += time.perf_counter() - started

    return run_timed


if __name__ == "__main__":
    main()
