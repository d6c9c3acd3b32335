"""What a report says: rates with intervals, changes against a baseline, and where they are worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Configuration
from csrm.drift import stability_by_chance, stability_index
from csrm.rates import difference_p_value, holm, wilson_interval
from jobs.losses import Lost, num_lost_rows
from jobs.matrix import Matrix
from jobs.report.tally import NUM_BINS, Group, Tally
from jobs.storage import size_of

__all__ = ["Change", "Column", "Findings", "Partition", "Rate", "find", "plain"]

SHOWN_BINS = 20
SHOWN_CLAUSES = 10
SHOWN_PARTITIONS = 3
"""Of each configuration; the tables of partitions have all."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of rows."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """None without rows."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return wilson_interval(self.count, self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A configuration against the same one in the baseline, both by today's threshold."""

    rate: Rate
    """In the baseline."""
    mean_p_safe: float | None
    """In the baseline."""
    histogram: tuple[int, ...]
    """In the baseline."""
    p_value: float
    """Of the rates being one; adjusted for the number of configurations."""
    drift: float | None
    """Population stability index of p_safe."""
    drift_by_chance: float
    """What the index stays below 95 times in 100 where nothing has moved."""
    notes: tuple[str, ...]
    """What else is different, and may be why."""

    @property
    def is_significant(self) -> bool:
        """At 5 %."""
        return self.p_value < 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One configuration."""

    id: str
    title: str
    threshold: float
    rate: Rate
    """Of violations, among scored rows."""
    mean_p_safe: float | None
    histogram: tuple[int, ...]
    """Rows by p_safe, in equal steps from 0 to 1."""
    clauses: tuple[tuple[str, int], ...]
    """Violated most, with rows; empty unless the matrix was scored with --explain."""
    num_unscored: int
    """Rows without an error that were never scored under it: a run with it has to come yet."""
    num_versions: int
    """Texts, models or calibrations that its rows were scored with; more than one makes rates a mixture."""
    worst_partitions: tuple[tuple[str, str, Rate], ...]
    """Column, value and rate; by the lower end of the interval, so that few rows alone make none the worst."""
    change: Change | None
    """None without a baseline that has the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Rows that share a value."""

    value: str
    num_rows: int
    num_errors: int
    rates: tuple[Rate, ...]
    """Of each configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that a report says of a matrix, save texts."""

    num_rows: int
    num_errors: int
    num_lost: int
    """Rows of the input that could not be read; an estimate where a file breaks off."""
    num_violating: int
    """Rows that violate one configuration or more."""
    columns: tuple[Column, ...]
    co_violations: tuple[tuple[int, ...], ...]
    """Rows that violate both of two configurations."""
    partitions: Mapping[str, tuple[Partition, ...]]
    """By column; values in order."""
    reasons: tuple[tuple[str, int], ...]
    """Why rows have no scores, commonest first."""

    @property
    def error_rate(self) -> Rate:
        """Rows without scores, those included that could not be read."""
        return Rate(self.num_errors + self.num_lost, self.num_rows + self.num_lost)

    @property
    def num_cells(self) -> int:
        """Scores."""
        return sum(column.rate.total for column in self.columns)


def plain(value: Any) -> Any:
    """Findings as JSON has them: objects, with the rates spelled out."""
    if isinstance(value, Rate):
        return {"count": value.count, "total": value.total, "rate": value.value, "interval": value.interval}
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [*map(plain, value)] if isinstance(value, tuple | list) else value


def find(matrix: Matrix, counts: Tally, baseline: Matrix | None = None, before: Tally | None = None) -> Findings:
    """Make findings of counts.

    Args:
        matrix: what was counted.
        counts: of it.
        baseline: what it is compared with.
        before: counts of that, by the configurations and thresholds of `matrix`.
    """
    configurations = matrix.configurations
    changes = _changes(matrix, counts, baseline, before) if baseline and before else {}
    partitions = {
        name: tuple(_partition(value, group) for value, group in sorted(groups.items()))
        for name, groups in counts.groups.items()
    }
    return Findings(
        num_rows=counts.whole.num_rows,
        num_errors=counts.whole.num_errors,
        num_lost=_num_lost(matrix),
        num_violating=counts.num_violating,
        columns=tuple(
            _column(
                one, index, counts, partitions, len(matrix.manifest["columns"].get(one.id, [])), changes.get(one.id)
            )
            for index, one in enumerate(configurations)
        ),
        co_violations=tuple(map(tuple, counts.co_violations.tolist())),
        partitions=partitions,
        reasons=tuple(_commonest(counts.reasons)),
    )


def _column(
    configuration: Configuration,
    index: int,
    counts: Tally,
    partitions: Mapping[str, Sequence[Partition]],
    num_versions: int,
    change: Change | None,
) -> Column:
    return Column(
        id=configuration.id,
        title=configuration.title,
        threshold=configuration.threshold,
        rate=_rate(counts.whole, index),
        mean_p_safe=_mean(counts, index),
        histogram=_shown(counts.histogram[index]),
        clauses=tuple(_commonest(counts.clauses[index])[:SHOWN_CLAUSES]),
        num_unscored=counts.whole.num_rows - counts.whole.num_errors - int(counts.whole.num_scored[index]),
        num_versions=num_versions,
        worst_partitions=_worst_partitions(partitions, index),
        change=change,
    )


def _changes(matrix: Matrix, counts: Tally, baseline: Matrix, before: Tally) -> dict[str, Change]:
    known = {one.id for one in baseline.configurations}
    shared = [(index, one) for index, one in enumerate(matrix.configurations) if one.id in known]
    pairs = [(_rate(counts.whole, index), _rate(before.whole, index)) for index, _ in shared]
    p_values = holm([difference_p_value((now.count, now.total), (old.count, old.total)) for now, old in pairs])
    return {
        one.id: Change(
            rate=old,
            mean_p_safe=_mean(before, index),
            histogram=_shown(before.histogram[index]),
            p_value=p_value,
            drift=stability_index(counts.histogram[index], before.histogram[index]),
            drift_by_chance=stability_by_chance(counts.histogram[index], before.histogram[index]),
            notes=_differences(one.id, matrix.manifest, baseline.manifest),
        )
        for (index, one), (now, old), p_value in zip(shared, pairs, p_values, strict=True)
    }


def _differences(name: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, ...]:
    """What was scored otherwise: a change of rate may come from that."""
    words = {"configuration": "its text changed", "model": "another model", "calibration": "another calibration"}
    scored = [
        {tuple(column[key] for key in words) for column in facts["columns"].get(name, [])} for facts in (now, before)
    ]
    return tuple(
        text
        for place, text in enumerate(words.values())
        if len({frozenset(one[place] for one in side) for side in scored}) > 1
    )


def _worst_partitions(partitions: Mapping[str, Sequence[Partition]], index: int) -> tuple[tuple[str, str, Rate], ...]:
    several = {name: values for name, values in partitions.items() if len(values) > 1}
    rates = ((name, one.value, one.rates[index]) for name, values in several.items() for one in values)
    violated = [entry for entry in rates if entry[2].count]
    return tuple(sorted(violated, key=lambda entry: -entry[2].interval[0])[:SHOWN_PARTITIONS])


def _partition(value: str, group: Group) -> Partition:
    rates = tuple(_rate(group, index) for index in range(len(group.num_scored)))
    return Partition(value=value, num_rows=group.num_rows, num_errors=group.num_errors, rates=rates)


def _rate(group: Group, index: int) -> Rate:
    return Rate(int(group.num_violations[index]), int(group.num_scored[index]))


def _mean(counts: Tally, index: int) -> float | None:
    num_scored = int(counts.whole.num_scored[index])
    return float(counts.sum_p_safe[index]) / num_scored if num_scored else None


def _shown(histogram: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(histogram.reshape(SHOWN_BINS, NUM_BINS // SHOWN_BINS).sum(1).tolist())


def _commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _num_lost(matrix: Matrix) -> int:
    lost = [Lost(**one) for one in matrix.manifest["lost"]]
    files = {shard["source"]: size_of(shard["mark"]) for shard in matrix.shards}
    return num_lost_rows(lost, sum(shard["num_records"] for shard in matrix.shards), sum(files.values()))
