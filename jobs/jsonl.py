"""JSON Lines: streams of lines, which of them are records, and where a shard's bytes lie.

A line of nothing but white space is no record: it is neither counted nor read, wherever it stands. A line longer than
`MAX_RECORD_BYTES` is a record, and never held.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import pyarrow as pa

from csrm.errors import RecordError
from jobs.limits import MAX_RECORD_BYTES, MAX_SHARD_BYTES, RAW_BYTES
from jobs.losses import UnreadableError
from jobs.storage import BROKEN

__all__ = [
    "Line",
    "LongLine",
    "Span",
    "decode_line",
    "line_head",
    "open_lines",
    "record_lines",
    "refuse_array",
    "spans",
]

_BUFFER_BYTES = 1 << 16  # where a file breaks off, this much before may be lost
_PIECE_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongLine:
    """A line too long to be held. Counts like the bytes that it stands for."""

    head: bytes
    """Its first `RAW_BYTES`."""
    num_bytes: int
    """All of it, line end included."""
    is_blank: bool

    def __len__(self) -> int:
        return self.num_bytes

    def isspace(self) -> bool:
        """Whether it holds nothing but white space."""
        return self.is_blank


Line: TypeAlias = bytes | LongLine


class Span(NamedTuple):
    """A range of records and the bytes (before compression) that hold them."""

    row_start: int
    num_rows: int
    byte_start: int
    byte_end: int


def open_lines(raw: BinaryIO, compression: str | None) -> BinaryIO:
    """Return a stream that yields lines.

    pyarrow's streams decompress: unlike zstandard's own reader they raise where a file was cut short, and
    they read on after the first frame.
    """
    if compression is None:
        return raw
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
    return io.BufferedReader(stream, _BUFFER_BYTES)  # type: ignore[return-value,type-var]


def bounded_lines(stream: BinaryIO) -> Iterator[Line]:
    """Return the lines of a stream, holding none that is longer than a record may be."""
    readline = stream.readline
    while line := readline(MAX_RECORD_BYTES):
        yield line if len(line) < MAX_RECORD_BYTES or line.endswith(b"\n") else _passed_over(line, stream)


def _passed_over(start: bytes, stream: BinaryIO) -> Line:
    """A line of which only the start has been read; as it is, where it ends there."""
    num_bytes, is_blank, piece = len(start), start.isspace(), start
    head = start[:RAW_BYTES]
    del start
    while not piece.endswith(b"\n") and (following := stream.readline(_PIECE_BYTES)):
        num_bytes += len(following)
        is_blank = is_blank and following.isspace()
        piece = following
    return piece if num_bytes == len(piece) else LongLine(head=head, num_bytes=num_bytes, is_blank=is_blank)


def line_head(line: Line) -> bytes:
    """What there is of a line."""
    return line.head if isinstance(line, LongLine) else line


def record_lines(stream: BinaryIO) -> Iterator[Line]:
    """Return the lines that are records."""
    return (line for line in bounded_lines(stream) if not line.isspace())


def spans(stream: BinaryIO, shard_rows: int, shard_bytes: int = MAX_SHARD_BYTES) -> Iterator[Span]:
    """Count the records of a file and cut them into ranges of `shard_rows`, the last one shorter.

    A range also ends before the record that would make it larger than `shard_bytes`. Where the lines break off with an
    error, it is raised after the range of those before it.
    """
    row = offset = row_start = byte_start = 0
    broken: BaseException | None = None
    try:
        for line in bounded_lines(stream):
            is_record = not line.isspace()
            if is_record and row > row_start and offset + len(line) - byte_start > shard_bytes:
                yield Span(row_start, row - row_start, byte_start, offset)
                row_start, byte_start = row, offset
            offset += len(line)
            row += is_record
            if row - row_start == shard_rows:
                yield Span(row_start, shard_rows, byte_start, offset)
                row_start, byte_start = row, offset
    except BROKEN as error:
        broken = error
    if row > row_start:
        yield Span(row_start, row - row_start, byte_start, offset)
    if broken is not None:
        raise broken


def decode_line(line: Line) -> dict[str, Any]:
    """Return the record on a line.

    Raises:
        RecordError: The line is too long, not UTF-8, not JSON, or not an object.
    """
    if isinstance(line, LongLine):
        raise RecordError(f"a line of {len(line):,} bytes; a record may have {MAX_RECORD_BYTES:,}")
    try:
        record = json.loads(line.removeprefix(_BYTE_ORDER_MARK).decode())
    except json.JSONDecodeError as error:
        raise RecordError(f"malformed JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise RecordError(f"malformed JSON: {error}") from None
    if not isinstance(record, dict):
        raise RecordError(f"a record is a JSON object, not {type(record).__name__}")
    return record


def refuse_array(line: Line, url: str) -> None:
    """Raise where a file's first record line shows one big JSON array rather than JSON Lines.

    Raises:
        UnreadableError: The line opens an array.
    """
    if line_head(line).removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
        raise UnreadableError(f"{url}: a JSON array, not one object per line; convert it with: jq -c '.[]'")
