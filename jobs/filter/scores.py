"""Scores that a condition looks at: what they depend on, whether they are the same still, and where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csrm.errors import InputError
from jobs.columns import SCORES
from jobs.commits import Commit, commit_name
from jobs.filter.columns import Columns
from jobs.filter.expressions import Name
from jobs.losses import UnreadableError
from jobs.matrix import Matrix

__all__ = ["BASIS", "basis", "read_cells", "unscored"]

BASIS = ("shard", "num_errors", "rows_of", "columns")
"""Of a commit record: what verdicts can depend on."""


def basis(commit: Commit, names: Iterable[Name]) -> list[Any]:
    """What verdicts on a shard depend on: the same gives the same ones.

    Args:
        commit: the shard's record.
        names: what the condition names.
    """
    scores = [name for name in names if name[0].lower() in SCORES]
    named = None if any(len(name) == 1 for name in scores) else {name[1].lower() for name in scores}
    columns = {id: column for id, column in sorted(commit["columns"].items()) if named is None or id.lower() in named}
    return [*(commit[key] for key in BASIS if key != "columns"), columns]


def read_cells(matrix: Matrix, commit: Commit, columns: Columns, names: Iterable[Name]) -> pa.Table:
    """The rows of a shard, of the scores that its record told of when the run was planned.

    Raises:
        UnreadableError: It has been scored anew since.
        InputError: Its files cannot be read.
    """
    try:
        cells = matrix.read(commit, columns.fields)
    except InputError:
        _check_same(matrix, commit, names)
        raise
    # Looked up afterwards: a record changes before any of its files does.
    _check_same(matrix, commit, names)
    return cells


def _check_same(matrix: Matrix, commit: Commit, names: Iterable[Name]) -> None:
    try:
        record = commit_name(commit["shard"])
        if basis(json.loads(matrix.folder.read([record])[record]), names) == basis(commit, names):
            return
    except FileNotFoundError:
        pass
    raise UnreadableError(f"{matrix.folder.url}: was scored anew meanwhile; run again")


def unscored(cells: pa.Table, columns: Columns) -> dict[int, str]:
    """Why rows of the matrix lack scores that the condition looks at, by number of the record."""
    why: dict[int, str] = {}
    rows = cells["row"].to_numpy()
    for field in columns.fields:
        struct, _, name = field.partition(".")
        if struct in SCORES:
            for id in [name] if name else [one.name for one in columns.matrix.field(struct).type]:
                reason = f"no worst clause under {id}; score it with --explain"
                reason = reason if struct == "worst_clause" else f"not scored under {id}"
                why = dict.fromkeys(rows[_is_null(cells, struct, id)].tolist(), reason) | why
    is_error = cells["error"].is_valid().to_numpy()
    errors = zip(rows[is_error].tolist(), cells["error"].filter(is_error).to_pylist(), strict=True)
    return why | dict(errors)


def _is_null(cells: pa.Table, struct: str, id: str) -> Any:
    if struct not in cells.column_names or cells.schema.field(struct).type.get_field_index(id) < 0:
        return np.full(cells.num_rows, True)
    return pc.struct_field(cells[struct], id).is_null().to_numpy()
