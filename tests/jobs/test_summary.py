"""Totals are sums over shards, however a matrix is cut; what is shown cannot command the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from csrm import Clause, Configuration
from jobs.progress import ProgressLine, clock_time
from jobs.summary import printable, show_totals, sum_commits

GAME = Configuration(id="game", clauses=(Clause(category="c", guideline="g"),))


def commit_of(rows):
    scored = [(p, f"id{p}") for p in rows if p is not None]
    column = {
        "num_scored": len(scored),
        "num_violations": sum(p < 0.5 for p, _ in scored),
        "sum_p_safe": sum(p for p, _ in scored),
        "worst": [[name, p] for p, name in sorted(scored)[:3]],
    }
    return {
        "num_records": len(rows),
        "num_rows": len(rows),
        "num_errors": rows.count(None),
        "num_tokens": 10 * len(scored),
        "summary": {"game": column},
    }


ROWS = st.lists(st.none() | st.floats(0, 1, width=16))


@given(st.lists(ROWS, max_size=4))
def test_totals_do_not_depend_on_the_cut(shards):
    parts = sum_commits(map(commit_of, shards))
    whole = sum_commits([commit_of([row for rows in shards for row in rows])])
    assert (parts.num_records, parts.num_cells, parts.num_errors) == (
        whole.num_records,
        whole.num_cells,
        whole.num_errors,
    )
    if shards:
        one, other = parts.configurations["game"], whole.configurations["game"]
        assert (one.num_violations, one.worst) == (other.num_violations, other.worst)
        assert one.sum_p_safe == pytest.approx(other.sum_p_safe)


def test_table_shows_what_was_found():
    out = Console(file=io.StringIO(), width=120)
    show_totals(sum_commits([commit_of([0.25, 0.75, None, 0.0])]), [GAME], out)
    words = " ".join(out.file.getvalue().splitlines()[1].split())
    assert words == "game 3 2 66.7% 0.333 id0.0 (0.000), id0.25 (0.250), id0.75 (0.750)"


def test_a_matrix_without_scores_has_no_rates():
    out = Console(file=io.StringIO(), width=100)
    show_totals(sum_commits([commit_of([None])]), [GAME], out)
    assert out.file.getvalue().splitlines()[1].split() == ["game", "0", "0", "-", "-"]


def test_ids_cannot_command_the_terminal():
    assert printable("\x1b[31mred\x1b[0m\u202e\n") == "�[31mred�[0m��"
    assert printable("x" * 100) == "x" * 79 + "…"
    out = Console(file=io.StringIO(), width=100)
    commit = commit_of([0.5])
    commit["summary"]["game"]["worst"] = [["[red]\x1b]0;title\x07", 0.5]]
    show_totals(sum_commits([commit]), [GAME], out)
    assert "[red]�]0;title� (0.500)" in out.file.getvalue()


def test_progress_counts_from_the_first_shard_that_was_scored():
    now = [100.0]
    err = Console(file=io.StringIO(), width=100)
    progress = ProgressLine(err, 80, clock=lambda: now[0])
    with progress:
        now[0] = 130.0  # thirty seconds of loading
        progress.add(commit_of([0.5] * 20), started=120.0, scored=["game"])
        assert progress.line() == "20/80 records · 2 records/s · 2 cells/s · 0:30 to go"
        now[0] = 150.0
        progress.add(commit_of([0.5] * 40), started=119.0, scored=["game"])
        assert progress.line() == "60/80 records · 2 records/s · 2 cells/s · 0:10 to go"
    assert err.file.getvalue().splitlines() == [
        "20/80 records · 2 records/s · 2 cells/s · 0:30 to go",
        "60/80 records · 2 records/s · 2 cells/s · 0:10 to go",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3661, "1:01:01")])
def test_durations(seconds, text):
    assert clock_time(seconds) == text
