"""An object store that holds a night of conversations which nobody had: it makes up what it is asked for.

night://in/part=0000/chats-0000000.parquet      input: every file has the same rows
night://out/_csrm/commits/, night://out/matrix/ what a run left that committed the first so many shards
night://out/…                                   everything else is kept, as files of a local folder

Listings say as much of a file as s3fs does, so that they take as much memory. Requests are counted as S3 would have
been asked: a listing is one for every thousand names.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from jobs.commits import COMMITS, MATRIX, commit_name
from jobs.inputs import InputFile
from jobs.job import Job
from jobs.records import commit_record
from jobs.shards import Shard, plan_file

FILES_PER_FOLDER = 1000
KEYS_PER_PAGE = 1000
ETAG = f'"{"0" * 32}"'
NUM_VARIANTS = 8
MATRIX_BYTES = 2**20


@dataclass(slots=True, kw_only=True)
class Night:
    """What the store makes up, and what it was asked."""

    num_files: int
    rows_per_file: int
    shard_rows: int
    kept: Path
    """Folder of what is written."""
    num_committed: int = 0
    """Shards whose records and files are there, in the order of the input."""
    requests: Counter[str] = field(default_factory=Counter)
    commits: list[list[str]] = field(default_factory=list)
    """Texts of commit records of the first file's shards, in variants."""

    def __post_init__(self) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": pa.nulls(self.rows_per_file, pa.string())}), sink)
        self.data = sink.getvalue()
        NightStore.night = self
        self.first = plan_file(self.file(0), self.shard_rows).shards
        self.requests.clear()

    data: bytes = b""
    first: list[Shard] = field(default_factory=list)
    """Shards of the first file; those of the others are like them."""

    @property
    def num_shards(self) -> int:
        return self.num_files * len(self.first)

    @property
    def num_records(self) -> int:
        return self.num_files * self.rows_per_file

    def kept_path(self, path: str) -> Path:
        """Where something that was written is."""
        return self.kept / path.replace("/", "%")

    def file(self, number: int) -> InputFile:
        source = f"part={number // FILES_PER_FOLDER:04d}/chats-{number:07d}.parquet"
        mark = f"{len(self.data)}-{ETAG}".replace('"', "")
        return InputFile(url=f"night://in/{source}", source=source, mark=mark, size=len(self.data))

    def shard(self, number: int) -> Shard:
        file = self.file(number // len(self.first))
        return replace(self.first[number % len(self.first)], url=file.url, source=file.source, mark=file.mark)

    def shard_number(self, name: str) -> int:
        """From the name of a commit record: which shard of the night it is."""
        _, file, row_start, _ = Path(name).stem.split("-")
        place = next(i for i, shard in enumerate(self.first) if shard.row_start == int(row_start))
        return int(file) * len(self.first) + place

    def make_up_commits(self, job: Job) -> None:
        """Write the records of the first file's shards, by the code that writes real ones, with random scores."""
        draw = np.random.default_rng(0)
        self.commits = [
            [json.dumps(_commit(shard, job, draw), ensure_ascii=False) for shard in self.first]
            for _ in range(NUM_VARIANTS)
        ]

    def commit(self, shard: Shard, number: int) -> str:
        """The text of a shard's commit record."""
        like = self.first[number % len(self.first)]
        text = self.commits[number % NUM_VARIANTS][number % len(self.first)]
        folder, like_folder = (one.source.partition("/")[0] for one in (shard, like))
        text = text.replace(f"{MATRIX}/{like_folder}/", f"{MATRIX}/{folder}/")
        return text.replace(like.id, shard.id).replace(like.source, shard.source)

    def committed(self, start: int = 0, end: int | None = None) -> Iterator[Shard]:
        return map(self.shard, range(start, min(self.num_committed, self.num_shards if end is None else end)))


def _commit(shard: Shard, job: Job, draw: np.random.Generator) -> dict[str, Any]:
    names = [one.id for one in job.configurations]
    scores = [pa.array(draw.beta(6, 1, shard.num_rows).astype(np.float32)) for _ in names]
    table = pa.table(
        {
            "record_id": [f"{shard.source}:{shard.row_start + row}" for row in range(shard.num_rows)],
            "num_tokens": draw.integers(50, 500, shard.num_rows),
            "error": pa.nulls(shard.num_rows, pa.string()),
            "p_safe": pa.StructArray.from_arrays(scores, names),
        }
    )
    folder = shard.source.partition("/")[0]
    files = {f"{MATRIX}/{folder}/{shard.id}.parquet": {"num_rows": shard.num_rows, "num_bytes": MATRIX_BYTES}}
    return commit_record(shard, table, files, job)


class NightStore(AbstractFileSystem):
    """The store, as fsspec sees it."""

    protocol = "night"
    night: Night

    def info(self, path: str, **settings: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self.night.requests["HEAD"] += 1
        if path.endswith(".parquet"):
            return _info(path, len(self.night.data))
        if path == "in":
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **settings: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = list(self._listed(path))
        self.night.requests["LIST"] += max(1, -(-len(found) // KEYS_PER_PAGE))
        if not found:
            raise FileNotFoundError(path)
        return found if detail else [info["name"] for info in found]

    def _listed(self, path: str) -> Iterator[dict[str, Any]]:
        night, per_folder = self.night, FILES_PER_FOLDER * len(self.night.first)
        folder = path.rpartition("part=")[2]
        if path in ("in", f"out/{MATRIX}"):
            num_files = night.num_files if path == "in" else -(-night.num_committed // len(night.first))
            for number in range(-(-num_files // FILES_PER_FOLDER)):
                yield {"name": f"{path}/part={number:04d}", "type": "directory", "size": 0}
        elif path.startswith("in/part="):
            start = int(folder) * FILES_PER_FOLDER
            for number in range(start, min(start + FILES_PER_FOLDER, night.num_files)):
                yield _info(f"in/{night.file(number).source}", len(night.data))
        elif path.startswith(f"out/{MATRIX}/part="):
            for shard in night.committed(int(folder) * per_folder, (int(folder) + 1) * per_folder):
                yield _info(f"{path}/{shard.id}.parquet", MATRIX_BYTES)
        elif path == f"out/{COMMITS}":
            for shard in night.committed():
                yield _info(f"out/{commit_name(shard.id)}", len(night.commits[0][0]))
        else:
            for name in self._kept_names(f"{path}/"):
                yield _info(name, self._kept(name).stat().st_size)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **settings: Any) -> bytes:
        path = self._strip_protocol(path)
        self.night.requests["GET"] += 1
        if path.startswith(f"out/{COMMITS}/"):
            number = self.night.shard_number(path)
            return self.night.commit(self.night.shard(number), number).encode()
        return self._kept(path).read_bytes()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **settings: Any) -> None:
        path = self._strip_protocol(path)
        self.night.requests["PUT"] += 1
        if mode == "create" and self._kept(path).exists():
            raise FileExistsError(path)
        self._kept(path).write_bytes(value)

    def rm_file(self, path: str) -> None:
        self.night.requests["DELETE"] += 1
        self._kept(self._strip_protocol(path)).unlink(missing_ok=True)

    def open(self, path: str, mode: str = "rb", **settings: Any) -> Any:
        self.night.requests.update(HEAD=1, GET=1)
        file = _File(self.night.data)
        file.size = len(self.night.data)
        return file

    def _kept(self, path: str) -> Path:
        return self.night.kept_path(path)

    def _kept_names(self, prefix: str) -> list[str]:
        names = (path.name.replace("%", "/") for path in self.night.kept.iterdir())
        return [name for name in names if name.startswith(prefix)]


class _File(io.BytesIO):
    size: int


def _info(name: str, size: int) -> dict[str, Any]:
    """What s3fs says of an object."""
    changed = datetime(2026, 11, 21, tzinfo=UTC)
    facts = {"Key": name, "LastModified": changed, "ETag": ETAG + "", "Size": size, "StorageClass": "STANDARD"}
    return {**facts, "type": "file", "size": size, "name": name}


fsspec.register_implementation("night", NightStore, clobber=True)
