"""What strangers name reaches a terminal as text: neither escape sequences in it nor rich's markup are obeyed."""

import io

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from csrm import Clause, Configuration
from csrm.errors import InputError
from jobs import score as score_command
from jobs.cli import cli
from jobs.losses import Lost
from jobs.options import ScoreOptions
from jobs.progress import ProgressLine
from jobs.run import _judge_losses
from jobs.shards import Plan
from jobs.summary import ConfigurationTotals, Totals, printable, say, show_totals, tame

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]a[/red] :skull: \u202eb\rc\x9b31m"
SHOWN = "�[2J�]0;owned�[red]a[/red] :skull: �b�c�31m"


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200, legacy_windows=False)


def told(console):
    return console.file.getvalue()


@given(st.text())
def test_nothing_unprintable_is_left_but_line_breaks(text):
    assert all(character.isprintable() or character == "\n" for character in tame(text))
    assert len(tame(text)) == len(text)
    assert tame(text) == text or any(not c.isprintable() for c in text)
    assert printable(text, 10**6).isprintable()


def test_a_line_is_said_as_it_is_spelled():
    console = terminal()
    say(console, HOSTILE)
    assert told(console) == f"{SHOWN}\n"


def test_record_ids_in_the_table_are_spelled_out():
    console = terminal()
    configuration = Configuration(id="bank", title=HOSTILE, clauses=(Clause(category="a", guideline="b"),))
    totals = Totals(configurations={"bank": ConfigurationTotals(1, 1, 0.1, [(0.1, HOSTILE)])})
    show_totals(totals, [configuration], console)
    assert f"{SHOWN} (0.100)" in told(console)
    assert "\x1b" not in told(console).replace("\x1b[1m", "").replace("\x1b[0m", "")  # the table's own header


def test_what_was_lost_is_spelled_out():
    console = terminal()
    lost = [Lost(source=f"{HOSTILE}.jsonl", row_start=0, num_rows=1, reason=HOSTILE)]
    options = ScoreOptions(input="i", configurations="c", output="o")
    _judge_losses(Totals(), lost, Plan([], [], lost, {}), options, console)
    assert f"lost: rows 0 to 0 of {SHOWN}.jsonl: {SHOWN}\n" in told(console)


def test_warnings_are_spelled_out():
    console = terminal()
    ProgressLine(console, 1).warn([HOSTILE])
    assert told(console) == f"warning: {SHOWN}\n"


def test_errors_are_one_line_that_is_spelled_out(monkeypatch):
    def fail(*_, **__):
        raise InputError(f"{HOSTILE}\nsecond line")

    monkeypatch.setattr(score_command, "execute", fail)
    result = CliRunner().invoke(cli, ["score", "a", "-c", "b", "-o", "c"])
    assert result.exit_code == 2
    assert result.output == f"Error: {SHOWN}�second line\n"


@pytest.mark.parametrize("arguments", [["score", "a", f"--{HOSTILE}"], [HOSTILE]])
def test_words_of_a_command_line_are_spelled_out(arguments):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(result.output)
