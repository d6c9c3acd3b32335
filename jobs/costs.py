"""GPU-hours and money that a corpus would take, from what somebody measured with `csrm bench` on such a machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from csrm.errors import InputError
from jobs.nearest import nearest
from jobs.summary import say

__all__ = ["WHOLE_JOB", "Cost", "Measured", "price", "read_bench", "show_cost"]

WHOLE_JOB = 0.84
"""Of the bare engine's speed, that a whole job keeps (`tests/benchmarks/overhead.jsonl`, csrm-mini on a CPU)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One machine's run of `csrm bench`."""

    device: str
    model: str
    dtype: str
    conversation_tokens: int
    speeds: Mapping[int, float]
    """Tokens of conversations per second, by number of configurations."""

    def tokens_per_s(self, num_configurations: int) -> float:
        """Speed under some number of configurations, interpolated; beyond the largest one measured, as its trend."""
        points = sorted((number, 1 / speed) for number, speed in self.speeds.items())
        if len(points) == 1:
            return 1 / points[0][1]
        above = next((place for place, (number, _) in enumerate(points) if number >= num_configurations), len(points))
        (n, s), (m, t) = points[max(0, min(above - 1, len(points) - 2)) :][:2]
        # Time per token grows by a little for every configuration; noise must not let it fall below the measured.
        seconds = s + (t - s) * (num_configurations - n) / (m - n)
        return 1 / max(seconds, min(point[1] for point in points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run would take."""

    device_hours: float
    money: float | None
    """None without a price."""
    tokens_per_s: float
    """Of one device, in a whole job."""
    assumptions: tuple[str, ...]


def read_bench(path: str, device: str | None = None) -> Measured:
    """Read what `csrm bench` printed, JSON lines of one machine or of several.

    Args:
        path: a file of them.
        device: part of the name of one; the last line of that device counts. None takes the last line.

    Raises:
        InputError: The file holds none, or none of this device.
    """
    try:
        lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
        found = [_measured(line) for line in lines if line.get("benchmark") == "matrix"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write it with csrm bench > {path}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path}: not what csrm bench prints; write it with csrm bench > {path}") from None
    if not found:
        raise InputError(f"{path}: holds no measurement; write one with csrm bench > {path}")
    own = [one for one in found if device is None or device.casefold() in one.device.casefold()]
    if not own:
        names = sorted({one.device for one in found})
        raise InputError(f"{path}: no measurement of {device!r}; {nearest(device or '', names)}")
    return own[-1]


def price(
    num_tokens: float, num_configurations: int, measured: Measured, model: str, per_hour: float | None = None
) -> Cost:
    """Work out what tokens cost.

    Args:
        num_tokens: of all conversations to score.
        num_configurations: that each is scored under.
        measured: how fast one device is.
        model: name of the one to score with.
        per_hour: price of a device.
    """
    speed = WHOLE_JOB * measured.tokens_per_s(num_configurations)
    hours = num_tokens / speed / 3600
    return Cost(
        device_hours=hours,
        money=None if per_hour is None else hours * per_hour,
        tokens_per_s=speed,
        assumptions=tuple(_assumptions(measured, num_configurations, model)),
    )


def show_cost(cost: Cost, console: Console) -> None:
    """Print it, with what it rests on."""
    money = "" if cost.money is None else f" · {cost.money:,.2f} at the price given"
    say(
        console,
        f"{cost.device_hours:,.2f} device-hours{money} (estimate; {cost.tokens_per_s:,.0f} tokens/s of a device)",
    )
    for one in cost.assumptions:
        say(console, f"  assumed: {one}")


def _assumptions(measured: Measured, num_configurations: int, model: str) -> list[str]:
    numbers = sorted(measured.speeds)
    said = [
        f"{measured.device} runs {measured.model} ({measured.dtype}) on conversations of "
        f"{measured.conversation_tokens} tokens as csrm bench measured it; longer ones take more per token",
        f"a whole job keeps {WHOLE_JOB:.0%} of the engine's speed, as measured on a CPU",
        "devices are busy all the time: start-up, model loading and waiting for storage are not counted",
    ]
    if measured.model != model:
        said.insert(0, f"the measurement is of {measured.model}, not of {model}: measure that one for a figure of use")
    if not numbers[0] <= num_configurations <= numbers[-1]:
        said.append(
            f"{num_configurations} configurations lie outside of those measured ({numbers[0]} to {numbers[-1]})"
        )
    return said


def _measured(line: Mapping[str, Any]) -> Measured:
    speeds = {
        int(row["num_configurations"]): row["plain_tokens_per_s"] / row["engine_plain_passes"] for row in line["rows"]
    }
    if not speeds or not all(speed > 0 for speed in speeds.values()):
        raise ValueError("no speeds")
    return Measured(
        device=line.get("device_name") or line["device"],
        model=line["model"],
        dtype=line["dtype"],
        conversation_tokens=line["conversation_tokens"],
        speeds=speeds,
    )
