"""A job's log as it grows, across connections that break and a head that is away for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from csrm.errors import ClusterError
from jobs.job_client import UnreachableError, transport_errors

if TYPE_CHECKING:
    from jobs.job_server import Job, JobServer

__all__ = ["Log", "follow"]

LOST_S = 300.0
"""How long a job is followed without an answer."""
POLL_S = 1.0
SILENCE_S = 30.0
"""Without a line, whether the job still runs is asked for: a connection may be dead and not say so."""


class Log:
    """Shows a log once, from however many connections that begin at its start."""

    def __init__(self, show: Callable[[str], None]):
        self.show = show
        self.num_shown = 0

    def add(self, start: int, text: str) -> int:
        """Show what is new of a piece that begins at a position; return where it ends."""
        end = start + len(text)
        if end > self.num_shown:
            self.show(text[max(0, self.num_shown - start) :])
            self.num_shown = end
        return end


def follow(server: JobServer, id: str, show: Callable[[str], None]) -> Job:
    """Show a job's log until it is over.

    Raises:
        ClusterError: There is no such job, or no answer for too long.
    """
    log, heard = Log(show), time.monotonic()
    while True:
        try:
            _listen(server, id, log)
            job = server.job(id)
            heard = time.monotonic()
            if job.is_over:
                log.add(0, server.log(id))  # what the end of a connection may have cut off
                return job
        except UnreachableError as error:
            if time.monotonic() - heard > LOST_S:
                raise ClusterError(f"{error}; the job may go on: csrm jobs logs {id} --follow") from None
        time.sleep(POLL_S)


def _listen(server: JobServer, id: str, log: Log) -> None:
    """Show what one connection brings, in a thread: Ctrl-C must not wait until a connection lets itself be closed."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            asyncio.run(_tail(server, id, log))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
    if failed:
        raise failed[0]


async def _tail(server: JobServer, id: str, log: Log) -> None:
    """Show what one connection brings, until the job is over or the connection breaks."""
    chunks, position = server.client.tail_job_logs(id), 0
    while True:
        waiting = asyncio.ensure_future(anext(chunks, None))
        try:
            while not (await asyncio.wait({waiting}, timeout=SILENCE_S))[0]:
                if server.job(id).is_over:
                    return
            chunk = waiting.result()
        except (*transport_errors(), RuntimeError):
            return
        finally:
            waiting.cancel()
        if chunk is None:
            return
        position = log.add(position, chunk)
