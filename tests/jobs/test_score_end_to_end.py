"""`csrm score` on Ray: a folder of every format and every kind of bad input becomes one right matrix."""

import gzip
import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import csrm
from csrm.conversations import parse_record
from jobs import run as run_module
from jobs.cli import cli
from jobs.demo import SAMPLE_CONFIGURATIONS, SAMPLE_CONVERSATIONS

# Ray Data warns of its own old settings whenever a dataset is made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

NUM_IDENTICAL = 10_000
ROUNDING = 1e-2
"""Of bfloat16, which "auto" takes where the hardware has it, between batches of different shapes."""
GOOD = [{"id": f"g{n}", "text": f"hello bank {n}", "lang": "en" if n % 2 else "he", "n": n} for n in range(25)]
CHAT = {
    "id": "chat",
    "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ""}],
}
PAIR = {"id": "pair", "prompt": "hello", "chosen": "the weather", "rejected": "kill", "lang": "he"}
EXTREME = [
    {"id": "emoji", "text": "😀 kill 👩‍👩‍👧"},
    {"id": "null", "text": "kill\u0000the bank"},
    {"id": "rtl", "text": "שלום \u202e bank", "lang": "he"},
    {"id": "long", "text": "kill bank " * 20_000},
    CHAT,
    PAIR,
]


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def write_corpus(folder):
    """Several formats and partitions; 2 of the records cannot be read."""
    files = {
        "date=2026-11-20/a.jsonl": lines(*GOOD).rstrip(b"\n"),
        "date=2026-11-20/b.jsonl.gz": gzip.compress(lines(*[{"id": "same", "text": "pin pin"}] * NUM_IDENTICAL)),
        "date=2026-11-21/c.ndjson": lines(*EXTREME) + b'\n{"id": "cut", "text": "in ha\n' + lines({"id": "none"}),
        "date=2026-11-21/d.json.zst": pa.compress(lines(*GOOD), codec="zstd", asbytes=True),
        "date=2026-11-21/empty.jsonl": b"",
        "_SUCCESS": b"",
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pq.write_table(pa.Table.from_pylist(GOOD), folder / "date=2026-11-21/e.parquet", row_group_size=10)


NUM_RECORDS = 3 * len(GOOD) + NUM_IDENTICAL + len(EXTREME) + 2
NUM_ROWS = NUM_RECORDS + 1  # the pair has two


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "out"


@pytest.fixture(scope="module")
def run(running_cluster, corpus, output, policies, model_folder):
    """Run the command; the same one every time. Its input is planned in Ray tasks, as a large one is."""

    def score():
        arguments = ["-c", str(policies), "-o", str(output), "-m", str(model_folder), "--id-column", "id"]
        arguments += ["--keep-columns", "n", "--partition-by", "lang", "--shard-rows", "4000", "--explain"]
        return CliRunner().invoke(cli, ["score", str(corpus), *arguments])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "PLAN_ALONE_FILES", 0)
        yield score


@pytest.fixture(scope="module")
def first_run(run):
    result = run()
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def matrix(first_run, output):
    files = f"read_parquet('{output}/matrix/**/*.parquet', hive_types_autocast=false)"
    return duckdb.sql(f"SELECT * FROM {files} ORDER BY source, row").to_arrow_table()


def test_every_record_has_its_row_and_only_that(matrix):
    assert matrix.num_rows == NUM_ROWS
    keys = list(zip(matrix["source"].to_pylist(), matrix["row"].to_pylist(), strict=True))
    assert len(set(keys)) == NUM_RECORDS
    errors = {row["record_id"]: row["error"] for row in matrix.to_pylist() if row["error"]}
    assert set(errors) == {"date=2026-11-21/c.ndjson:6", "none"}
    assert "malformed JSON" in errors["date=2026-11-21/c.ndjson:6"]
    assert {"pair/chosen", "pair/rejected"} < set(matrix["record_id"].to_pylist())


def test_scores_are_those_of_the_library(matrix, model_folder, policies):
    model = csrm.CSRM.from_pretrained(model_folder)
    by_id = {row["record_id"]: row for row in matrix.to_pylist()}
    records = [*GOOD, *EXTREME]
    parsed = [(record["id"], suffix, talk) for record in records for suffix, talk in parse_record(record)]
    expected = model.score([talk for _, _, talk in parsed], csrm.load_configurations(policies), explain=True).to_arrow()
    for (name, suffix, _), row in zip(parsed, expected.to_pylist(), strict=True):
        found = by_id[f"{name}/{suffix}" if suffix else name]
        for column in ("reward", "p_safe"):
            assert found[column] == pytest.approx(row[column], abs=ROUNDING), name
        assert found["worst_clause"] == row["worst_clause"]
    assert expected["reward"].combine_chunks().field("game").to_numpy().std() > 10 * ROUNDING, "rows could be mixed up"


def test_identical_records_have_identical_scores(matrix):
    same = matrix.filter(pa.compute.equal(matrix["record_id"], "same"))
    assert same.num_rows == NUM_IDENTICAL
    rewards = np.array([list(row.values()) for row in same["reward"].to_pylist()])
    assert np.ptp(rewards, axis=0).max() < ROUNDING


def test_a_long_record_is_read_in_windows_and_not_cut(matrix):
    [row] = matrix.filter(pa.compute.equal(matrix["record_id"], "long")).to_pylist()
    assert row["num_windows"] > 500
    assert row["num_tokens"] > 40_000
    assert row["error"] is None


def test_readers_find_partitions_kept_columns_and_single_fields(first_run, matrix, output):
    by_id = {row["record_id"]: row for row in matrix.to_pylist()}
    assert (by_id["rtl"]["date"], by_id["rtl"]["lang"], by_id["rtl"]["n"]) == ("2026-11-21", "he", None)
    assert (by_id["g3"]["lang"], by_id["g3"]["n"]) == ("en", "3")
    [(scored, lowest)] = duckdb.sql(
        f"SELECT count(p_safe.game), min(p_safe.game) FROM '{output}/matrix/**/*.parquet' WHERE lang = 'he'"
    ).fetchall()
    he = [row["p_safe"]["game"] for row in matrix.to_pylist() if row["lang"] == "he" and not row["error"]]
    assert (scored, lowest) == (len(he), min(he))


def test_summary_and_manifest_agree_with_the_rows(first_run, matrix, output, model_folder, policies):
    manifest = json.loads((output / "manifest.json").read_text())
    num_cells = 2 * (NUM_ROWS - 2)
    assert manifest["counts"] | {"seconds": 0} == {
        "records": NUM_RECORDS,
        "rows": NUM_ROWS,
        "cells": num_cells,
        "errors": 2,
        "tokens": sum(matrix["num_tokens"].to_pylist()),
        "seconds": 0,
    }
    configurations = csrm.load_configurations(policies)
    assert [c["fingerprint"] for c in manifest["configurations"]] == [c.fingerprint for c in configurations]
    assert manifest["model"]["fingerprint"] == json.loads((model_folder / "csrm.json").read_text())["fingerprint"]
    assert sorted(path.stem for path in (output / "_csrm/commits").iterdir()) == manifest["shards"]
    assert {"csrm", "ray", "torch", "transformers", "pyarrow", "python"} == set(manifest["versions"])
    for configuration in configurations:
        p_safe = [row[configuration.id] for row in matrix["p_safe"].to_pylist() if row[configuration.id] is not None]
        shown = next(line for line in first_run.stdout.splitlines() if line.startswith(configuration.id))
        num_violations = sum(p < configuration.threshold for p in p_safe)
        assert shown.split()[1:3] == [f"{len(p_safe):,}", f"{num_violations:,}"]
    assert f"{NUM_RECORDS:,} records · {num_cells:,} cells · 2 errors · " in first_run.stdout


def test_rerun_reads_nothing_and_says_the_same(first_run, run, output, monkeypatch):
    from jobs import pipeline

    monkeypatch.setattr(pipeline, "score_shards", None)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    result = run()
    assert result.exit_code == 0, result.output
    assert "everything was scored already" in result.stderr
    assert result.stdout.splitlines()[:-1] == first_run.stdout.splitlines()[:-1]
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}


def test_damage_is_mended_to_the_same_bytes(first_run, run, output):
    before = {path: path.read_bytes() for path in (output / "matrix").rglob("*.parquet")}
    times = {path: path.stat().st_mtime_ns for path in before}
    lost_file = next(path for path in before if path.name.startswith("a-"))
    lost_file.unlink()
    [lost_commit] = (output / "_csrm/commits").glob("e-*.json")
    lost_commit.unlink()
    leftover = lost_file.with_name("killed-0000000000-0123456789abcdef.parquet")
    leftover.write_bytes(b"half a fi")
    assert run().exit_code == 0
    after = {path: path.read_bytes() for path in (output / "matrix").rglob("*.parquet")}
    assert after == before
    redone = {path.name[0] for path in after if path.stat().st_mtime_ns != times[path]}
    assert redone == {"a", "e"}


@pytest.mark.usefixtures("running_cluster")
def test_demo_scores_the_sample_with_the_embedded_model(tmp_path):
    result = CliRunner().invoke(cli, ["demo", "--output", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output + str(result.exception)
    samples = [json.loads(line) for line in SAMPLE_CONVERSATIONS.read_text().splitlines()]
    configurations = csrm.load_configurations(SAMPLE_CONFIGURATIONS)
    num_cells = len(samples) * len(configurations)
    assert f"{len(samples)} records · {num_cells} cells · 0 errors" in result.stdout
    model = csrm.CSRM.from_pretrained()
    expected = model.score([sample["messages"] for sample in samples], configurations)
    found = duckdb.sql(f"SELECT record_id, p_safe FROM '{tmp_path}/demo/matrix/*.parquet' ORDER BY row").fetchall()
    assert [record_id for record_id, _ in found] == [sample["id"] for sample in samples]
    p_safe = np.array([[row[c.id] for c in configurations] for _, row in found])
    np.testing.assert_allclose(p_safe, expected.p_safe, atol=2 * ROUNDING)
