"""`csrm bench` as a user runs it, on a tiny backbone."""

from __future__ import annotations

import json

from click.testing import CliRunner

from jobs.cli import cli


def test_bench_checks_itself_and_prints_one_json_line(model_folder):
    arguments = ["--num-records", "2", "--conversation-tokens", "24", "--clause-tokens", "8", "--clauses", "2"]
    result = CliRunner().invoke(
        cli, ["bench", "--model", str(model_folder), *arguments, "--configurations", "1,3", "--repeats", "1"]
    )
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert [row["num_configurations"] for row in report["rows"]] == [1, 3]
    assert report["max_difference_to_reference"] < 1e-5
    assert all(row["engine_cells_per_s"] > 0 and row["pairwise_cells_per_s"] > 0 for row in report["rows"])


def test_mistakes_end_in_one_line():
    result = CliRunner().invoke(cli, ["bench", "--configurations", "a"])
    assert result.exit_code == 2
    assert "write numbers with commas" in result.output
    assert len(result.stderr.strip().splitlines()) == 1
