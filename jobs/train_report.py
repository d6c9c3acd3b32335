"""What a training run shows: its data, its progress, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from jobs.progress import PLAIN_INTERVAL_S, clock_time, live_bar
from jobs.summary import say
from jobs.train_log import latest_step, read_steps

if TYPE_CHECKING:
    from jobs.train_data import Material

__all__ = ["follow", "show_material", "show_report", "summarise"]

LOOK_INTERVAL_S = 0.5


def show_material(material: Material, console: Console) -> None:
    """Say what was read, and what was left out and why."""
    training = material.training
    num_clauses = len({clause for row in training.rows for clause in row.clauses})
    say(
        console,
        f"{len(training.rows):,} rows about {num_clauses:,} clauses to train on, "
        f"{len(training.preferences):,} preference pairs, {len(training.strictness):,} strictness pairs; "
        f"{len(material.held):,} rows about other clauses kept out for calibration",
    )
    for what, quality in (("rows", material.rows), ("preferences", material.preferences)):
        for line in quality.lines():
            say(console, f"{what}: {line}")


@contextmanager
def follow(log: Path, num_steps: int, console: Console) -> Iterator[None]:
    """Show the latest step while the body runs: a bar on a terminal, an occasional line elsewhere."""
    over = threading.Event()
    bar = live_bar(console)
    watcher = threading.Thread(target=_watch, args=(log, num_steps, console, bar, over), daemon=True)
    with bar:
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _watch(log: Path, num_steps: int, console: Console, bar: Progress, over: threading.Event) -> None:
    task = bar.add_task("starting the workers", total=num_steps)
    said_at, said, first = time.monotonic(), 0, None
    while True:
        is_over = over.wait(LOOK_INTERVAL_S)
        step = latest_step(log)
        if step is not None:
            first = first or (step["step"], time.monotonic())
            line = _line(step, num_steps, first)
            bar.update(task, completed=step["step"], description=line)
            is_due = is_over or time.monotonic() - said_at >= PLAIN_INTERVAL_S
            if not console.is_terminal and is_due and step["step"] != said:
                said_at, said = time.monotonic(), step["step"]
                say(console, line)
        if is_over:
            return


def _line(step: Mapping[str, Any], num_steps: int, first: tuple[int, float]) -> str:
    number = step["step"]
    done, seconds = number - first[0], time.monotonic() - first[1]
    left_s = seconds / done * (num_steps - number) if done > 0 else None
    parts = [f"step {number:,}/{num_steps:,}", f"loss {step['loss']:.4f}", f"accuracy {step['accuracy']:.3f}"]
    for name in ("strictness", "preference"):
        if step[f"{name}_margin"] is not None:
            parts.append(f"{name} margin {step[f'{name}_margin']:+.2f}")
    parts.append(f"{step['tokens_per_s']:,.0f} tokens/s")
    return " · ".join(parts + ([f"{clock_time(left_s)} to go"] if left_s is not None else []))


def summarise(log: Path) -> dict[str, Any]:
    """Totals of a run and the means of its last steps."""
    steps = read_steps(log)
    last = steps[-min(len(steps), 50) :]
    names = ("loss", "classification", "strictness", "preference", "accuracy")
    names += ("strictness_margin", "preference_margin")
    known = {name: [step[name] for step in last if step[name] is not None] for name in names}
    return {
        "steps": len(steps),
        "tokens": sum(step["num_tokens"] for step in steps),
        "seconds": round(sum(step["seconds"] for step in steps), 1),
        "last_steps": len(last),
        "last": {name: round(sum(values) / len(values), 5) for name, values in known.items() if values},
    }


def show_report(report: Mapping[str, Any], output: Path, console: Console) -> None:
    """Say how the run ended."""
    last = " · ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in report["last"].items())
    say(
        console,
        f"{report['steps']:,} steps · {report['tokens']:,} tokens · {clock_time(report['seconds'])} · "
        f"{report['tokens'] / max(report['seconds'], 1e-3):,.0f} tokens/s",
    )
    say(console, f"means of the last {report['last_steps']} steps: {last}")
    calibration = report["calibration"]
    if calibration["cells"]:
        say(
            console,
            f"calibrated on {calibration['cells']:,} cells of held-out clauses: "
            f"scale {calibration['scale']:.3f}, bias {calibration['bias']:+.3f}",
        )
    say(console, f"wrote {output}")
