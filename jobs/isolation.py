"""Finding the one record that makes scoring fail, so that it alone has no scores.

A failure that is raised is met where it happens: records are halved until single ones fail alone. One that takes the
process with it (a crash in native code, a kill for want of memory) or never ends leaves nobody to do that. So a scorer
notes what it is about to score before it starts, and the process that takes its place learns over what its predecessor
died: after a second death the records are halved there too, until a single one is left, which is given up.

_csrm/attempts/<shard>.json         gone when the shard is scored
_csrm/attempts/<shard>.read.json    gone when the pass that starts with it is read
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from csrm.errors import CSRMError
from jobs.commits import ATTEMPTS
from jobs.losses import UnreadableError
from jobs.storage import Folder

__all__ = ["Notes", "Part", "Watchdog", "isolate", "outlived"]

DIED = "its process died when it was scored"
HUNG_EXIT = 86
MOST_DEATHS = 5
"""Of readers over one pass; they die for reasons of their own more often than over a record."""


class Part(NamedTuple):
    """Records from `start` to before `end` that were scored together."""

    start: int
    end: int
    scores: Any


@dataclass(slots=True)
class Attempt:
    """Where the scoring of a shard stands."""

    todo: list[tuple[int, int]]
    """Ranges of records that are scored one after the other: all of the shard but `failed`."""
    running: tuple[int, int] | None = None
    """The range that is being scored, or over which a process died."""
    num_deaths: int = 0
    """Of processes over that range, before this one."""
    reason: str = DIED
    """Of the next death, should there be one."""
    failed: dict[int, str] = field(default_factory=dict)
    """Records that were given up, and why."""
    job: int | None = None
    """Generation of the lock under which this was noted: who killed an earlier job says nothing of a record."""

    def after_death(self) -> None:
        """Draw the lesson from a process that died over the running range."""
        assert self.running is not None
        start, end = self.running
        is_whole = len(self.todo) == 1 and not self.failed
        # The whole shard and a single record get a second chance: processes die for reasons of their own.
        if self.num_deaths == 0 and (is_whole or end - start == 1):
            self.num_deaths = 1
        else:
            place = self.todo.index(self.running)
            if end - start == 1:
                self.todo[place : place + 1] = []
                self.failed[start] = self.reason
            else:
                middle = (start + end) // 2
                self.todo[place : place + 1] = [(start, middle), (middle, end)]
            self.running, self.num_deaths = None, 0
        self.reason = DIED


class Notes:
    """What the processes that score one shard leave for each other."""

    def __init__(self, target: Folder, shard: str, job: int | None):
        """Name the place; without a lock (`job` None) nothing is noted, and every attempt is the first."""
        self.target, self.name, self.job = target, f"{ATTEMPTS}/{shard}.json", job

    def load(self, num_records: int) -> Attempt:
        """Where the scoring stands; a fresh start where nothing was noted by this job."""
        fresh = Attempt([(0, num_records)], job=self.job)
        if self.job is None:
            return fresh
        try:
            noted = json.loads(self.target.read([self.name])[self.name])
        except FileNotFoundError:
            return fresh
        if noted["job"] != self.job:
            return fresh
        noted["todo"] = [tuple(one) for one in noted["todo"]]
        noted["running"] = noted["running"] and tuple(noted["running"])
        noted["failed"] = {int(record): reason for record, reason in noted["failed"].items()}
        attempt = Attempt(**noted)
        attempt.after_death()
        return attempt

    def save(self, attempt: Attempt) -> None:
        """Note what is about to happen."""
        if self.job is not None:
            self.target.publish(self.name, json.dumps(asdict(attempt)).encode())

    def clear(self) -> None:
        """Forget the shard, which is scored."""
        if self.job is not None:
            self.target.remove([self.name])


@contextlib.contextmanager
def outlived(target: Folder, shard: str, job: int | None) -> Iterator[None]:
    """Give up what has killed several processes; for work that cannot be halved.

    Args:
        target: where deaths are counted.
        shard: the first of those that are worked on.
        job: as in `Notes`.

    Raises:
        UnreadableError: It has.
    """
    name = f"{ATTEMPTS}/{shard}.read.json"
    if job is None:
        yield
        return
    num_deaths = _deaths(target, name, job)
    if num_deaths >= MOST_DEATHS:
        raise UnreadableError(f"{num_deaths} processes died when they read it")
    target.publish(name, json.dumps({"job": job, "num_deaths": num_deaths + 1}).encode())
    try:
        yield
    finally:
        target.remove([name])


def _deaths(target: Folder, name: str, job: int) -> int:
    try:
        noted = json.loads(target.read([name])[name])
    except FileNotFoundError:
        return 0
    return int(noted["num_deaths"]) if noted["job"] == job else 0


def isolate(
    score: Callable[[int, int], Any], num_records: int, notes: Notes, watchdog: Watchdog
) -> tuple[list[Part], dict[int, str]]:
    """Score the records of a shard, those apart that cannot be.

    Args:
        score: scores records from a start to before an end, or raises.
        num_records: of the shard.
        notes: of its earlier attempts.
        watchdog: ends the process when a batch takes too long.

    Returns:
        What was scored, in order; and the records that were not, with reasons.
    """
    attempt = notes.load(num_records)
    suspect, num_deaths = attempt.running, attempt.num_deaths
    parts: list[Part] = []
    failed = dict(attempt.failed)
    for start, end in attempt.todo:
        attempt.running = (start, end)
        attempt.num_deaths = num_deaths if attempt.running == suspect else 0
        notes.save(attempt)

        def gave_up(reason: str) -> None:
            attempt.reason = reason
            notes.save(attempt)

        with watchdog.watching(gave_up):
            found, raised = _halved(score, start, end)
        parts += found
        failed |= raised
    notes.clear()
    return parts, failed


def _halved(score: Callable[[int, int], Any], start: int, end: int) -> tuple[list[Part], dict[int, str]]:
    try:
        return [Part(start, end, score(start, end))], {}
    except CSRMError:
        raise  # no record's fault
    except Exception as error:
        if _spoils_process(error):
            os._exit(1)
        if end - start == 1:
            return [], {start: f"scoring failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
    middle = (start + end) // 2
    first, second = _halved(score, start, middle), _halved(score, middle, end)
    return first[0] + second[0], first[1] | second[1]


def _spoils_process(error: Exception) -> bool:
    """Whether nothing works any more after an error: a CUDA context that met one answers every call with it."""
    return "CUDA error" in str(error)


class Watchdog:
    """Ends the process when nobody has been heard of for too long: a hang can be ended in no other way."""

    def __init__(self, seconds: float | None):
        """Wait this long between two signs of life; None waits for ever."""
        self.seconds = seconds
        self._heard, self._stop = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._last_words: Callable[[str], None] = lambda reason: None

    def watching(self, last_words: Callable[[str], None]) -> Self:
        """Watch within a `with` block; `last_words` is called with the reason before the end."""
        self._last_words = last_words
        return self

    def __enter__(self) -> Self:
        if self.seconds is not None:
            self._heard, self._stop = threading.Event(), False
            self._thread = threading.Thread(target=self._watch, name="csrm-watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._stop = True
        self.alive()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def alive(self) -> None:
        """Give a sign of life."""
        self._heard.set()

    def _watch(self) -> None:
        while not self._stop:
            if not self._heard.wait(self.seconds):
                try:
                    self._last_words(f"scoring took longer than {self.seconds:g} s")
                finally:  # a target that takes no notes is no reason to hang for ever
                    os._exit(HUNG_EXIT)
            self._heard.clear()
