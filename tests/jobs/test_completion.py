"""A real bash completes commands, options and files; other shells get their scripts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli import cli

# What readline does when the tab key is pressed.
PRESS_TAB = """
eval "$(csrm completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_csrm_completion csrm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def press_tab(tmp_path):
    program = Path(sys.executable).with_name("csrm")
    assert program.exists(), "the console script is not installed"

    def run(*words):
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", PRESS_TAB, "bash", *words],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        # bash without readline says so when options of completion are set
        assert [line for line in done.stderr.splitlines() if "compopt" not in line] == []
        return done.stdout.split()

    return run


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_and_subcommands(press_tab):
    assert press_tab("csrm", "rep") == ["report"]
    assert press_tab("csrm", "configurations", "") == ["diff", "lint", "show"]
    assert press_tab("csrm", "report", "--max-d") == ["--max-drift"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_CSRM_COMPLETE" in result.output
    assert "csrm" in result.output


def paths(group, above=()):
    import click

    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from paths(command, (*above, name))
        else:
            yield from ((*above, name, parameter.name, parameter) for parameter in command.params)


def test_files_are_completed_where_files_are_asked_for():
    import click

    asked = [
        entry
        for entry in paths(cli)
        if (entry[-1].metavar or "").rstrip(".").rstrip("]").startswith(("PATH", "DIR", "FILE"))
    ]
    assert len(asked) > 20
    for *name, parameter in asked:
        [item] = parameter.shell_complete(click.Context(cli), "some")
        assert item.type in ("file", "dir"), name
