"""One writer to a target: a second job is refused while the first one lives, and takes over when it is dead.

_csrm/lock/<generation>.json    who writes; the highest generation counts

A lock is taken by creating the next generation, which one process alone can do. Its holder rewrites the file every few
seconds. Whoever finds it watches: if the file changes, the holder is alive; if it does not for a while, or its process
is gone from this machine, the next generation is free to take. A holder that was only slow sees a generation above its
own and stops; its workers look too, before they commit anything.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from csrm.errors import CSRMError, InputError, TargetError
from jobs.storage import Folder

__all__ = ["BEAT_S", "LEASE_S", "Holder", "Lock", "check_generation"]

LOCK = "_csrm/lock"

BEAT_S = 5.0
"""Seconds between two signs of life."""
SETTLE_S = 2.0
"""Seconds after which no write that began before ours ended is still under way."""
LEASE_S = 45.0
"""Seconds without one after which a holder counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lock."""

    token: str
    """Nobody else's."""
    who: str
    """For people: user, machine, process."""
    place: str
    """Machine, boot and process namespace, within which `pid` means something; empty where that is not known."""
    pid: int
    started: str
    """When the process started, as the kernel tells it: a number may be given again."""
    since: str
    """UTC."""
    beat: int = 0
    """Signs of life so far."""
    released: bool = False

    @classmethod
    def this_process(cls) -> Holder:
        """The process that asks."""
        pid = os.getpid()
        return cls(
            token=uuid.uuid4().hex,
            who=f"{_user()} on {platform.node()}, process {pid}",
            place=_place(),
            pid=pid,
            started=_started(pid),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def is_gone(self) -> bool:
        """Whether this is a process of this machine that has ended. False where nobody can tell."""
        return bool(self.place) and self.place == _place() and _started(self.pid) != self.started

    def encode(self) -> bytes:
        """As the lock file holds it."""
        return json.dumps(asdict(self)).encode()


class Lock:
    """The right to write to a target, for as long as the `with` block lasts.

    Raises:
        TargetError: Somebody else is writing there, or the store cannot keep two writers apart.
    """

    def __init__(
        self,
        target: Folder,
        *,
        say: Callable[[str], None] = lambda text: None,
        beat_s: float = BEAT_S,
        lease_s: float = LEASE_S,
    ):
        """Prepare to ask.

        Args:
            target: what is written to.
            say: told why it takes time.
            beat_s: see `BEAT_S`.
            lease_s: see `LEASE_S`.
        """
        self.target, self.say, self.beat_s, self.lease_s = target, say, beat_s, lease_s
        self.holder = Holder.this_process()
        self.generation = 0
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="csrm-lock", daemon=True)

    def __enter__(self) -> Self:
        _refuse_without_conditional_writes(self.target)
        while not self.generation:
            number, other = _newest(self.target)
            if other is not None:
                self._wait_until_dead(number, other)
            if self.target.create(_name(number + 1), self.holder.encode()) and self._is_ours(number + 1):
                self.generation = number + 1
        self.target.remove([_name(n) for n in _generations(self.target) if n < self.generation])
        self._beats.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._stop.set()
        self._beats.join()
        # Where the target takes no more data, the lock goes as a dead holder's does.
        with contextlib.suppress(OSError, CSRMError):
            if not self.is_lost:
                self.target.publish(_name(self.generation), replace(self.holder, released=True).encode())

    @property
    def is_lost(self) -> bool:
        """Whether somebody has taken over."""
        return not _is_newest(self.target, self.generation)

    def _is_ours(self, generation: int) -> bool:
        """Whether a generation that we created is still ours a moment later.

        Not every store decides between writers that come at the same moment (of eight at once, seven succeeded on
        OpenStack Swift): the last one's data is what stays, and all of them look once they are done.
        """
        if self.target.is_remote:
            time.sleep(SETTLE_S)
        number, other = _newest(self.target)
        return number == generation and other is not None and other.token == self.holder.token

    def _wait_until_dead(self, number: int, other: Holder) -> None:
        """Return once a holder has released the lock, is known to be gone, or gave no sign of life for long enough.

        Raises:
            TargetError: It gives one.
        """
        deadline = time.monotonic() + self.lease_s
        told = False
        while not (other.released or other.is_gone or time.monotonic() > deadline):
            if not told:
                self.say(f"{other.who} has been writing here since {other.since}; waiting for a sign of life")
                told = True
            time.sleep(self.beat_s / 2)
            newest, holder = _newest(self.target)
            holder = holder or other
            if newest != number or holder.beat != other.beat:
                raise TargetError(
                    f"{self.target.url}: {holder.who} has been writing here since {holder.since}; "
                    "wait until it is done, or choose another --output"
                )
            other = holder  # may have been released meanwhile

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_s):
            # A store that cannot be reached now may be later; if not, the lease ends, as it should.
            with contextlib.suppress(OSError, CSRMError):
                if self.is_lost:
                    return
                self.holder = replace(self.holder, beat=self.holder.beat + 1)
                self.target.publish(_name(self.generation), self.holder.encode())


def check_generation(target: Folder, generation: int) -> None:
    """Raise where a later job writes to a target.

    Raises:
        TargetError: One does.
    """
    if not _is_newest(target, generation):
        raise TargetError(f"{target.url}: another job took over, since this one gave no sign of life; it stops here")


def _name(generation: int) -> str:
    return f"{LOCK}/{generation:010d}.json"


def _generations(target: Folder) -> list[int]:
    """Generations that there are, ascending."""
    return sorted(int(Path(name).stem) for name in target.sizes(LOCK) if Path(name).stem.isdigit())


def _is_newest(target: Folder, generation: int) -> bool:
    return _generations(target)[-1:] == [generation]


def _newest(target: Folder) -> tuple[int, Holder | None]:
    """The generation that counts and its holder; 0 without any."""
    generations = _generations(target)
    if not generations:
        return 0, None
    name = _name(generations[-1])
    try:
        return generations[-1], Holder(**json.loads(target.read([name])[name]))
    except FileNotFoundError:
        return _newest(target)  # its successor has just cleared it away
    except (ValueError, TypeError):
        raise InputError(f"{target.url}/{name}: not a lock; delete it if nobody writes there") from None


def _refuse_without_conditional_writes(target: Folder) -> None:
    """Raise where a store writes over a file although told not to: then two jobs may both think that they are alone.

    Raises:
        TargetError: It does.
    """
    probe = f"{LOCK}/probe-{uuid.uuid4().hex}"
    target.publish(probe, b"{}")
    is_overwritten = target.create(probe, b"{} ")
    target.remove([probe])
    if is_overwritten:
        raise TargetError(
            f"{target.url}: this store ignores conditional writes (If-None-Match), so two jobs could not be kept "
            "apart; write to another store or to a local folder"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start of a process in clock ticks since boot; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
