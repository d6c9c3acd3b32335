"""Metrics of a training run, a line of JSON per step: written by the first worker, followed by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csrm.training.trainer import Step

__all__ = ["StepLog", "latest_step", "read_steps"]


class StepLog:
    """The file of metrics; a step that is done again after a restart takes the place of its first attempt."""

    def __init__(self, path: str | Path, *, writes: bool = True):
        """Args: path: the file; writes: whether this process is the one that writes it."""
        self.path, self.writes = Path(path), writes

    def rewind(self, num_done: int) -> None:
        """Keep the steps up to a checkpoint's; also what a kill left half written goes."""
        if self.writes:
            kept = [step for step in read_steps(self.path) if step["step"] <= num_done]
            whole = self.path.with_name(f"{self.path.name}.new")
            whole.write_text("".join(json.dumps(step) + "\n" for step in kept), encoding="utf-8")
            whole.replace(self.path)

    def add(self, step: Step) -> None:
        """Write a step."""
        if self.writes:
            values = asdict(step)
            line = {"step": values.pop("number"), **values, "tokens_per_s": round(step.tokens_per_s, 1)}
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")


def read_steps(path: str | Path) -> list[dict[str, Any]]:
    """Whole lines of a log, which may not be there yet."""
    return list(_steps(Path(path)))


def _steps(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def latest_step(path: str | Path) -> dict[str, Any] | None:
    """The last whole line of a log, None if there is none yet; reads its end only."""
    try:
        with Path(path).open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 8192))
            lines = log.read().split(b"\n")
    except FileNotFoundError:
        return None
    return json.loads(lines[-2]) if len(lines) > 1 and lines[-2].startswith(b"{") else None
