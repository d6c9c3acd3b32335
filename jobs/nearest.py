"""What to try instead of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["nearest"]

SHOWN = 20


def nearest(name: str, known: Collection[str]) -> str:
    """The names that are most like one, as the end of a message; all of them where none is like it."""
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(map(repr, near))}?"
    some = ", ".join(sorted(known)[:SHOWN])
    return f"there are {some}" + (f" and {len(known) - SHOWN:,} more" if len(known) > SHOWN else "")
