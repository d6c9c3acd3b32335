"""`csrm submit`: run a command on a cluster, and stay until it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.job_server import Job, JobServer
    from jobs.submission import Submission

__all__ = ["DETACHED_EXIT", "address_option", "attend", "connect", "submit"]

DETACHED_EXIT = 130

address_option = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard.  [default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265]",
)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@address_option
@click.option(
    "--num-gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of score: GPUs that the cluster brings up first; of train: workers, with a GPU each.",
)
@click.option(
    "--paths-on-cluster",
    is_flag=True,
    help="Take absolute paths as they are: all nodes of the cluster see them, on a shared filesystem perhaps.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Environment variable of the job, AWS_ENDPOINT_URL_S3 perhaps; none that is secret. Repeatable.",
)
@click.option("--again", is_flag=True, help="Run a command anew that has succeeded today.")
@click.option("--no-wait", is_flag=True, help="Print the job's id, and do not stay.")
@click.option("--dry-run", is_flag=True, help="Print the id, the command and the files; send nothing.")
@click.pass_context
def submit(
    context: click.Context,
    command: tuple[str, ...],
    address: str | None,
    num_gpus: int | None,
    paths_on_cluster: bool,
    env: tuple[str, ...],
    again: bool,
    no_wait: bool,
    dry_run: bool,
) -> None:
    """Run score, report, filter, pairs, train, calibrate, evaluate or strictness on a Ray cluster that has csrm.

    Policies travel along; inputs, models and outputs are on s3://, or with --paths-on-cluster on a filesystem that all
    nodes share, which is all that train, calibrate, evaluate and strictness know. The job has the credentials of the
    cluster, and none of yours.

    A command, its policies and a day (--date's, or else today, UTC) make the job's id. While a job of that id runs,
    the same submit follows it; once it has succeeded, there is nothing to do; once it has failed or was stopped, it
    runs again, and goes on where it was.

    The job's log goes to standard output. The exit code is the command's, 143 if the job was stopped, 1 if it never
    came to run; 130 after Ctrl-C, which leaves the job alone.

    \b
    Examples:
      csrm submit -- score s3://lake/{date}/ -c policies/ -o s3://matrix/{date} --date yesterday
      csrm submit --address http://head:8265 --num-gpus 8 -- score s3://lake/chats/ -c policies/ -o s3://lake/matrix
      csrm submit --paths-on-cluster -- score /shared/chats.jsonl -c policies/ -o /shared/matrix
    """
    from rich.console import Console

    from jobs.submission import Submission, read_variables
    from jobs.summary import say

    arguments = [command[0], *_for_gpus(command[0], num_gpus), *command[1:]]
    root = context.find_root()
    submission = Submission.of(root, arguments, read_variables(env), paths_on_cluster=paths_on_cluster)
    out, err = Console(), Console(stderr=True)
    if dry_run:
        _describe(submission, out)
        return
    server = connect(address, err)
    job = _start(server, submission, again, err)
    if no_wait:
        say(out, job.id)
    elif job.is_over:
        say(err, f"{job.id}: has {job.status.lower()} already; --again runs it anew")
    else:
        attend(server, job.id, out, err)


def connect(address: str | None, err: Console) -> JobServer:
    """The job server at an address, or where the environment says."""
    from jobs.job_client import find_address
    from jobs.job_server import JobServer
    from jobs.summary import say

    return JobServer(find_address(address), lambda text: say(err, text))


def attend(server: JobServer, id: str, out: Console, err: Console) -> None:
    """Show a job's log to its end, and end the process with its exit code."""
    from jobs.job_log import follow
    from jobs.summary import say

    try:
        job = follow(server, id, lambda text: _show(text, out))
    except KeyboardInterrupt:
        place = f"--address {server.address}"
        say(err, f"detached, {id} goes on; to follow it: csrm jobs logs {id} --follow {place}")
        say(err, f"to stop it: csrm jobs stop {id} {place}")
        raise click.exceptions.Exit(DETACHED_EXIT) from None
    say(err, _closing_line(job))
    if job.exit_code:
        raise click.exceptions.Exit(job.exit_code)


def _show(text: str, out: Console) -> None:
    """Show part of a log; a terminal shall not obey what is in it."""
    from jobs.summary import tame

    out.file.write(tame(text.expandtabs()))
    out.file.flush()


def _for_gpus(name: str, num_gpus: int | None) -> list[str]:
    """Arguments by which a command uses as many GPUs."""
    if num_gpus is None:
        return []
    if name == "score":
        return ["--num-gpus", str(num_gpus)]
    if name == "train":
        return ["--use-gpu", "--num-workers", str(num_gpus)]
    raise click.UsageError(f"--num-gpus is of score and train; {name} takes what it finds")


def _start(server: JobServer, submission: Submission, again: bool, err: Console) -> Job:
    """The job of a submission: one that is there, or a new one under the next free number."""
    from jobs.submission import attempts_of, next_id
    from jobs.summary import say

    attempts = attempts_of(submission.id, {job.id: job for job in server.jobs()})
    latest = attempts[-1] if attempts else None
    if latest and not latest.is_over:
        say(err, f"{latest.id}: is {latest.status.lower()} already; following it")
        return latest
    if latest and latest.status == "SUCCEEDED" and not again:
        return latest
    id = next_id(submission.id, latest and latest.id)
    is_new = server.submit(submission, id)
    say(err, f"{id}: {'submitted' if is_new else 'was just submitted by somebody else; following it'}")
    return server.job(id)


def _closing_line(job: Job) -> str:
    """How a job ended."""
    if job.status == "FAILED" and job.driver_exit_code is None:
        return f"{job.id}: failed before it ran: {job.message.strip() or 'Ray does not say why'}"
    if job.driver_exit_code == NOT_FOUND:
        return f"{job.id}: failed: the cluster's head has no csrm on its PATH; install it there"
    return f"{job.id}: {job.status.lower()}" + (f", exit code {job.exit_code}" if job.exit_code else "")


NOT_FOUND = 127
"""Exit code of a shell that does not find a command."""


def _describe(submission: Submission, out: Console) -> None:
    from jobs.summary import say

    say(out, f"id:       {submission.id}\ncommand:  {submission.entrypoint}")
    for name, text in sorted(submission.files.items()):
        say(out, f"file:     {name} ({len(text):,} bytes)")
    for name, value in sorted(submission.environment.items()):
        say(out, f"variable: {name}={value}")
