"""`csrm jobs`: what was submitted to a cluster, its logs, and its end."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from jobs.submit import address_option, attend, connect

if TYPE_CHECKING:
    from jobs.job_server import Job

__all__ = ["jobs_group"]

SHOWN_CHARACTERS = 200


@click.group(name="jobs")
def jobs_group() -> None:
    """List, follow and stop the jobs that were submitted to a cluster.

    \b
    Examples:
      csrm jobs list
      csrm jobs logs csrm-score-2026-11-20-5f2c91d07b --follow
      csrm jobs stop csrm-score-2026-11-20-5f2c91d07b
    """


@jobs_group.command(name="list")
@address_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_(address: str | None, as_json: bool) -> None:
    """List the jobs that the cluster remembers, the latest first: start, status, exit code, id, command.

    \b
    Example:
      csrm jobs list --address http://127.0.0.1:8265
    """
    from rich.console import Console

    from jobs.summary import say

    found = connect(address, Console(stderr=True)).jobs()
    if as_json:
        click.echo(json.dumps([_plain(job) for job in found], ensure_ascii=False))
        return
    for job in found:
        say(Console(), _line(job))


@jobs_group.command()
@click.argument("id")
@address_option
@click.option("-f", "--follow", is_flag=True, help="Stay until the job is over; the exit code is then the job's.")
def logs(id: str, address: str | None, follow: bool) -> None:
    """Show what a job has said so far, or with --follow until it is over. Ctrl-C leaves the job alone.

    \b
    Example:
      csrm jobs logs csrm-score-2026-11-20-5f2c91d07b --follow
    """
    from rich.console import Console

    from jobs.summary import tame

    out, err = Console(), Console(stderr=True)
    server = connect(address, err)
    server.job(id)
    if follow:
        attend(server, id, out, err)
    else:
        out.file.write(tame(server.log(id).expandtabs()))


@jobs_group.command()
@click.argument("id")
@address_option
def stop(id: str, address: str | None) -> None:
    """Stop a job, and wait until it has ended. What it has committed stays; the same submit goes on from there.

    \b
    Example:
      csrm jobs stop csrm-score-2026-11-20-5f2c91d07b
    """
    from rich.console import Console

    from jobs.summary import say

    job = connect(address, Console(stderr=True)).stop(id)
    say(Console(), f"{job.id}: {job.status.lower()}")


def _plain(job: Job) -> dict[str, object]:
    found = asdict(job) | {"started": _time(job.started), "ended": _time(job.ended)}
    return found | {"exit_code": job.exit_code if job.is_over else None}


def _line(job: Job) -> str:
    """One line, however wide: to be read, searched and cut by other programs too."""
    from jobs.summary import printable

    code = str(job.exit_code) if job.is_over else ""
    facts = f"{_time(job.started) or '':25}  {job.status.lower():9}  {code:>3}"
    return f"{facts}  {printable(job.id)}  {printable(job.entrypoint, SHOWN_CHARACTERS)}"


def _time(milliseconds: int | None) -> str | None:
    """UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
