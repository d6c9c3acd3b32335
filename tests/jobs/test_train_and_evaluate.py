"""`csrm train`, `csrm evaluate` and `csrm bench` as a user runs them, on a tiny backbone and toy rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_model

from csrm import CSRM
from jobs.cli import cli


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two domains of two rules; a row violates its rule iff it says the rule's word."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    with path.open("w") as lines:
        for n in range(160):
            name, violated = f"w{1 + n % 4}", bool((n // 4) % 2)
            text = " ".join([f"w{m}" for m in rng.integers(50, 60, 4)] + ([name] if violated else []))
            clause = {"category": f"w{100 + n % 4}", "guideline": name, "violated": violated}
            row = {"id": n, "source": f"s{n % 2}", "messages": [{"role": "user", "content": text}], "clauses": [clause]}
            lines.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    # A checkpoint to start from: a bare tiny backbone reads fewer tokens than the default layout.
    start = tmp_path_factory.mktemp("start")
    tiny_model(max_conversation_tokens=120, max_clause_tokens=120).save_pretrained(start)
    arguments = ["train", "--data", f"{rows}@0.25", "--backbone", str(start), "--output", str(folder)]
    result = CliRunner().invoke(cli, [*arguments, "--steps", "4", "--batch-rows", "8", "--save-every", "2"])
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_train_writes_a_calibrated_model_that_loads(trained):
    folder, output = trained
    model = CSRM.from_pretrained(folder)
    assert "4 steps" in output
    assert model.calibration.scale != 1.0
    assert model.facts["data"][0]["file"] == "rows.jsonl"
    assert model.facts["data"][0]["held_out"] > 0
    losses = [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


def test_evaluate_prints_a_json_line_per_suite(trained, rows, tmp_path):
    folder, _ = trained
    binary = tmp_path / "binary.jsonl"
    binary.write_text(
        "".join(
            json.dumps({"id": n, "messages": [{"role": "user", "content": f"w{n}"}], "harmful": bool(n % 2)}) + "\n"
            for n in range(6)
        )
    )
    result = CliRunner().invoke(
        cli,
        f"evaluate --model {folder} --counterfactual {rows} --own {rows}@0.25 --per-clause {rows} "
        f"--blind-data {rows} --binary {binary}",
    )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [line["suite"] for line in lines] == [
        "counterfactual, other domains",
        "counterfactual, same domain",
        "own clauses",
        "per clause",
        "binary",
    ]
    assert 0 <= lines[0]["auroc"] <= 1
    assert 0 <= lines[0]["auroc_blind"] <= 1


def test_bench_checks_itself_and_prints_one_json_line(trained):
    folder, _ = trained
    arguments = ["--num-records", "2", "--conversation-tokens", "24", "--clause-tokens", "8", "--clauses", "2"]
    result = CliRunner().invoke(
        cli, ["bench", "--model", str(folder), *arguments, "--configurations", "1,3", "--repeats", "1"]
    )
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert [row["num_configurations"] for row in report["rows"]] == [1, 3]
    assert report["max_difference_to_reference"] < 1e-5
    assert all(row["engine_cells_per_s"] > 0 and row["pairwise_cells_per_s"] > 0 for row in report["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "no.jsonl", "--backbone", "x", "--output", "y"], "no.jsonl: not readable"),
        (["train", "--data", "no.jsonl@2", "--backbone", "x", "--output", "y"], "at least 0 and below 1"),
        (["train", "--data", "no.jsonl@x", "--backbone", "x", "--output", "y"], "after @ comes a share"),
        (["evaluate", "--model", "nowhere"], "nowhere: no csrm.json here"),
        (["bench", "--configurations", "a"], "write numbers with commas"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
