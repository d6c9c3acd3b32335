"""What of the input cannot be read: listed by file and rows, counted, and no reason to stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from csrm.errors import InputError

__all__ = ["Lost", "UnreadableError", "by_source", "num_lost_rows"]


class UnreadableError(InputError):
    """A file, or the rest of one, cannot be read; others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Records that nobody can read."""

    source: str
    """The file's path below the input's root."""
    row_start: int
    """The first record that is lost."""
    num_rows: int | None
    """How many; None where a file breaks off before that is known."""
    reason: str
    num_bytes: int = 0
    """Of the file that hold them, as far as that is known."""

    @property
    def rows(self) -> str:
        """For people."""
        if self.num_rows is None:
            return f"rows from {self.row_start:,}" if self.row_start else "all rows"
        return f"rows {self.row_start:,} to {self.row_start + self.num_rows - 1:,}"


def num_lost_rows(lost: Iterable[Lost], num_rows: int, num_bytes: int) -> int:
    """Rows that are lost; where a number is not known, as many as the bytes hold elsewhere, and one at least.

    Args:
        lost: what is.
        num_rows: of the files that can be read.
        num_bytes: of these files.
    """
    density = num_rows / num_bytes if num_bytes else 0.0
    return sum(max(1, round(one.num_bytes * density)) if one.num_rows is None else one.num_rows for one in lost)


def by_source(lost: Iterable[Lost]) -> Sequence[Lost]:
    """In order of files and rows."""
    return sorted(lost, key=lambda one: (one.source, one.row_start))
