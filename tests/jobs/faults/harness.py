"""A scoring job as processes of its own, and ways to hurt it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

MARK = "CSRM_FAULT_TEST"
"""Environment variable that tells the processes of one test from all others."""
LIMIT_S = 300.0
"""Longest time of one run on a busy machine."""


@contextlib.contextmanager
def marked() -> Iterator[str]:
    """What is started within the `with` block can be told from other processes; killed at its end."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[MARK]
        for process in processes(mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def processes(mark: str, title: str = "") -> list[psutil.Process]:
    """Processes that carry a mark, and `title` in their command lines."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()) and process.environ().get(MARK) == mark:
                found.append(process)
    return found


class Run:
    """`csrm score` in a process of its own."""

    def __init__(self, *arguments: str, log: Path, environment: dict[str, str]):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("csrm"), "score", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"no end after {LIMIT_S:.0f} s; it said:\n{self.output}")

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Return whether a condition came true before the run was over."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if self.is_over:
                return condition()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return True


def committed(target: Path) -> dict[Path, int]:
    """Commit records of a target and the times at which they were written."""
    found = {}
    for path in (target / "_csrm" / "commits").glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def matrix(target: Path) -> dict[str, bytes]:
    """Files of a matrix."""
    return {str(path.relative_to(target)): path.read_bytes() for path in (target / "matrix").rglob("*.parquet")}


def kill_while_running(
    run: Run, victims: Callable[[], list[psutil.Process]], random: Random, target: Path, most: int
) -> tuple[int, dict[Path, int]]:
    """Kill one of `victims` at random moments until the run is over.

    Returns:
        Number of kills, and the commit records that stood at the last one.
    """
    run.wait_until(lambda: bool(victims()))
    num_kills, before = 0, {}
    while num_kills < most:
        moment = time.monotonic() + random.uniform(0.2, 2.5)
        run.wait_until(lambda moment=moment: time.monotonic() > moment and bool(victims()))
        if run.is_over:
            break
        before = committed(target)
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            random.choice(victims()).kill()
            num_kills += 1
    return num_kills, before
