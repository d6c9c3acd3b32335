"""Records without scores, kept whole enough to find out why: source, row, stage, message and raw bytes.

errors/<shard>.parquet          beside the shard's rows in the matrix, which have the message alone
"""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pyarrow.compute as pc

from jobs.job import Job
from jobs.losses import UnreadableError
from jobs.reading import read_pass
from jobs.shards import Shard

__all__ = ["dead_letters"]


def dead_letters(shard: Shard, rows: pa.Table, table: pa.Table, job: Job) -> pa.Table | None:
    """What is known of a shard's bad records; None without any.

    Args:
        shard: where they come from.
        rows: of the shard, as the reader left them: it knows the bytes of what it could not read.
        table: the same rows in the matrix, with all errors.
        job: how the shard is read again, for the bytes of a record that could be read and not be scored.
    """
    bad = pc.is_valid(table["error"])
    if not pc.any(bad).as_py():
        return None
    is_unread = pc.is_valid(rows["error"]).filter(bad)
    numbers = table["row"].filter(bad)
    raw = rows["raw"].filter(bad).to_pylist()
    if not pc.all(is_unread).as_py():
        with contextlib.suppress(UnreadableError):  # gone since it was scored: no bytes, and no reason to stop
            [records] = read_pass([shard], job.options)
            known = zip(raw, numbers.to_pylist(), strict=True)
            raw = [data if data is not None else records.raw(number - shard.row_start) for data, number in known]
    return pa.table(
        {
            "source": table["source"].filter(bad),
            "row": numbers,
            "record_id": table["record_id"].filter(bad),
            "stage": pc.if_else(is_unread, "read", "score"),
            "message": table["error"].filter(bad),
            "raw": pa.array(raw, pa.binary()),
        }
    )
