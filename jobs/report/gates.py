"""Limits that a nightly job sets: what a matrix must not exceed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from csrm.errors import InputError
from jobs.nearest import nearest
from jobs.report.findings import Column, Findings, Rate

__all__ = ["EVERY", "Gate", "Limits", "check_names", "judge", "read_rates"]

EVERY = ""
"""Stands for all configurations that have no limit of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was asked for; None asks for nothing."""

    violation_rates: dict[str, float]
    """By configuration."""
    drift: float | None = None
    error_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit and what was found."""

    name: str
    value: float | None
    """None where nothing was scored."""
    limit: float
    note: str = ""
    num_unscored: int = 0
    """Rows that nobody looked at; a gate must not open because of that, so it fails."""

    @property
    def is_passed(self) -> bool:
        """Whether the limit is kept."""
        return self.value is not None and not self.num_unscored and self.value <= self.limit

    @property
    def text(self) -> str:
        """One line."""
        found = "nothing was scored" if self.value is None else f"{self.value:.6g}{self.note}"
        missing = f"; {self.num_unscored:,} rows were never scored under it" if self.num_unscored else ""
        return f"gate {self.name}: {found}, the limit is {self.limit:g}{missing}"


def read_rates(texts: Sequence[str]) -> dict[str, float]:
    """Read `children=0.02`, or `0.02` for every configuration.

    Raises:
        ValueError: One is neither, or no share.
    """
    rates: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            rates[name.strip()] = float(number)
        except ValueError:
            raise ValueError(f"{text!r} is not ID=RATE, as in children=0.02") from None
        if not 0 <= rates[name.strip()] <= 1:
            raise ValueError(f"{text!r}: a rate lies between 0 and 1")
    return rates


def check_names(limits: Limits, ids: Sequence[str], baseline: Sequence[str]) -> None:
    """Raise where a limit would never be looked at.

    Args:
        limits: that are set.
        ids: of configurations.
        baseline: of those of the baseline.

    Raises:
        InputError: There is no such configuration, or none to compare.
    """
    if limits.drift is not None and not set(ids).intersection(baseline):
        raise InputError("--max-drift: the baseline has none of the configurations; choose another --baseline")
    for name in limits.violation_rates:
        if name not in ids and name != EVERY:
            raise InputError(f"--max-violation-rate {name}: no such configuration; {nearest(name, ids)}")


def judge(findings: Findings, limits: Limits) -> list[Gate]:
    """Compare what was found with the limits."""
    gates = [gate for column in findings.columns for gate in _column_gates(column, limits)]
    if limits.error_rate is not None:
        rate = findings.error_rate
        gates.append(Gate("error rate", rate.value, limits.error_rate, _counts(rate)))
    return gates


def _column_gates(column: Column, limits: Limits) -> Iterator[Gate]:
    limit = limits.violation_rates.get(column.id, limits.violation_rates.get(EVERY))
    if limit is not None:
        yield Gate(
            f"violation rate of {column.id}", column.rate.value, limit, _counts(column.rate), column.num_unscored
        )
    change = column.change
    if limits.drift is not None and change is not None:
        is_few = change.drift_by_chance > limits.drift
        note = f" (by chance up to {change.drift_by_chance:.2g} of so few rows)" if is_few else ""
        yield Gate(f"drift of {column.id}", change.drift, limits.drift, note)


def _counts(rate: Rate) -> str:
    return f" ({rate.count:,} of {rate.total:,})"
