"""Arrow tables as bytes: how a whole shard travels as one value of one row.

Ray Data may split and merge rows as it likes; it cannot split a value.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["from_bytes", "to_bytes"]


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes | pa.Buffer) -> pa.Table:
    """Inverse of `to_bytes`; the table shares the memory of `data`."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
