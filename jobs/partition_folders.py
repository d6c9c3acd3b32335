"""Hive folders of the matrix: the input's own, then those of the columns that it is partitioned by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pyarrow as pa

from csrm.errors import InputError
from jobs.inputs import partitions
from jobs.job import Job
from jobs.shards import Shard

__all__ = ["folder_values", "split"]

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MAX_FOLDERS = 1000
_MAX_NAME_BYTES = 200
"""Of a folder: file systems take 255, and an object's key 1,024 in all."""


def split(table: pa.Table, shard: Shard, job: Job) -> Iterator[tuple[list[str], pa.Table]]:
    """Split a table by its partition columns; yield hive folders, the input's own first, and their rows."""
    above = [_folder(key, value) for key, value in partitions(shard.source).items()]
    keys = list(job.options.partition_by)
    if not keys:
        yield above, table
        return
    # By folder rather than by value: a null, an empty text and the name of the folder for both share one.
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, values in enumerate(table.select(keys).to_pylist()):
        folders = tuple(_folder(quote(k, safe=""), quote(v, safe="") if v else _NO_VALUE) for k, v in values.items())
        groups.setdefault(folders, []).append(index)
    if len(groups) > _MAX_FOLDERS:
        raise InputError(
            f"{shard.url}: --partition-by {','.join(keys)} makes more than {_MAX_FOLDERS} folders in one "
            "shard; choose columns of few values"
        )
    for folders in sorted(groups):
        yield [*above, *folders], table.take(groups[folders]).drop_columns(keys)


def folder_values(name: str) -> dict[str, str | None]:
    """The values that the folders of a file of the matrix stand for, null where records had none."""
    values = {unquote(key): unquote(value) for key, value in partitions(name).items()}
    return {key: None if value == _NO_VALUE else value for key, value in values.items()}


def _folder(key: str, value: str) -> str:
    """A hive folder of one value; of a value too long for a name the start and a digest, so that no two share one."""
    name = f"{key}={value}"
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    start = unquote(name[:_MAX_NAME_BYTES], errors="ignore")
    while len(quote(start, safe="=")) > _MAX_NAME_BYTES - 19:
        start = start[:-1]
    return f"{quote(start, safe='=')}...{hashlib.sha256(name.encode()).hexdigest()[:16]}"
