"""What can be asked of a Ray cluster's job server, over HTTP: the cluster itself need not be reached."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csrm.errors import ClusterError
from jobs.job_client import UnreachableError, connect, told
from jobs.staging import write_files
from jobs.submission import Submission
from jobs.termination import TERMINATED_EXIT

__all__ = ["Job", "JobServer"]

SUBMIT_S = 60.0
"""How long a submission is tried: the agent that starts jobs comes up after the server does."""
STOP_S = 120.0
"""Longest wait for the end of a job that is stopped; after 60 s it is killed."""
POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the server knows of a job."""

    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    entrypoint: str = ""
    driver_exit_code: int | None = None
    """Of the command; None where there is none, or where it was stopped."""
    message: str = ""
    """Why it failed, in as many lines as Ray likes."""
    started: int | None = None
    """In milliseconds since the epoch."""
    ended: int | None = None

    @classmethod
    def of(cls, details: Any) -> Job:
        """From Ray's `JobDetails`."""
        return cls(
            id=details.submission_id or details.job_id or "",
            status=str(details.status.value),
            entrypoint=details.entrypoint,
            driver_exit_code=details.driver_exit_code,
            message=details.message or "",
            started=details.start_time,
            ended=details.end_time,
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def exit_code(self) -> int:
        """Of a process that stands for the job: its command's, 143 if it was stopped, 1 if it never came to run."""
        if self.status == "STOPPED":
            return TERMINATED_EXIT
        code = self.driver_exit_code
        if code is None:
            return 0 if self.status == "SUCCEEDED" else 1
        return 128 - code if code < 0 else code  # a signal's, as shells tell it


class JobServer:
    """The server at an address.

    Raises:
        ClusterError: There is none, or it speaks another language.
    """

    def __init__(self, address: str, say: Callable[[str], None] = lambda text: None):
        """Connect.

        Args:
            address: as `find_address` returns it.
            say: told what does not stop us.
        """
        self.address = address
        self.client = connect(address, say)

    def job(self, id: str) -> Job:
        """Look a job up.

        Raises:
            ClusterError: There is none of that id.
        """
        with told(self.address, id):
            return Job.of(self.client.get_job_info(id))

    def jobs(self) -> list[Job]:
        """Submitted jobs, the latest first."""
        with told(self.address):
            found = [Job.of(one) for one in self.client.list_jobs() if one.submission_id]
        return sorted(found, key=lambda job: job.started or 0, reverse=True)

    def log(self, id: str) -> str:
        """All that a job has said."""
        with told(self.address, id):
            return str(self.client.get_job_logs(id))

    def submit(self, submission: Submission, id: str) -> bool:
        """Start a job; return whether it was not there before.

        Raises:
            ClusterError: The server does not take it.
        """
        deadline = time.monotonic() + SUBMIT_S
        while True:
            try:
                return self._submit(submission, id)
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)

    def stop(self, id: str) -> Job:
        """Have a job end, and wait until it has.

        Raises:
            ClusterError: There is no such job, or it does not end.
        """
        deadline = time.monotonic() + STOP_S
        if not self.job(id).is_over:
            with told(self.address, id):
                self.client.stop_job(id)
        while not (job := self.job(id)).is_over:
            if time.monotonic() > deadline:
                raise ClusterError(f"{id}: still {job.status.lower()} after {STOP_S:.0f} s; look at {self.address}")
            time.sleep(POLL_S)
        return job

    def _submit(self, submission: Submission, id: str) -> bool:
        environment: dict[str, Any] = {"env_vars": submission.environment}
        with tempfile.TemporaryDirectory(prefix="csrm-") as folder, told(self.address, id):
            if submission.files:
                write_files(submission.files, Path(folder))
                environment["working_dir"] = folder
            try:
                self.client.submit_job(entrypoint=submission.entrypoint, submission_id=id, runtime_env=environment)
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                return False
        return True
