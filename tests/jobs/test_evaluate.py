"""`csrm evaluate` as a user runs it, on a tiny model and toy files of every shape."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from labelled_files import binary, judgement, preferences, single, write_lines

from jobs.cli import cli
from jobs.evaluation_report import markdown


def evaluate(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    policy = "1. Do not kill.\n2. Never ask for a pin."
    return {
        "judgement": write_lines(folder / "judgement.jsonl", judgement()),
        "single": write_lines(folder / "single.jsonl", single()),
        "binary": write_lines(folder / "binary.jsonl", binary()),
        "preferences": write_lines(folder / "preferences.jsonl", preferences()),
        "prompts": write_lines(folder / "prompts.jsonl", [{"prompt": "kill 1", "type": "homonyms"}] * 3),
        "dynabench": write_lines(
            folder / "dynabench.jsonl",
            [
                {"policy": policy, "transcript": f"User: hello\nAgent: {text}\nUser: a\nAgent: the", "label": label}
                for text, label in (("kill", "FAIL"), ("hello", "PASS"))
            ],
        ),
        "cosapien": write_lines(
            folder / "cosapien.jsonl",
            [
                {"prompt": "hello", "scenario": scenario, "response": text, "type": type, "label": label}
                for scenario, text, type, label in (
                    ("Game", "kill", "disallowed", "unsafe"),
                    ("bank", "hello", "allowed", "safe"),
                )
            ],
        ),
    }


@pytest.fixture(scope="module")
def everything(files, model_folder, policies, tmp_path_factory):
    """One run of all suites."""
    folder = tmp_path_factory.mktemp("report")
    result = evaluate(
        *("--model", model_folder, "--dtype", "float32", "--resamples", 20),
        *("--counterfactual", files["single"], "--own", f"{files['single']}@0.5", "--per-clause", files["judgement"]),
        *("--any-clause", files["judgement"], "--binary", files["binary"], "--preferences", files["preferences"]),
        *("--over-refusal", files["prompts"], "--cosapien", files["cosapien"], "--scenarios", policies),
        *("--dynabench", files["dynabench"], "--probe", files["judgement"], "--blind-data", files["single"]),
        *("--configuration", policies / "game.yaml", "--json", folder / "figures.jsonl"),
        *("--markdown", folder / "table.md"),
    )
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (folder / "figures.jsonl").read_text().splitlines()]
    return result, records, (folder / "table.md").read_text()


def test_every_suite_gives_a_record(everything):
    _, records, _ = everything
    assert [record["suite"] for record in records] == [
        "counterfactual, other domains",
        "counterfactual, same domain",
        "own clauses",
        "per clause",
        "any clause",
        "binary",
        "over-refusal",
        "scenarios",
        "whole policies",
        "preferences",
        "flip probe",
        "contradiction probe",
        "dilution probe",
        "clause order probe",
    ]
    by_suite = {record["suite"]: record for record in records}
    judged = by_suite["any clause"]
    assert judged["num_rows"] == 60
    for name in ("auroc", "auprc", "f1_violating", "f1_complying", "smece", "ece", "brier"):
        low, high = judged[f"{name}_95"]
        assert 0 <= low <= high <= 1
        assert 0 <= judged[name] <= 1
    assert 0 <= judged["auroc_blind"] <= 1
    assert judged["f1_violating_if_all_violate"] == pytest.approx(2 * 45 / (60 + 45), abs=1e-5)
    assert by_suite["binary"]["configuration"] == "game"
    assert by_suite["over-refusal"]["auroc"] is None  # one class alone
    assert by_suite["whole policies"]["num_turns"] == 4
    assert by_suite["clause order probe"]["max_change"] <= 1e-4
    assert {record["model"] for record in records} == {"tiny"}


def test_the_markdown_table_comes_from_the_json_alone(everything):
    _, records, text = everything
    assert text == markdown(records)
    # Figures as written in the table, each of which some record holds.
    known = {f"{value:.3f}".replace("0.", ".", 1) for record in records for value in numbers(record)}
    known |= {f"{value:.0e}" for record in records for value in numbers(record)} | {".500", "0.000"}
    tables = [line for line in text.splitlines() if line.startswith("|")]
    shown = re.findall(r"(?<![\w.-])-?\d*\.\d{3}(?!\d)|\de-\d\d", "\n".join(tables))
    assert len(shown) > 50
    assert set(shown) <= known


def numbers(value):
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, float) else []


def test_the_terminal_shows_each_suite_beside_its_baselines(everything):
    result, records, _ = everything
    assert result.stdout == ""
    for record in records:
        assert f"{record['file'].split('.')[0]} · {record['suite']}" in result.stderr
    assert "trivial" in result.stderr
    assert "fall: left out" in result.stderr


def test_json_lines_go_to_standard_output_without_a_file(files, model_folder):
    result = evaluate("--model", model_folder, "--own", files["single"], "--resamples", 0, "--limit", 20)
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    assert (record["num_rows"], record["limit"]) == (20, 20)
    assert "auroc_95" not in record


def test_split_chooses_rows(files, model_folder):
    result = evaluate("--model", model_folder, "--any-clause", files["judgement"], "--split", "eval", "--resamples", 0)
    record = json.loads(result.stdout)
    assert (record["num_rows"], record["split"]) == (30, "eval")


def test_the_same_seed_gives_the_same_line(files, model_folder):
    arguments = ("--model", model_folder, "--counterfactual", files["single"], "--resamples", 10, "--limit", 30)
    assert evaluate(*arguments).stdout == evaluate(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "nowhere: no csrm.json here"),
        (["--own", "none.jsonl"], "none.jsonl: not readable"),
        (["--own", "{single}@2"], "at least 0 and below 1"),
        (["--own", "{single}", "--split", "test"], "no row has split 'test'"),
        (["--own", "{binary}"], "no field 'clauses'"),
        (["--cosapien", "{cosapien}"], "--cosapien needs --scenarios"),
        (["--probe", "{single}"], "exactly one of several clauses"),
        (["--counterfactual", "{judgement}"], "no clause of another category in another domain"),
        (["--binary", "{binary}", "--configuration", "{policies}"], "holds 2 configurations"),
    ],
)
def test_mistakes_end_in_one_line(files, model_folder, policies, arguments, message):
    known = {"single": files["single"], "binary": files["binary"], "policies": policies} | files
    arguments = [argument.format(**known) for argument in arguments]
    result = evaluate(*(["--model", model_folder] if "--model" not in arguments else []), *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
