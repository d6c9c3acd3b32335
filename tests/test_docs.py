"""What the documents say is so: README blocks run, every command has help, figures come from recorded runs."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import csrm
from jobs.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = ROOT / "tests" / "benchmarks"


def commands(group=cli, path=("csrm",)):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value))
def test_every_command_and_option_has_help_and_an_example(path, command):
    result = CliRunner().invoke(cli, [*path[1:], "-h"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert " ".join(path) in result.output.split("Example")[1]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts[-1]} has no help"


@pytest.mark.parametrize("name", [" ".join(path) for path, _ in commands()])
def test_the_readme_names_every_command(name):
    assert name in README


def test_python_blocks_of_the_readme_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "p_safe" in capsys.readouterr().out


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200
    assert "@@" not in README


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == csrm.__version__
    assert csrm.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_dependencies_are_pinned_and_justified():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    extras = [package for group in project["optional-dependencies"].values() for package in group]
    names = [re.match(r"[\w.-]+", package)[0].lower() for package in [*project["dependencies"], *extras]]
    assert {name for name in names if name not in pinned} == set()
    for package in project["dependencies"]:
        assert re.match(r"[\w.-]+", package)[0] in README


def test_the_library_knows_neither_ray_nor_click():
    for path in (ROOT / "csrm").rglob("*.py"):
        assert not re.search(r"^\s*(?:import|from) (?:ray|click|jobs)\b", path.read_text(), re.M), path


def test_everything_public_is_there():
    assert sorted(csrm.__all__) == sorted(set(csrm.__all__))
    for name in csrm.__all__:
        assert getattr(csrm, name).__doc__


@pytest.mark.parametrize(
    ("table", "document"),
    [
        ("bench_table", "README.md"),
        ("evaluation_table", "README.md"),
        ("rules_table", "README.md"),
        ("ablation_table", "tests/benchmarks/README.md"),
        ("interaction_table", "tests/benchmarks/README.md"),
        ("ladder_table", "tests/benchmarks/README.md"),
        ("night_table", "cluster/README.md"),
    ],
)
def test_tables_come_from_recorded_runs(table, document):
    """`tests/benchmarks/tables.py` prints the tables of the documents."""
    lines = runpy.run_path(str(BENCHMARKS / "tables.py"))[table]().splitlines()
    shown = (ROOT / document).read_text(encoding="utf-8").splitlines()
    assert len(lines) > 3
    assert [line for line in lines if line not in shown] == []


def test_pictures_are_there():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_the_recorded_evaluation_is_of_the_shipped_model():
    records = [json.loads(line) for line in (BENCHMARKS / "evaluation.jsonl").read_text().splitlines()]
    model = csrm.CSRM.from_pretrained()
    assert {record["model_fingerprint"] for record in records} == {model.fingerprint[:16]}
    assert {record["calibration_fingerprint"] for record in records} == {model.calibration.fingerprint[:16]}


@pytest.mark.parametrize("key", ["pairwise_accuracy", "fall_left_out", "fall_allowed", "auroc_50", "max_change"])
def test_obedience_and_preferences_are_told_as_recorded(key):
    records = [json.loads(line) for line in (BENCHMARKS / "evaluation.jsonl").read_text().splitlines()]
    values = [record[key] for record in records if key in record]
    assert values
    for value in values:
        shown = f"{value:.3f}".removeprefix("0") if value >= 0.0005 or value == 0 else f"{value:.0e}"
        assert re.search(rf"(?<![\d.]){re.escape(shown)}(?!\d)", README), (key, shown)
