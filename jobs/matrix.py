"""A finished matrix as those who use it read it: configurations, shards, and the rows of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csrm.configurations import Clause, Configuration
from csrm.conversations import RecordColumns
from csrm.errors import InputError
from jobs.commits import MANIFEST, Commit, matrix_files, read_commits
from jobs.inputs import InputFile, refuse_as_output
from jobs.manifest import FORMAT
from jobs.nearest import nearest
from jobs.options import ScoreOptions
from jobs.partition_folders import folder_values
from jobs.shards import Shard
from jobs.storage import Folder, open_file, open_location, readable, size_of

__all__ = ["Matrix"]

_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What `csrm score` wrote, of which every shard is committed."""

    folder: Folder
    manifest: Mapping[str, Any]
    shards: tuple[Commit, ...]
    """Commit records, in the order of files and rows."""

    @classmethod
    def open(cls, location: str) -> Matrix:
        """Read the manifest and the commit records of a matrix; none of its rows.

        Raises:
            InputError: There is none, or one that no run has completed.
        """
        folder = Folder.at(location)
        try:
            manifest = json.loads(folder.read([MANIFEST])[MANIFEST])
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{location}: no finished matrix here; run csrm score to its end") from None
        except ValueError:
            raise InputError(f"{location}/{MANIFEST}: not a manifest; run csrm score again") from None
        if manifest.get("format") != FORMAT:
            raise InputError(f"{location}: written by another version of csrm; run csrm score again")
        shards = sorted(read_commits(folder).values(), key=lambda commit: (commit["source"], commit["row_start"]))
        if not shards:
            raise InputError(f"{location}: a matrix without rows; run csrm score on an input that has some")
        return cls(folder=folder, manifest=manifest, shards=tuple(shards))

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Those that there are columns of, as the last run knew them."""
        names = {field.name for field in fields(Configuration)}
        return tuple(
            Configuration(
                **{name: value for name, value in one.items() if name in names}
                | {"clauses": tuple(Clause(**clause) for clause in one["clauses"])}
            )
            for one in self.manifest["configurations"]
        )

    @property
    def is_explained(self) -> bool:
        """Whether cells name the clause that they violate most."""
        return any(commit["explain"] for commit in self.shards)

    def configuration(self, id: str) -> Configuration:
        """The one that has an id.

        Raises:
            InputError: None has; the message names the nearest.
        """
        known = {one.id: one for one in self.configurations}
        if id not in known:
            raise InputError(f"{self.folder.url}: no configuration {id!r}; {nearest(id, known)}")
        return known[id]

    @property
    def folder_keys(self) -> tuple[str, ...]:
        """Names that partition folders give values to; files may lie in some of them only."""
        folders = {name.rpartition("/")[0] for shard in self.shards for name in matrix_files(shard)}
        return tuple(dict.fromkeys(key for folder in sorted(folders) for key in folder_values(f"{folder}/x")))

    @property
    def schema(self) -> pa.Schema:
        """Of its rows, the columns of folders last.

        Raises:
            InputError: A file of the matrix is damaged, gone, or not to be reached.
        """
        with self._opened(matrix_files(self.shards[0])[0]) as file:
            return pa.schema([*file.schema_arrow, *((key, pa.string()) for key in self.folder_keys)])

    def batches(self, shard: Commit, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield a shard's rows, some thousands at a time, with the values of its folders as columns of text.

        Args:
            shard: one of `shards`.
            columns: to read; None is all. Fields of structs are named with a dot. Those of folders come anyway,
                of the folders that a file lies in.

        Raises:
            InputError: A file of the matrix is damaged, gone, or not to be reached.
        """
        for name in matrix_files(shard):
            folders = folder_values(name)
            with self._opened(name) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                    table = pa.Table.from_batches([batch])
                    for key, value in folders.items():
                        table = table.append_column(key, pa.array([value] * table.num_rows, pa.string()))
                    yield table

    def read(self, shard: Commit, columns: Sequence[str] | None = None) -> pa.Table:
        """A shard's rows in the order of its records, as `batches` yields them; `columns` must have `row`."""
        table = pa.concat_tables(self.batches(shard, columns), promote_options="permissive")
        return table.take(pc.sort_indices(table["row"]))  # stable: the rows of one record stay in order

    @property
    def options(self) -> ScoreOptions:
        """Those of the last run."""
        options = self.manifest["options"]
        return ScoreOptions(**{**options, "columns": RecordColumns(**options["columns"])})

    def refuse_as_output(self, location: str, option: str = "--output") -> None:
        """Raise where a run over the input that was scored would read what is written to a place, or has.

        Raises:
            InputError: It would.
        """
        sources = {shard["source"] for shard in self.shards}
        refuse_as_output(Folder.at(location).url, location, self.options.input, self.manifest["input"], sources, option)

    def source(self, shard: Commit) -> Shard:
        """The rows of the input that a shard of the matrix was made of."""
        root, mark = self.manifest["input"].rstrip("/"), shard["mark"]
        file = InputFile(url=f"{root}/{shard['source']}", source=shard["source"], mark=mark, size=size_of(mark))
        return Shard.of(file, num_rows=shard["num_records"], **shard["place"])

    @contextmanager
    def _opened(self, name: str) -> Iterator[pq.ParquetFile]:
        url = f"{self.folder.url}/{name}"
        filesystem, path = open_location(url)
        with readable(url), open_file(filesystem, path) as raw, pq.ParquetFile(raw) as file:
            yield file
