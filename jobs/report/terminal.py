"""A report as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.report.findings import Change, Findings, Rate
from jobs.summary import printable, say

__all__ = ["show"]

SHOWN_PAIRS = 3
SHOWN_REASONS = 3
NONE = "(none)"
"""Stands for an empty value."""


def show(findings: Findings, console: Console) -> None:
    """Print a line per configuration, what is violated together, and why rows have no scores."""
    console.print(_table(findings))
    if any(column.worst_partitions for column in findings.columns):
        console.print()
        console.print(_worst_partitions(findings))
        console.print()
    for line in _lines(findings):
        say(console, line)


def _table(findings: Findings) -> Table:
    has_changes = any(column.change for column in findings.columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("configuration", no_wrap=True)
    for name in ("records", "violations", "95 %", "mean p_safe", *(("change", "drift") if has_changes else ())):
        table.add_column(name, justify="right")
    for column in findings.columns:
        low, high = column.rate.interval
        table.add_row(
            Text(column.id),
            f"{column.rate.total:,}",
            share(column.rate),
            f"{low:.1%}–{high:.1%}" if column.rate.total else "-",
            "-" if column.mean_p_safe is None else f"{column.mean_p_safe:.3f}",
            *(_change(column.rate, column.change) if has_changes else ()),
        )
    return table


def share(rate: Rate) -> str:
    """A rate in percent."""
    return "-" if rate.value is None else f"{rate.value:.1%}"


def change_in_points(rate: Rate, before: Rate) -> str:
    """The difference of two rates in percentage points."""
    return "-" if rate.value is None or before.value is None else f"{100 * (rate.value - before.value):+.1f} pp"


def _change(rate: Rate, change: Change | None) -> tuple[str, str]:
    if change is None:
        return "new", "-"
    sign = " *" if change.is_significant else ""
    return f"{change_in_points(rate, change.rate)}{sign}", "-" if change.drift is None else f"{change.drift:.3f}"


def _worst_partitions(findings: Findings) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("configuration", no_wrap=True)
    table.add_column("worst partitions", overflow="fold")
    for column in findings.columns:
        parts = [
            f"{printable(name, 40)}={printable(value or NONE, 40)} ({share(rate)})"
            for name, value, rate in column.worst_partitions
        ]
        if parts:
            table.add_row(Text(column.id), Text(", ".join(parts)))
    return table


def _lines(findings: Findings) -> Iterator[str]:
    for column in findings.columns:
        if column.num_unscored:
            yield f"{column.id}: {column.num_unscored:,} rows were never scored under it; run csrm score with it"
        if column.num_versions > 1:
            yield f"{column.id}: scored under {column.num_versions} texts or models; run csrm score on all files"
    changed = [column for column in findings.columns if column.change]
    if changed:
        yield "* differs from the baseline at 5 %, adjusted for the number of configurations"
    for column in changed:
        if column.change and column.change.notes:
            yield f"{column.id}: {', '.join(column.change.notes)} since the baseline"
    yield from _together(findings)
    for reason, count in findings.reasons[:SHOWN_REASONS]:
        yield f"{count:,} rows without scores: {printable(reason, 160)}"
    if len(findings.reasons) > SHOWN_REASONS:
        yield f"rows without scores for {len(findings.reasons) - SHOWN_REASONS:,} further reasons"
    if findings.num_lost:
        yield f"about {findings.num_lost:,} rows of the input could not be read; the manifest lists them"
    yield (
        f"{findings.num_rows:,} rows · {findings.num_cells:,} cells · {findings.num_violating:,} rows violate something"
        f" · {findings.num_errors:,} errors"
    )


def _together(findings: Findings) -> Iterator[str]:
    """The pairs of configurations that are violated together most."""
    ids = [column.id for column in findings.columns]
    pairs = [
        (count, ids[first], ids[second], findings.co_violations[first][first], findings.co_violations[second][second])
        for first, counts in enumerate(findings.co_violations)
        for second, count in enumerate(counts[:first])
        if count
    ]
    for count, first, second, num_first, num_second in sorted(pairs, reverse=True)[:SHOWN_PAIRS]:
        yield (
            f"{second} and {first}: {count:,} rows violate both, {count / num_second:.0%} and {count / num_first:.0%} "
            "of their violations"
        )
