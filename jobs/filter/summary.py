"""What a filter did, in numbers that add up, and examples of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.summary import printable, say

__all__ = ["Example", "FilterTotals", "show_examples", "show_filter"]

_SHOWN_CHARACTERS = 400


class FilterTotals(NamedTuple):
    """Records, and what became of them."""

    num_records: int
    num_kept: int
    num_rejected: int
    num_errors: int
    failed: tuple[int, ...]
    """Of each condition: rejected records that fail it."""
    failed_alone: tuple[int, ...]
    """Those of them that fail no other."""

    @classmethod
    def of(cls, counts: Iterable[Sequence[int] | NDArray[np.int64]], num_conditions: int) -> FilterTotals:
        """Add up what `Judged.counts` says."""
        zero = np.zeros(3 + 2 * num_conditions, np.int64)
        kept, rejected, errors, *rest = sum((np.array(one) for one in counts), zero).tolist()
        failed, alone = rest[:num_conditions], rest[num_conditions:]
        return cls(kept + rejected + errors, kept, rejected, errors, tuple(failed), tuple(alone))

    def to_json(self, conditions: Sequence[str]) -> dict[str, Any]:
        """For programs."""
        told = zip(conditions, self.failed, self.failed_alone, strict=True)
        return {
            "records": self.num_records,
            "kept": self.num_kept,
            "rejected": self.num_rejected,
            "errors": self.num_errors,
            "conditions": [
                {"condition": text, "failed": failed, "failed_alone": alone} for text, failed, alone in told
            ],
        }


class Example(NamedTuple):
    """A record that would be kept or rejected."""

    source: str
    row: int
    record: str
    reason: tuple[str, ...] = ()
    """Conditions that it fails."""


def show_filter(totals: FilterTotals, conditions: Sequence[str], out: Console) -> None:
    """Print how many records each condition removed, and the sum."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("condition", overflow="fold")
    table.add_column("removed", justify="right")
    table.add_column("it alone", justify="right")
    for text, failed, alone in zip(conditions, totals.failed, totals.failed_alone, strict=True):
        table.add_row(Text(printable(text, _SHOWN_CHARACTERS)), f"{failed:,}", f"{alone:,}")
    out.print(table)


def sum_line(totals: FilterTotals) -> str:
    """The law of a filter, in numbers."""
    parts = f"{totals.num_kept:,} kept + {totals.num_rejected:,} rejected + {totals.num_errors:,} errors"
    share = f" ({totals.num_kept / totals.num_records:.1%} kept)" if totals.num_records else ""
    return f"{totals.num_records:,} records = {parts}{share}"


def show_examples(kept: Sequence[Example], rejected: Sequence[Example], out: Console) -> None:
    """Print records, each on one line."""
    for word, examples in (("kept", kept), ("rejected", rejected)):
        for one in examples:
            why = (
                f" · fails {'; '.join(printable(text, _SHOWN_CHARACTERS) for text in one.reason)}" if one.reason else ""
            )
            say(out, f"{word} {printable(one.source)}:{one.row}{why}")
            say(out, f"  {printable(one.record, _SHOWN_CHARACTERS)}")
