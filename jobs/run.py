"""A scoring run from options to exit code: plan, skip what is committed, score, check, sum up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from csrm.errors import InputError
from csrm.rules import as_rules
from jobs.columns import Work, other_columns, plan_work, reasons
from jobs.commits import (
    MANIFEST,
    Commit,
    Copy,
    by_shard,
    clear,
    known_cuts,
    known_plans,
    read_copies,
    refuse_other_matrix,
    remove_leftovers,
    stale_commits,
    uncommitted,
    write_index,
)
from jobs.inputs import InputFile, Inputs, list_inputs, partitions, would_read
from jobs.job import Job, kept_schema, read_model_facts
from jobs.local_copies import load_configurations
from jobs.lock import Lock, check_generation
from jobs.losses import Lost, by_source, num_lost_rows
from jobs.manifest import archive, write_manifest
from jobs.options import ScoreOptions
from jobs.packed import light
from jobs.progress import ProgressLine
from jobs.records import is_aligned, refresh_summary
from jobs.shards import Plan, Shard, default_shard_rows, plan_files
from jobs.storage import Folder
from jobs.summary import Totals, say, show_totals, sum_commits
from jobs.writing import align_columns

if TYPE_CHECKING:
    from jobs.costs import Measured

__all__ = ["ERROR_RATE_EXIT", "MISSING_EXIT", "dry_run", "run"]

MISSING_EXIT = 1
ERROR_RATE_EXIT = 3

SHOWN_LOSSES = 10
"""Lines about what could not be read; the manifest has all."""

WRITERS = 16
"""Files that get other columns at the same time."""

PLAN_ALONE_FILES = 32
PLAN_ALONE_BYTES = 2**30
"""JSON Lines must be read to be counted; beyond this the cluster does it."""


def run(options: ScoreOptions, out: Console, err: Console) -> int:
    """Score; return the process's exit code.

    Raises:
        CSRMError: What the user can mend.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        with err.status("listing and counting"):
            job, plan, copies = _plan(options, stack)
        lock = stack.enter_context(Lock(job.target, say=lambda text: say(err, text)))
        with err.status("looking for what is scored already"):
            commits = _open_target(job, plan, copies, err)
            job = _joined(replace(job, generation=lock.generation), commits)
            archive(job)
            pending = _remaining(plan, commits, job)
        progress = ProgressLine(err, sum(work.shard.num_rows for work in pending))
        lost = list(plan.lost)
        if pending:
            job.target.remove([MANIFEST])  # what it says is no longer so
            lost += _score(pending, job, commits, progress, stack)
        else:
            say(err, "everything was scored already")
        gone = {(one.source, one.row_start) for one in lost}
        missing = [work.shard for work in _remaining(plan, commits, job)] if pending else []
        if missing := [shard for shard in missing if (shard.source, shard.row_start) not in gone]:
            return _report_missing(missing, err)
        check_generation(job.target, lock.generation)
        settled = _settled(commits, job)
        write_index(job.target, settled)
        write_manifest(job, settled, time.monotonic() - started, by_source(lost))
    readable = [shard for shard in plan.shards if (shard.source, shard.row_start) not in gone]
    _warn_of_others(job, err)
    totals = sum_commits(settled[shard.id] for shard in readable)
    show_totals(totals, job.configurations, out)
    say(out, _closing_line(totals, progress, job))
    return _judge_losses(totals, by_source(lost), plan, options, err)


def _judge_losses(totals: Totals, lost: Sequence[Lost], plan: Plan, options: ScoreOptions, err: Console) -> int:
    """Say what has no scores; return the exit code."""
    for one in lost[:SHOWN_LOSSES]:
        say(err, f"lost: {one.rows} of {one.source}: {one.reason}")
    if len(lost) > SHOWN_LOSSES:
        say(err, f"lost: {len(lost) - SHOWN_LOSSES:,} more; {MANIFEST} lists all")
    num_lost = num_lost_rows(lost, plan.num_records, plan.num_bytes)
    num_bad, num_rows = totals.num_errors + num_lost, totals.num_rows + num_lost
    if not num_bad or num_bad <= options.max_error_rate * num_rows:
        return 0
    about = "about " if any(one.num_rows is None for one in lost) else ""
    say(
        err,
        f"{about}{num_bad:,} of {num_rows:,} rows have no scores, more than --max-error-rate "
        f"{options.max_error_rate:g} allows; the error column and {MANIFEST} say why",
    )
    return ERROR_RATE_EXIT


def dry_run(options: ScoreOptions, out: Console, bench: Measured | None = None, per_hour: float | None = None) -> None:
    """Print what a run would do, from a plan and a short measurement; write nothing.

    Args:
        options: of the run.
        out: where to.
        bench: how fast other machines are, for what the run would take there.
        per_hour: price of one of them.

    Raises:
        CSRMError: What the user can mend.
    """
    from jobs.costs import price, show_cost
    from jobs.estimate import estimate, show_estimate

    with ExitStack() as stack:
        job, plan, copies = _plan(options, stack)
        commits = by_shard(copies)
        refuse_other_matrix(job.target, commits, job.identity)
        replaced = stale_commits(job.target, commits, plan.shards, plan.marks)
        job = _joined(job, commits)
        pending = _remaining(plan, commits, job)
        found = estimate([work.shard for work in pending], job) if pending else None
    show_estimate(found, plan, pending, reasons(pending, commits, replaced, job), job, out)
    if bench and found:
        num_tokens = found.tokens_per_record * sum(work.shard.num_rows for work in pending)
        show_cost(price(num_tokens, len(job.configurations), bench, job.model.name, per_hour), out)
    say(out, "dry run: nothing was written")


def _plan(options: ScoreOptions, stack: ExitStack) -> tuple[Job, Plan, dict[str, Copy]]:
    """Resolve options into a job, and its input into shards; return also the commit records that it looked at."""
    configurations = load_configurations(options.configurations)
    if options.by_clause:
        configurations = tuple(as_rules(configurations))
    model = read_model_facts(options.model)
    inputs = list_inputs(options.input)
    target = Folder.at(options.output)
    _check_names(inputs, options)
    _check_apart(inputs, target, options)
    copies = {} if options.overwrite else read_copies(target)
    before = by_shard(copies).values()
    known = {} if options.limit else known_plans(before, inputs.files)
    map_files = map
    if not options.limit and _is_large([file for file in inputs.files if file.source not in known]):
        from jobs.pipeline import cluster, map_in_tasks

        stack.enter_context(cluster())
        map_files = map_in_tasks
    plan = plan_files(
        inputs.files,
        options.shard_rows or default_shard_rows(sum(file.size for file in inputs.files)),
        named_columns=options.named_columns,
        limit=options.limit,
        known=known,
        cuts=known_cuts(before, inputs.files),
        need_schemas=bool(options.keep_columns),
        map_files=map_files,
    )
    job = Job(
        options=options,
        configurations=configurations,
        model=model,
        input_root=inputs.root,
        target=target,
        kept=kept_schema(plan.schemas, options.keep_columns),
    )
    return job, plan, copies


def _open_target(job: Job, plan: Plan, copies: Mapping[str, Copy], err: Console) -> dict[str, Commit]:
    """Return the commit records that stand, after removing whatever must not be counted."""
    if job.options.overwrite:
        refuse_other_matrix(job.target, {}, job.identity)  # before anything is gone
        clear(job.target)
    commits = by_shard(read_copies(job.target, copies))
    refuse_other_matrix(job.target, commits, job.identity)
    remove_leftovers(job.target, commits, stale_commits(job.target, commits, plan.shards, plan.marks))
    if others := {commit["source"] for commit in commits.values()} - plan.marks.keys():
        say(err, f"rows of {len(others):,} files that are not in the input stay in the matrix: {min(others)}, …")
    return commits


def _joined(job: Job, commits: Mapping[str, Commit]) -> Job:
    """The job as part of the matrix that is there: its further columns stay, and so do its worst clauses."""
    others = () if job.options.prune else other_columns(commits.values(), job)
    explain = job.options.explain or any(commit["explain"] for commit in commits.values())
    return replace(job, others=others, options=replace(job.options, explain=explain))


def _remaining(plan: Plan, commits: Mapping[str, Commit], job: Job) -> list[Work]:
    """What is left to do, looked up afresh."""
    missing = {shard.id for shard in uncommitted(job.target, plan.shards, commits)}
    return list(plan_work(plan.shards, commits, missing, job))


def _settled(commits: Mapping[str, Commit], job: Job) -> dict[str, Commit]:
    """Commit records whose files have the matrix's columns and whose verdicts follow the thresholds."""
    others = [commit for commit in commits.values() if not is_aligned(commit, job)]
    if others:
        job.target.remove([MANIFEST])
    with ThreadPoolExecutor(WRITERS) as pool:
        aligned = pool.map(lambda commit: align_columns(commit, job), others)
        settled = {**commits, **{commit["shard"]: light(commit) for commit in aligned}}
    return {id: light(refresh_summary(commit, job)) for id, commit in settled.items()}


def _warn_of_others(job: Job, err: Console) -> None:
    if job.others:
        names = ", ".join(job.others)
        say(err, f"columns of other configurations stay as they are: {names}; --prune drops them")


def _score(
    pending: Sequence[Work], job: Job, commits: dict[str, Commit], progress: ProgressLine, stack: ExitStack
) -> list[Lost]:
    """Score shards and add their commit records to `commits`; return those that could not be read."""
    from jobs.pipeline import cluster, score_shards

    scored = {work.shard.id: work.score for work in pending}
    with progress:
        stack.enter_context(cluster())
        lost = []
        for commit, started, warnings, loss in score_shards(pending, job):
            progress.warn(warnings)
            if loss is not None:
                lost.append(loss)
            if commit is not None:
                progress.add(commit, started, scored[commit["shard"]])
                commits[commit["shard"]] = light(commit)
    return lost


def _check_names(inputs: Inputs, options: ScoreOptions) -> None:
    folders = {key for file in inputs.files for key in partitions(file.source)}
    for name in (*options.keep_columns, *options.partition_by):
        if name in folders:
            raise InputError(f"{inputs.root}: {name!r} is a partition folder of the input and is kept as one anyway")


def _check_apart(inputs: Inputs, target: Folder, options: ScoreOptions) -> None:
    if would_read(target.url, options.input, inputs.root, {file.source for file in inputs.files}):
        raise InputError(
            f"{options.output}: lies inside the input folder, where the next run would read it; choose another --output"
        )


def _is_large(files: Sequence[InputFile]) -> bool:
    line_bytes = sum(file.size for file in files if not file.source.endswith(".parquet"))
    return len(files) > PLAN_ALONE_FILES or line_bytes > PLAN_ALONE_BYTES


def _report_missing(missing: Sequence[Shard], err: Console) -> int:
    names = ", ".join(f"{shard.id} ({shard.source}, rows from {shard.row_start:,})" for shard in missing[:10])
    more = f" and {len(missing) - 10:,} more" if len(missing) > 10 else ""
    say(err, f"{len(missing):,} shards are missing, run again: {names}{more}")
    return MISSING_EXIT


def _closing_line(totals: Totals, progress: ProgressLine, job: Job) -> str:
    counts = f"{totals.num_records:,} records · {totals.num_cells:,} cells · {totals.num_errors:,} errors"
    seconds = progress.seconds
    rates = (
        f" · {progress.num_cells / seconds:,.0f} cells/s · {progress.num_tokens / seconds:,.0f} tokens/s"
        if progress.num_done
        else ""
    )
    return f"{counts}{rates} · {job.options.output}"
