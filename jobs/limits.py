"""How much of an input is held at once, however much a small file decompresses to.

A text takes up to 250 bytes of memory per character while it is tokenised, so these are far below what memory is.
"""

from __future__ import annotations

__all__ = [
    "MAX_DECODED_BYTES",
    "MAX_EXPANSION",
    "MAX_RECORD_BYTES",
    "MAX_SHARD_BYTES",
    "MAX_TEXT_CHARACTERS",
    "RAW_BYTES",
    "max_plausible_rows",
]

MAX_RECORD_BYTES = 16 * 2**20
"""A longer line, or row of a Parquet file, is an error; it is passed over without being held."""

MAX_TEXT_CHARACTERS = 4 * 2**20
"""A conversation with more is an error: about a million tokens, for each of which the model reads a window."""

MAX_SHARD_BYTES = 32 * 2**20
"""A shard ends before its records are larger than this together, as far as planning knows."""

MAX_DECODED_BYTES = 128 * 2**20
"""Of a shard of a Parquet file whose records turn out larger than its footer says, those beyond this are errors."""

MAX_EXPANSION = (256 * 2**20, 1000)
"""A Parquet file larger than the first, in bytes, and by the second than its compressed form is not read."""

RAW_BYTES = 64 * 2**10
"""Most bytes of a bad record that are kept."""


def max_plausible_rows(file_bytes: int) -> int:
    """Rows that a Parquet file of a size may claim: far more than conversations need."""
    return 2**24 + 64 * file_bytes
