"""`csrm strictness` as a user runs it."""

import json

import pytest
from click.testing import CliRunner

from csrm.strictness import load_pairs
from jobs.cli import cli

LADDERS = """
category: kill
aliases: [killing]
subcategories: [bank, weather]
---
category: pin
subcategories: [hello]
"""


@pytest.fixture
def run(tmp_path, model_folder):
    (tmp_path / "ladders.yaml").write_text(LADDERS)
    with (tmp_path / "rows.jsonl").open("w") as lines:
        for n in range(40):
            violated = [True, False, None][n % 4 % 3]  # 0 and 3 violate, 1 keeps, 2 is unknown
            clause = {"category": ["Killing", "weather"][n % 10 == 0], "guideline": "kill", "violated": violated}
            messages = [{"role": "user", "content": f"kill {n % 20 // 10} {n % 10}"}]
            lines.write(json.dumps({"id": n, "source": "s", "messages": messages, "clauses": [clause]}) + "\n")

    def call(*arguments, data=tmp_path / "rows.jsonl", ladders=tmp_path / "ladders.yaml"):
        options = ["--data", str(data), "--ladders", str(ladders), "--model", str(model_folder)]
        return CliRunner().invoke(cli, ["strictness", *options, "--output", str(tmp_path / "pairs.json"), *arguments])

    return call


def test_distinct_violating_conversations_are_matched_by_category(run, tmp_path):
    result = run("--alpha", "0.5", "--bound", "0.1")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "pairs.json").read_text())
    assert [entry["category"] for entry in document["ladders"]] == ["kill", "pin"]
    # Of 20 distinct texts half violate; those numbered 0 and 10 are filed under weather.
    assert [entry["num_conversations"] for entry in document["ladders"]] == [9, 0]
    assert document["alpha"] == 0.5
    saved = load_pairs(tmp_path / "pairs.json")
    assert saved.judge == "tiny"
    assert len(saved.pairs) == sum(pair["kept"] for entry in document["ladders"] for pair in entry["pairs"])
    assert f"{len(saved.pairs)} pairs kept · judge tiny" in result.stdout
    pin = next(line for line in result.stdout.splitlines() if line.startswith("pin"))
    assert pin.split() == ["pin", "0", "0", "0", "0", "-", "-", "-", "-"]


def test_unfiltered_keeps_every_pair(run, tmp_path):
    assert run("--unfiltered").exit_code == 0
    saved = load_pairs(tmp_path / "pairs.json")
    assert len(saved.pairs) == 3 + 1
    assert not saved.filtered


def test_a_run_is_a_function_of_its_seed(run, tmp_path):
    texts = []
    for seed in ("1", "1", "2"):
        assert run("--seed", seed, "--max-conversations", "4").exit_code == 0
        texts.append((tmp_path / "pairs.json").read_text())
    assert texts[0] == texts[1] != texts[2]
    assert json.loads(texts[0])["ladders"][0]["num_conversations"] == 4


def test_mistakes_end_in_one_line(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("category: A\nsubcategories: ['a, b']")
    for result, message in [
        (run(data="none.jsonl"), "none.jsonl: not readable"),
        (run(ladders=tmp_path / "bad.yaml"), "bad.yaml: A: sub-category"),
        (run("--alpha", "0"), "--alpha"),
        (run("--model", "nowhere"), "nowhere: no csrm.json"),
        (run("--output", str(tmp_path / "rows.jsonl/pairs.json")), "cannot be written"),
    ]:
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in result.output
