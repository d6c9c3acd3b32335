"""What a run found: totals over commit records, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from csrm.configurations import Configuration

__all__ = ["ConfigurationTotals", "Totals", "printable", "say", "show_totals", "sum_commits", "tame"]

NUM_WORST = 3


@dataclass(slots=True)
class ConfigurationTotals:
    """One column of the matrix in numbers."""

    num_scored: int = 0
    num_violations: int = 0
    sum_p_safe: float = 0.0
    worst: list[tuple[float, str]] = field(default_factory=list)
    """Lowest p_safe first, with record ids."""

    @property
    def violation_rate(self) -> float | None:
        """Share of scored rows that violate; None without any."""
        return self.num_violations / self.num_scored if self.num_scored else None

    @property
    def mean_p_safe(self) -> float | None:
        """Mean over scored rows; None without any."""
        return self.sum_p_safe / self.num_scored if self.num_scored else None


@dataclass(slots=True)
class Totals:
    """A matrix in numbers."""

    num_shards: int = 0
    num_records: int = 0
    num_rows: int = 0
    num_errors: int = 0
    num_tokens: int = 0
    num_cells: int = 0
    configurations: dict[str, ConfigurationTotals] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Share of rows without scores."""
        return self.num_errors / self.num_rows if self.num_rows else 0.0


def sum_commits(commits: Iterable[Mapping[str, Any]]) -> Totals:
    """Add up commit records; their order changes nothing but the last bits of sums."""
    totals = Totals()
    for commit in commits:
        totals.num_shards += 1
        totals.num_records += commit["num_records"]
        totals.num_rows += commit["num_rows"]
        totals.num_errors += commit["num_errors"]
        totals.num_tokens += commit["num_tokens"]
        for name, part in commit["summary"].items():
            total = totals.configurations.setdefault(name, ConfigurationTotals())
            total.num_scored += part["num_scored"]
            total.num_violations += part["num_violations"]
            total.sum_p_safe += part["sum_p_safe"]
            worst = [*total.worst, *((p_safe, record_id) for record_id, p_safe in part["worst"])]
            total.worst = sorted(worst)[:NUM_WORST]
            totals.num_cells += part["num_scored"]
    return totals


def show_totals(totals: Totals, configurations: Sequence[Configuration], console: Console) -> None:
    """Print one line per configuration, and its worst records."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("configuration", overflow="fold")
    for name in ("records", "violations", "rate", "mean p_safe"):
        table.add_column(name, justify="right")
    table.add_column("worst records (p_safe)", overflow="fold")
    for configuration in configurations:
        column = totals.configurations.get(configuration.id, ConfigurationTotals())
        table.add_row(
            Text(configuration.id),
            f"{column.num_scored:,}",
            f"{column.num_violations:,}",
            _or_dash(column.violation_rate, "{:.1%}"),
            _or_dash(column.mean_p_safe, "{:.3f}"),
            Text(", ".join(f"{printable(record_id)} ({p_safe:.3f})" for p_safe, record_id in column.worst)),
        )
    console.print(table)


def say(console: Console, text: str) -> None:
    """Print text as it is: unwrapped, without reading paths and ids as markup, and without obeying it."""
    console.print(tame(text), markup=False, highlight=False, soft_wrap=True, emoji=False)


def tame(text: str) -> str:
    """Return text without what a terminal would obey: escape sequences, text that runs backwards; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def printable(text: str, max_length: int = 80) -> str:
    """Return text that a terminal shows and does not obey, at most `max_length` characters of it."""
    shown = tame(text[: max_length + 1]).replace("\n", "�")
    return shown if len(shown) <= max_length else shown[: max_length - 1] + "…"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
