"""`csrm configurations`: lint, show and diff, as people and as programs read them."""

import json
import shlex
import shutil

import pytest
from click.testing import CliRunner

from jobs.cli import cli
from jobs.demo import SAMPLE_CONFIGURATIONS

OLD = """
id: bank
clauses:
- {category: insults, guideline: do not insult}
- {category: pins, guideline: ask for no pin}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text(OLD.replace("ask for no pin", "ask for no pin and no code") + "threshold: 0.7\n")

    def command(*arguments):
        return CliRunner().invoke(cli, ["configurations", *[str(argument) for argument in arguments]])

    return command


def test_the_sample_is_clean(run):
    result = run("lint", SAMPLE_CONFIGURATIONS)
    assert result.exit_code == 0, result.output
    assert result.output == "5 configurations · 0 errors · 0 warnings\n"


def test_errors_end_with_1_and_warnings_only_where_asked(run, tmp_path):
    (tmp_path / "twice.yaml").write_text("id: shop\nclauses: [never lie, Never lie]")
    assert run("lint", tmp_path / "twice.yaml").exit_code == 0
    result = run("lint", tmp_path / "twice.yaml", "--strict")
    assert result.exit_code == 1
    assert f"warning: {tmp_path}/twice.yaml: shop: clause 2 repeats an earlier one; drop it" in result.output
    result = run("lint", tmp_path, "--json")
    assert result.exit_code == 1
    assert {finding["level"] for finding in json.loads(result.output)} == {"error", "warning"}


def test_the_same_rule_in_other_words_is_found_by_the_model(run, tmp_path):
    (tmp_path / "alike.yaml").write_text(
        "id: shop\nclauses:\n"
        "- {category: Harassment, guideline: Never engage in any form of harassment.}\n"
        "- {category: Harassment, guideline: Do not engage in any form of harassment.}\n"
        "- {category: Prices, guideline: Never promise a discount.}\n"
    )
    result = run("lint", tmp_path / "alike.yaml")
    assert "clauses 1 and 2 may say the same thing" in result.output
    assert "1 warnings" in result.output


def test_show_has_every_clause_and_its_tokens(run):
    result = run("show", SAMPLE_CONFIGURATIONS / "children_app.md")
    assert result.output.startswith("children_app: ")
    assert "Never ask a child to keep a secret" in result.output
    [shown] = json.loads(run("show", SAMPLE_CONFIGURATIONS / "children_app.md", "--json").output)
    assert shown["num_tokens"] == sum(clause["num_tokens"] for clause in shown["clauses"]) > 100


def test_diff_says_what_would_be_scored_anew(run, tmp_path):
    result = run("diff", tmp_path / "old.yaml", tmp_path / "new.yaml")
    assert result.output.splitlines() == [
        "bank: changed",
        "  threshold: 0.5 → 0.7",
        "  ~ pins: ask for no pin",
        "    pins: ask for no pin and no code",
        "columns that csrm score would score anew: bank",
    ]
    [found] = json.loads(run("diff", tmp_path / "old.yaml", tmp_path / "new.yaml", "--json").output)
    assert (found["status"], found["is_scored_anew"]) == ("changed", True)
    assert run("diff", tmp_path / "old.yaml", tmp_path / "old.yaml").output.endswith("anew: none\n")


def test_a_mistake_is_one_line(run, tmp_path):
    result = run("show", tmp_path / "nowhere.yaml")
    assert result.exit_code == 2
    assert result.output == f"Error: {tmp_path}/nowhere.yaml: no such file or folder; check the path\n"


@pytest.mark.parametrize("name", ["lint", "show", "diff"])
def test_the_examples_of_the_help_run(name, tmp_path, monkeypatch):
    for folder in ("policies", "policies-2025"):
        shutil.copytree(SAMPLE_CONFIGURATIONS, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    text = CliRunner().invoke(cli, ["configurations", name, "-h"]).output
    examples = [line.strip() for line in text.partition("Example")[2].splitlines() if line.strip().startswith("csrm ")]
    assert examples
    for line in examples:
        result = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        assert result.stdout
