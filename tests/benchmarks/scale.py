"""What a corpus costs beside the engine: memory that must not grow with it, and the share of time that is not scoring.

    python tests/benchmarks/scale.py memory --records 10000,100000,1000000 >> tests/benchmarks/memory.jsonl
    python tests/benchmarks/scale.py overhead --records 20000 >> tests/benchmarks/overhead.jsonl
    python tests/benchmarks/scale.py plan --records 10000,1000000 >> tests/benchmarks/plan.jsonl
    python tests/benchmarks/scale.py read --records 20000 >> tests/benchmarks/read.jsonl

`memory` scores short records with a one-layer random model and watches every process of the job. `overhead` scores
records of 8 to 250 words with the embedded model under the bundled configurations, as a job and by the engine alone: as
many processes as the job has scorers, each with its share of the same records. `plan` lists and counts as many files of
one record, a thousand to a folder, in one process. `read` reads and tokenises the records of `overhead`, as one reader
of a job does. Each prints a JSON line per measurement.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from csrm import Calibration, Encoder, Layout, Message
from csrm.encoding import EncodedConversations
from jobs.demo import SAMPLE_CONFIGURATIONS
from jobs.inputs import list_inputs
from jobs.shards import plan_files
from jobs.tables import from_bytes

ROWS_PER_FILE = 100_000
SHARD_ROWS = 4096
STAGES = ("Read", "Score", "Write")
WORDS = ["the", "user", "asks", "about", "bank", "weather", "game", "help", "please", "never", "kill", "love", "child"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--records", required=True, type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    for num_records in options.records:
        with tempfile.TemporaryDirectory() as folder:
            found = MEASURES[options.what](Path(folder), num_records, options.actors)
            print(json.dumps({"records": num_records, **found, "versions": versions()}), flush=True)


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("csrm", "ray", "torch", "pyarrow")}


def measure_memory(folder: Path, num_records: int, num_actors: int) -> dict[str, Any]:
    """Peaks of resident memory, in MB, by role."""
    write_corpus(folder / "in", num_records, lambda draw: draw.randint(3, 12))
    one_layer_model().save_pretrained(folder / "model")
    peaks: dict[str, float] = {}
    scorers: set[int] = set()
    started = time.monotonic()
    shared = psutil.disk_usage("/dev/shm").used
    job = start_job(folder, num_actors, "--model", str(folder / "model"))
    while job.poll() is None:
        watch(psutil.Process(job.pid), peaks, scorers)
        peaks["object_store"] = max(peaks.get("object_store", 0), (psutil.disk_usage("/dev/shm").used - shared) / 2**20)
        time.sleep(0.5)
    assert job.returncode == 0, (folder / "log").read_text()
    log = (folder / "log").read_text()
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": {role: round(peak) for role, peak in sorted(peaks.items())},
        "scorers_started": len(scorers),
        "spilled": "Spilled" in log,
    }


def watch(driver: psutil.Process, peaks: dict[str, float], scorers: set[int]) -> None:
    """Note the largest process of each role, and who scores."""
    try:
        people = [(driver, "driver"), *((child, role_of(child)) for child in driver.children(recursive=True))]
    except psutil.Error:
        return
    for process, role in people:
        try:
            info = process.memory_info()
        except psutil.Error:
            continue
        if role:
            # Pages of the object store count once, and not here.
            peaks[role] = max(peaks.get(role, 0), (info.rss - info.shared) / 2**20)
        if role == "Score":
            scorers.add(process.pid)


def role_of(process: psutil.Process) -> str | None:
    """Stage of an actor; None for the rest of Ray."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return next((stage for stage in STAGES if f"MapWorker(MapBatches({stage}))" in title), None)


def measure_overhead(folder: Path, num_records: int, num_actors: int) -> dict[str, Any]:
    """Cells per second of a whole job, of its scoring phase, and of the engine alone."""
    write_corpus(folder / "in", num_records, lambda draw: draw.randint(8, 250))
    started = time.monotonic()
    job = start_job(folder, num_actors)
    assert job.wait() == 0, (folder / "log").read_text()
    whole = time.monotonic() - started
    counts = json.loads((folder / "out" / "manifest.json").read_text())["counts"]
    phase = rate_told(folder / "log")
    alone = bare_engine(folder / "in", num_actors)
    return {
        "cells": counts["cells"],
        "tokens": counts["tokens"],
        "whole_job_cells_per_s": round(counts["cells"] / whole, 1),
        "scoring_phase_cells_per_s": phase,
        "engine_cells_per_s": round(counts["cells"] / alone, 1),
        "whole_over_engine": round(alone / whole, 3),
        "phase_over_engine": round(phase * alone / counts["cells"], 3),
        "actors": num_actors,
    }


def measure_plan(folder: Path, num_files: int, num_actors: int) -> dict[str, Any]:
    """Seconds and memory of listing and counting, in a process of its own."""
    for number in range(num_files):
        place = folder / "in" / f"part={number // 1000}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{number}.jsonl").write_text('{"text": "hello"}\n')
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(plan_alone, str(folder / "in"), num_files).result()


def plan_alone(source: str, num_files: int) -> dict[str, Any]:
    before, started = psutil.Process().memory_info().rss, time.monotonic()
    inputs = list_inputs(source)
    listed = time.monotonic()
    plan = plan_files(inputs.files, SHARD_ROWS)
    counted = time.monotonic()
    assert plan.num_records == num_files
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "list_s": round(listed - started, 1),
        "count_s": round(counted - listed, 1),
        "peak_mb": round((peak - before) / 2**20),
        "bytes_per_file": round((peak - before) / num_files),
    }


def measure_read(folder: Path, num_records: int, num_actors: int) -> dict[str, Any]:
    """Tokens per second of one reader: files, lines, records, token ids."""
    from night_scale import write_job

    from jobs.columns import Work
    from jobs.reading import Reader

    write_corpus(folder / "in", num_records, lambda draw: draw.randint(8, 250))
    plan = plan_files(list_inputs(str(folder / "in")).files, SHARD_ROWS)
    reader = Reader(write_job(folder / "policies", 1, SHARD_ROWS))
    batches = [pa.Table.from_pylist([Work(shard, ()).to_row()]) for shard in plan.shards]
    [*reader(batches[0])]  # warms up
    started = time.monotonic()
    rows = [row for batch in batches for row in reader(batch)]
    seconds = time.monotonic() - started
    encoded = [EncodedConversations.from_arrow(from_bytes(row["encoded"][0].as_py())) for row in rows]
    num_tokens = sum(int(part.num_tokens_per_record.sum()) for part in encoded)
    return {"tokens": num_tokens, "seconds": round(seconds, 2), "tokens_per_s": round(num_tokens / seconds)}


def rate_told(log: Path) -> float:
    """Cells per second in the last line of a job."""
    line = next(line for line in reversed(log.read_text().splitlines()) if "cells/s" in line)
    return float(line.split(" cells/s")[0].rpartition(" ")[2].replace(",", ""))


def bare_engine(source: Path, num_processes: int) -> float:
    """Seconds in which processes score a corpus between them, from the moment all have their models."""
    context = get_context("spawn")
    barrier = context.Manager().Barrier(num_processes)
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        shares = [pool.submit(score_share, source, number, num_processes, barrier) for number in range(num_processes)]
        return max(share.result() for share in shares)


def score_share(source: Path, number: int, num_processes: int, barrier: Any) -> float:
    import torch

    import csrm

    torch.set_num_threads(1)
    model = csrm.CSRM.from_pretrained()
    columns = model.prepare(csrm.load_configurations(SAMPLE_CONFIGURATIONS))
    lines = [line for path in sorted(source.iterdir()) for line in path.read_text().splitlines()]
    conversations = [[Message("user", json.loads(line)["text"])] for line in lines[number::num_processes]]

    def score(start: int, end: int) -> None:
        model.score_encoded(model.encoder.encode(conversations[start:end]), columns)

    score(0, 64)
    barrier.wait()
    started = time.monotonic()
    for start in range(0, len(conversations), SHARD_ROWS):
        score(start, start + SHARD_ROWS)
    return time.monotonic() - started


def write_corpus(folder: Path, num_records: int, num_words: Callable[[random.Random], int]) -> None:
    folder.mkdir()
    draw = random.Random(0)
    for start in range(0, num_records, ROWS_PER_FILE):
        with (folder / f"{start:09d}.jsonl").open("w") as file:
            for _ in range(min(ROWS_PER_FILE, num_records - start)):
                file.write(json.dumps({"text": " ".join(draw.choices(WORDS, k=num_words(draw)))}) + "\n")


def start_job(folder: Path, num_actors: int, *options: str) -> subprocess.Popen[bytes]:
    command = [Path(sys.executable).with_name("csrm"), "score", folder / "in", "-c", SAMPLE_CONFIGURATIONS]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*map(str, command), "-o", str(folder / "out"), "--num-actors", str(num_actors), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def one_layer_model() -> Any:
    """A random encoder that costs next to nothing, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoModel, BertConfig

    from csrm import CSRM
    from csrm.model_folder import EMBEDDED_MODEL

    torch.manual_seed(0)
    encoder = Encoder.from_pretrained(EMBEDDED_MODEL)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    backbone = AutoModel.from_config(BertConfig(vocab_size=len(encoder.tokenizer), **size), add_pooling_layer=False)
    model = CSRM(backbone, encoder, Layout(width=16), name="one-layer")
    model.calibration = Calibration()
    return model


MEASURES = {"memory": measure_memory, "overhead": measure_overhead, "plan": measure_plan, "read": measure_read}

if __name__ == "__main__":
    main()
