"""Progress of a run: a live line on a terminal, an occasional plain one elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jobs.summary import printable, say

__all__ = ["PLAIN_INTERVAL_S", "ProgressLine", "clock_time", "live_bar"]

PLAIN_INTERVAL_S = 15.0
"""Between plain lines, where there is no terminal."""


class ProgressLine:
    """Counts records and cells as shards are committed.

    Rates are taken from the moment the first shard started to be scored: loading models is not part of them.
    """

    def __init__(self, console: Console, num_records: int, clock: Callable[[], float] = time.time):
        self.console = console
        self.num_records = num_records
        self.num_done = 0
        self.num_cells = 0
        self.num_tokens = 0
        self.warned: set[str] = set()
        self.clock = clock
        self.started = self.latest = self.last_shown = clock()
        self.live = live_bar(console)
        self.task = self.live.add_task("starting Ray and loading the model", total=num_records)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.live.stop()

    def add(self, commit: Mapping[str, Any], started: float, scored: Collection[str]) -> None:
        """Count a shard whose scoring started then and which is committed now; show where the run stands.

        Args:
            commit: its record.
            started: in seconds since the epoch.
            scored: configurations that it was scored under; other columns stayed.
        """
        self.started = min(self.started, started) if self.num_done else started
        self.latest = self.clock()
        self.num_done += commit["num_records"]
        self.num_tokens += commit["num_tokens"]
        self.num_cells += sum(commit["summary"][name]["num_scored"] for name in scored)
        self.live.update(self.task, completed=self.num_done, description=self.line())
        if not self.console.is_terminal and self.latest - self.last_shown >= PLAIN_INTERVAL_S:
            self.last_shown = self.latest
            say(self.console, self.line())

    def warn(self, warnings: Iterable[str]) -> None:
        """Show each warning once."""
        for warning in warnings:
            if warning not in self.warned:
                self.warned.add(warning)
                say(self.console, f"warning: {printable(warning, 500)}")

    @property
    def seconds(self) -> float:
        """Time from the start of the first shard's scoring to the latest commit."""
        return max(self.latest - self.started, 1e-3)

    def line(self) -> str:
        """Return records done, rates, and the time that remains at the present rate."""
        seconds = self.seconds
        rate = self.num_done / seconds
        remaining = (self.num_records - self.num_done) / rate if rate else 0.0
        return (
            f"{self.num_done:,}/{self.num_records:,} records · {rate:,.0f} records/s · "
            f"{self.num_cells / seconds:,.0f} cells/s · {clock_time(remaining)} to go"
        )


def live_bar(console: Console) -> Progress:
    """A bar for one task, described as it goes; silent where there is no terminal."""
    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def clock_time(seconds: float) -> str:
    """Return a duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
