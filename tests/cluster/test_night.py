"""The night that `cluster/README.md` plans: what its figures were measured with runs, and counts right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "cluster" / "README.md").read_text(encoding="utf-8")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NUM_FILES, SHARDS_PER_FILE = 30, 3


@pytest.fixture(scope="module")
def runs():
    """By state: what a run over a small night measured and asked for."""
    shape = ["--files", str(NUM_FILES), "--rows-per-file", "12", "--shard-rows", "4", "--configurations", "3"]
    command = [sys.executable, BENCHMARKS / "night_scale.py", *shape, "--states", "half,all"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {run["state"]: run for run in map(json.loads, lines)}


@pytest.mark.slow
def test_a_killed_night_goes_on(runs):
    """The script itself checks that the matrix ends up with every record."""
    half, num_shards = runs["half"], NUM_FILES * SHARDS_PER_FILE
    assert half["shards"] == num_shards
    footers, records = NUM_FILES // 2, num_shards // 2
    assert footers + records <= half["requests"]["GET"] < footers + records + 10, "each is read once"


@pytest.mark.slow
def test_a_night_that_is_done_is_listed_and_not_read(runs):
    done = runs["all"]["requests"]
    assert done["GET"] < 10
    assert done["LIST"] < 30
    assert done["HEAD"] == 1
    assert "blocks" not in runs["all"]["phases_s"], "nothing was handed to the cluster"


def recorded(name):
    return [json.loads(line) for line in (BENCHMARKS / f"{name}.jsonl").read_text().splitlines()]


def test_the_plan_multiplies_what_was_recorded():
    """Seconds and bytes of a shard; `tests/test_docs.py` compares the table of runs."""
    ray, read = recorded("night_cluster")[-1], recorded("read")[-1]
    kept = (ray["peak_mb"] - ray["before_mb"]) * 2**20 / ray["shards"]
    assert 55e3 < kept < 65e3
    assert "keeps 60 kB" in README
    assert f"takes {ray['driver_cpu_ms_per_shard']:.0f} ms" in README
    assert f"reads {read['tokens_per_s']:,} tokens/s" in README
    row = next(line for line in README.splitlines() if line.startswith("| Ray Data's pace"))
    hours = [float(cell.removesuffix(" h")) for cell in row.strip(" |").split(" | ")[1:]]
    assert hours == [round(shards / ray["shards_per_s"] / 3600, 1) for shards in (10**6, 250_000, 70_000)]
