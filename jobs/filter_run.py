"""A filter from options to exit code: check, skip what is committed, filter, add up. Or a sample of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console

import csrm
from csrm.errors import InputError
from jobs import filter_target as target
from jobs.columns import SCORES
from jobs.commits import Commit, write_index
from jobs.expressions import Evaluator, Expression, parse
from jobs.filter_columns import Columns, matrix_schema, resolve, sampled, source_schema
from jobs.filter_summary import Example, FilterTotals
from jobs.filtering import FilterJob, Judged, Task, judge
from jobs.inputs import file_format
from jobs.lock import Lock, check_generation
from jobs.losses import Lost, UnreadableError, by_source
from jobs.matrix import Matrix
from jobs.progress import PLAIN_INTERVAL_S, clock_time, live_bar
from jobs.remote import retried
from jobs.run import MISSING_EXIT, SHOWN_LOSSES
from jobs.storage import Folder, mark_of, open_location, readable
from jobs.summary import say

__all__ = ["FilterOptions", "Result", "Sample", "run", "sample"]

_FORMAT = 1
_ASKERS = 16
_SAMPLED_SHARDS = 16


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


class Result(NamedTuple):
    """How a run ended."""

    code: int
    totals: FilterTotals
    conditions: tuple[str, ...]
    lost: Sequence[Lost]


class Sample(NamedTuple):
    """What a filter would do to some shards."""

    totals: FilterTotals
    conditions: tuple[str, ...]
    num_shards: int
    of_shards: int
    kept: list[Example]
    rejected: list[Example]


def run(options: FilterOptions, err: Console) -> Result:
    """Filter.

    Raises:
        CSRMError: What the user can mend.
    """
    assert options.output is not None
    matrix, expression, tasks = _open(options)
    output = Folder.at(options.output)
    rejected = Folder.at(options.rejected) if options.rejected else None
    _check_apart(matrix, output, rejected)
    identity = _identity(matrix, expression, options, rejected)
    target.refuse_strangers(output, "--output")
    if rejected is not None:
        target.refuse_strangers(rejected, "--rejected")
    before = {} if options.overwrite else target.open_commits(output, identity)
    # Nothing of a wrong condition is left behind; and where all is done, nothing need be there any more.
    is_done = {task.shard.id for task in tasks} <= before.keys()
    columns = None if is_done else _checked(matrix, expression, tasks, options)
    with ExitStack() as stack:
        state = target.state_of(output)
        lock = stack.enter_context(Lock(state, say=lambda text: say(err, text)))
        if rejected is not None:
            target.claim(rejected, output)
        if options.overwrite:
            target.clear(output, rejected)
        found = target.open_commits(output, identity)
        commits = target.standing(found, output, rejected)
        target.withdraw(found.keys() - commits.keys(), output)
        target.remove_leftovers(commits.values(), output, rejected)
        pending = [task for task in tasks if task.shard.id not in commits]
        lost: list[Lost] = []
        if pending:
            columns = columns or _checked(matrix, expression, tasks, options)
            state.remove([target.MANIFEST])
            job = FilterJob(
                expression=expression,
                columns=columns[0],
                matrix=replace(matrix, manifest={}, shards=()),
                output=output,
                rejected=rejected,
                state=state,
                records_schema=columns[1],
                identity=identity,
                generation=lock.generation,
            )
            lost = _filter(pending, job, commits, err, stack)
        else:
            say(err, "everything was filtered already")
        check_generation(state, lock.generation)
        commits = target.standing(commits, output, rejected)
        totals = FilterTotals.of((commit["counts"] for commit in commits.values()), len(expression.conditions))
        if len(commits) == len(tasks):
            assert totals.num_records == sum(task.shard.num_rows for task in tasks), totals
            write_index(state, commits)
            _write_manifest(state, options, identity, totals, expression)
    return Result(_judge(tasks, commits, lost, err), totals, expression.conditions, lost)


def sample(options: FilterOptions, num_examples: int) -> Sample:
    """Judge some shards, spread over the corpus, and pick records of them; nothing is written.

    Raises:
        CSRMError: What the user can mend.
    """
    matrix, expression, tasks = _open(options)
    chosen = sampled(tasks, _SAMPLED_SHARDS)
    columns = _checked(matrix, expression, tasks, options)
    nowhere = Folder(matrix.folder.url)
    job = FilterJob(
        expression=expression,
        columns=columns[0],
        matrix=matrix,
        output=nowhere,
        rejected=None,
        state=nowhere,
        records_schema=columns[1],
        identity={},
    )
    evaluator = Evaluator(expression)
    counts, kept, rejected = [], [], []
    for task in chosen:
        for pieces in judge([task], job, evaluator):
            for one in pieces:
                counts.append(one.counts())
                kept += _examples(task, one, np.flatnonzero(one.is_kept), expression, num_examples)
                rejected += _examples(task, one, np.flatnonzero(one.is_rejected), expression, num_examples)
    totals = FilterTotals.of(counts, len(expression.conditions))
    spread = [sampled(examples, num_examples) for examples in (kept, rejected)]
    return Sample(totals, expression.conditions, len(chosen), len(tasks), *spread)


def _examples(task: Task, one: Judged, indices: Any, expression: Expression, number: int) -> list[Example]:
    chosen = sampled(indices.tolist(), number)
    reasons = one.reasons(chosen, expression.conditions)
    return [
        Example(task.shard.source, one.row_start + index, one.piece.shown(index), tuple(reason))
        for index, reason in zip(chosen, reasons, strict=True)
    ]


def _open(options: FilterOptions) -> tuple[Matrix, Expression, list[Task]]:
    expression = parse(options.where)
    matrix = Matrix.open(options.matrix)
    return matrix, expression, [Task(matrix.source(shard), shard) for shard in matrix.shards]


def _checked(
    matrix: Matrix, expression: Expression, tasks: Sequence[Task], options: FilterOptions
) -> tuple[Columns, pa.Schema | None]:
    """Columns that the condition looks at, and those of JSON Lines that become Parquet, once both are sound."""
    _check_sources(tasks)
    cells = matrix_schema(matrix)
    shards = [task.shard for task in tasks]
    lines = [shard for shard in shards if file_format(shard.url).records == "jsonl"]  # type: ignore[union-attr]
    names_others = any(name[0].lower() not in map(str.lower, cells.names) for name in expression.names)
    columns = resolve(expression, cells, source_schema(shards) if names_others else pa.schema([]))
    Evaluator(expression).check(columns.schema)
    return columns, source_schema(lines) if options.to_parquet and lines else None


def _check_sources(tasks: Sequence[Task]) -> None:
    """Raise where a file is not the one that was scored.

    Raises:
        InputError: It is not.
    """
    shards = list({task.shard.url: task.shard for task in tasks}.values())

    def is_same(url: str, mark: str) -> bool:
        filesystem, path = open_location(url)
        try:
            with readable(url):
                return mark_of(retried(filesystem.info, path)) == mark
        except UnreadableError:
            return False

    with ThreadPoolExecutor(_ASKERS) as pool:
        same = list(pool.map(lambda shard: is_same(shard.url, shard.mark), shards))
    if changed := [shard.url for shard, is_same in zip(shards, same, strict=True) if not is_same]:
        more = f" and {len(changed) - 1:,} other files have" if len(changed) > 1 else " has"
        raise InputError(
            f"{changed[0]}{more} changed or gone since it was scored; run csrm score again, then csrm filter"
        )


def _check_apart(matrix: Matrix, output: Folder, rejected: Folder | None) -> None:
    """Raise where one of the folders lies in another.

    Raises:
        InputError: One does.
    """
    given = matrix.manifest["options"]["input"]
    is_folder = file_format(given) is None and not set("*?[") & set(given)
    taken = [(matrix.folder.url, "the matrix")] + [(matrix.manifest["input"].rstrip("/"), "the input")] * is_folder
    for folder, option in ((output, "--output"), *([(rejected, "--rejected")] if rejected is not None else [])):
        for url, what in taken:
            if f"{folder.url}/".startswith(f"{url}/") or f"{url}/".startswith(f"{folder.url}/"):
                raise InputError(f"{folder.url}: lies in the folder of {what}, or that in it; choose another {option}")
        taken.append((folder.url, option))


def _identity(
    matrix: Matrix, expression: Expression, options: FilterOptions, rejected: Folder | None
) -> dict[str, Any]:
    """What the output depends on: the condition, and the scores that it looks at."""
    scores = [name for name in expression.names if name[0].lower() in SCORES]
    named = None if any(len(name) == 1 for name in scores) else {name[1].lower() for name in scores}
    cells = [
        [
            shard["shard"],
            shard["num_errors"],
            shard["rows_of"],
            {id: column for id, column in sorted(shard["columns"].items()) if named is None or id.lower() in named},
        ]
        for shard in matrix.shards
    ]
    return {
        "version": _FORMAT,
        "where": list(expression.conditions),
        "format": "parquet" if options.to_parquet else "same",
        "rejected": None if rejected is None else rejected.url,
        "matrix": matrix.folder.url,
        "scores": hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest(),
    }


def _filter(
    pending: Sequence[Task], job: FilterJob, commits: dict[str, Commit], err: Console, stack: ExitStack
) -> list[Lost]:
    """Filter shards and add their records to `commits`; return those that could not be read."""
    from jobs.filter_pipeline import filter_shards
    from jobs.pipeline import cluster

    num_records, num_done, lost = sum(task.shard.num_rows for task in pending), 0, []
    started = last_shown = time.monotonic()
    with live_bar(err) as live:
        bar = live.add_task("starting Ray", total=num_records)
        stack.enter_context(cluster())
        for commit, loss in filter_shards(pending, job):
            if loss is not None:
                lost.append(loss)
            if commit is not None:
                commits[commit["shard"]] = commit
                num_done += commit["num_records"]
            seconds = time.monotonic() - started
            remaining = clock_time(seconds * (num_records - num_done) / max(1, num_done))
            line = f"{num_done:,}/{num_records:,} records · {num_done / seconds:,.0f} records/s · {remaining} to go"
            live.update(bar, completed=num_done, description=line)
            if not err.is_terminal and time.monotonic() - last_shown >= PLAIN_INTERVAL_S:
                last_shown = time.monotonic()
                say(err, line)
    return list(by_source(lost))


def _write_manifest(
    state: Folder, options: FilterOptions, identity: Mapping[str, Any], totals: FilterTotals, expression: Expression
) -> None:
    facts = {
        "csrm": csrm.__version__,
        "where": options.where,
        **{key: value for key, value in identity.items() if key != "where"},
        "counts": totals.to_json(expression.conditions),
    }
    state.publish(target.MANIFEST, f"{json.dumps(facts, indent=2, ensure_ascii=False)}\n".encode())


def _judge(tasks: Sequence[Task], commits: Mapping[str, Commit], lost: Sequence[Lost], err: Console) -> int:
    """Say which shards are missing; return the exit code."""
    missing = [task.shard for task in tasks if task.shard.id not in commits]
    for one in lost[:SHOWN_LOSSES]:
        say(err, f"lost: {one.rows} of {one.source}: {one.reason}")
    if not missing:
        return 0
    names = ", ".join(f"{shard.source} from row {shard.row_start:,}" for shard in missing[:SHOWN_LOSSES])
    more = f" and {len(missing) - SHOWN_LOSSES:,} more" if len(missing) > SHOWN_LOSSES else ""
    say(err, f"{len(missing):,} shards are missing, run again: {names}{more}")
    return MISSING_EXIT
