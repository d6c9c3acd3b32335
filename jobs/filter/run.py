"""A filter from options to exit code: check, skip what is committed, filter, add up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from rich.console import Console

import csrm
from jobs.commits import Commit, write_index
from jobs.filter import target
from jobs.filter.plan import FilterOptions, Plan, check_apart, check_columns, identity_of, plan_filter
from jobs.filter.summary import FilterTotals
from jobs.filter.worker import FilterJob, Task
from jobs.lock import Lock, check_generation
from jobs.losses import Lost, by_source
from jobs.progress import PLAIN_INTERVAL_S, clock_time, live_bar
from jobs.run import MISSING_EXIT, SHOWN_LOSSES
from jobs.storage import Folder
from jobs.summary import say

__all__ = ["Result", "run"]


class Result(NamedTuple):
    """How a run ended."""

    code: int
    totals: FilterTotals
    conditions: tuple[str, ...]
    lost: Sequence[Lost]


def run(options: FilterOptions, err: Console) -> Result:
    """Filter.

    Raises:
        CSRMError: What the user can mend.
    """
    assert options.output is not None
    plan = plan_filter(options)
    output = Folder.at(options.output)
    rejected = Folder.at(options.rejected) if options.rejected else None
    check_apart(plan.matrix, output, rejected)
    identity = identity_of(plan, rejected)
    target.refuse_strangers(output, "--output")
    if rejected is not None:
        target.refuse_strangers(rejected, "--rejected")
    # Nothing of a wrong condition is left behind; and where all is done, nothing need be there any more.
    before = {} if options.overwrite else target.open_commits(output, identity)
    columns = None if {task.shard.id for task in plan.tasks} <= before.keys() else check_columns(plan)
    with ExitStack() as stack:
        state = target.state_of(output)
        lock = stack.enter_context(Lock(state, say=lambda text: say(err, text)))
        commits = _standing(options, identity, output, rejected)
        pending = [task for task in plan.tasks if task.shard.id not in commits]
        lost: list[Lost] = []
        if pending:
            state.remove([target.MANIFEST])
            wanted, records_schema = columns or check_columns(plan)
            job = FilterJob(
                expression=plan.expression,
                columns=wanted,
                matrix=replace(plan.matrix, manifest={}, shards=()),
                output=output,
                rejected=rejected,
                state=state,
                records_schema=records_schema,
                identity=identity,
                generation=lock.generation,
            )
            lost = _filter(pending, job, commits, err, stack)
            commits = target.standing(commits, output, rejected)
        else:
            say(err, "everything was filtered already")
        check_generation(state, lock.generation)
        totals = FilterTotals.of((commit["counts"] for commit in commits.values()), len(plan.expression.conditions))
        if len(commits) == len(plan.tasks):
            assert totals.num_records == sum(task.shard.num_rows for task in plan.tasks), totals
            write_index(state, commits)
            _write_manifest(state, plan, identity, totals)
    return Result(_judge(plan, commits, lost, err), totals, plan.expression.conditions, lost)


def _standing(
    options: FilterOptions, identity: Mapping[str, Any], output: Folder, rejected: Folder | None
) -> dict[str, Commit]:
    """Return the commit records that stand, after removing whatever must not be counted."""
    if rejected is not None:
        target.claim(rejected, output)
    if options.overwrite:
        target.clear(output, rejected)
    found = target.open_commits(output, identity)
    commits = target.standing(found, output, rejected)
    target.withdraw(found.keys() - commits.keys(), output)
    target.remove_leftovers(commits.values(), output, rejected)
    return commits


def _filter(
    pending: Sequence[Task], job: FilterJob, commits: dict[str, Commit], err: Console, stack: ExitStack
) -> list[Lost]:
    """Filter shards and add their records to `commits`; return those that could not be read."""
    from jobs.filter.pipeline import filter_shards
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


def _write_manifest(state: Folder, plan: Plan, identity: Mapping[str, Any], totals: FilterTotals) -> None:
    facts = {
        "csrm": csrm.__version__,
        "where": plan.options.where,
        **{key: value for key, value in identity.items() if key != "where"},
        "counts": totals.to_json(plan.expression.conditions),
        "lost when it was scored": plan.matrix.manifest["lost"],
    }
    state.publish(target.MANIFEST, f"{json.dumps(facts, indent=2, ensure_ascii=False)}\n".encode())


def _judge(plan: Plan, commits: Mapping[str, Commit], lost: Sequence[Lost], err: Console) -> int:
    """Say which shards are missing; return the exit code."""
    if unscored := plan.matrix.manifest["lost"]:
        say(
            err,
            f"{len(unscored):,} parts of the input could not be read when scored; the matrix has no rows of them",
        )
    missing = [task.shard for task in plan.tasks if task.shard.id not in commits]
    for one in lost[:SHOWN_LOSSES]:
        say(err, f"lost: {one.rows} of {one.source}: {one.reason}")
    if not missing:
        return 0
    names = ", ".join(f"{shard.source} from row {shard.row_start:,}" for shard in missing[:SHOWN_LOSSES])
    more = f" and {len(missing) - SHOWN_LOSSES:,} more" if len(missing) > SHOWN_LOSSES else ""
    say(err, f"{len(missing):,} shards are missing, run again: {names}{more}")
    return MISSING_EXIT
