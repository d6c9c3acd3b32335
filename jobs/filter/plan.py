"""What a filter is about to do, checked before it does anything: condition, columns, sources, places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from csrm.errors import InputError
from jobs.filter.columns import Columns, SourceColumns, resolve, source_columns
from jobs.filter.expressions import Evaluator, Expression, parse
from jobs.filter.scores import basis
from jobs.filter.worker import Task
from jobs.inputs import file_format
from jobs.losses import UnreadableError
from jobs.matrix import Matrix
from jobs.reading import is_unchanged
from jobs.shards import Shard
from jobs.storage import Folder

__all__ = ["FilterOptions", "Plan", "check_apart", "check_columns", "identity_of", "plan_filter"]

_FORMAT = 1
_ASKERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """What to keep, and where."""

    matrix: str
    """Folder that `csrm score` wrote."""
    where: str
    """What a record must be to be kept."""
    output: str | None = None
    """Folder for what is kept; a sample has none."""
    rejected: str | None = None
    """Folder for the others; None drops them."""
    to_parquet: bool = False
    """Whether JSON Lines become Parquet."""
    overwrite: bool = False
    """Whether to replace what another filter wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A filter whose condition can be read."""

    options: FilterOptions
    matrix: Matrix
    expression: Expression
    tasks: tuple[Task, ...]
    """All shards, in order."""


def plan_filter(options: FilterOptions) -> Plan:
    """Read the condition and what the matrix says of itself.

    Raises:
        InputError: One of them cannot be read, or the matrix is changing.
    """
    expression = parse(options.where)
    matrix = Matrix.open(options.matrix)
    if any("next" in shard for shard in matrix.shards):
        raise InputError(f"{options.matrix}: is being scored; run csrm filter when that has ended")
    tasks = tuple(Task(matrix.source(shard), shard) for shard in matrix.shards)
    return Plan(options=options, matrix=matrix, expression=expression, tasks=tasks)


def check_columns(plan: Plan) -> tuple[Columns, pa.Schema | None]:
    """Return the columns that the condition looks at, and those of JSON Lines that become Parquet.

    Raises:
        InputError: A source is not what was scored, or the condition does not fit the columns.
    """
    _check_sources(plan.tasks)
    cells = plan.matrix.schema
    shards = [task.shard for task in plan.tasks]
    lines = [shard for shard in shards if file_format(shard.url).records == "jsonl"]  # type: ignore[union-attr]
    names_others = any(name[0].lower() not in map(str.lower, cells.names) for name in plan.expression.names)
    nothing = SourceColumns(pa.schema([]), frozenset())
    columns = resolve(plan.expression, cells, source_columns(shards) if names_others else nothing)
    Evaluator(plan.expression).check(columns.schema)
    return columns, _parquet_schema(lines) if plan.options.to_parquet and lines else None


def _parquet_schema(lines: Sequence[Shard]) -> pa.Schema:
    """Columns of JSON Lines that become Parquet.

    Raises:
        InputError: There is no type for one of them.
    """
    columns = source_columns(lines)
    if columns.unlike:
        why = f"the records' column {min(columns.unlike)} is nested and not of one type in all of them"
        raise InputError(f"--format parquet: {why}; use --format same")
    return columns.schema


def _check_sources(tasks: Sequence[Task]) -> None:
    """Raise where a file is not the one that was scored.

    Raises:
        InputError: It is not.
    """
    shards = list({task.shard.url: task.shard for task in tasks}.values())

    def is_same(shard: Shard) -> bool:
        try:
            return is_unchanged(shard)
        except UnreadableError:
            return False

    with ThreadPoolExecutor(_ASKERS) as pool:
        same = list(pool.map(is_same, shards))
    if changed := [shard.url for shard, is_same in zip(shards, same, strict=True) if not is_same]:
        more = f" and {len(changed) - 1:,} other files have" if len(changed) > 1 else " has"
        raise InputError(
            f"{changed[0]}{more} changed or gone since it was scored; run csrm score again, then csrm filter"
        )


def check_apart(matrix: Matrix, output: Folder, rejected: Folder | None) -> None:
    """Raise where one of the folders lies in another.

    Raises:
        InputError: One does.
    """
    taken = [(matrix.folder.url, "the matrix")]
    for folder, option in ((output, "--output"), *([(rejected, "--rejected")] if rejected is not None else [])):
        matrix.refuse_as_output(folder.url, option)
        for url, what in taken:
            if f"{folder.url}/".startswith(f"{url}/") or f"{url}/".startswith(f"{folder.url}/"):
                raise InputError(f"{folder.url}: lies in the folder of {what}, or that in it; choose another {option}")
        taken.append((folder.url, option))


def identity_of(plan: Plan, rejected: Folder | None) -> dict[str, Any]:
    """What the output depends on: the condition, and the scores that it looks at."""
    scores = [basis(shard, plan.expression.names) for shard in plan.matrix.shards]
    return {
        "version": _FORMAT,
        "where": list(plan.expression.conditions),
        "format": "parquet" if plan.options.to_parquet else "same",
        "rejected": None if rejected is None else rejected.url,
        "matrix": plan.matrix.folder.url,
        "scores": hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest(),
    }
