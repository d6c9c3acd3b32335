"""A shard of records becomes labelled pairs: read, rated or looked up, and labelled by the rules that matter.

Ratings come from a matrix; or, with an adapter that names the rules, they are made here for these rules alone.

Shape letters: P pairs, K rules of the pool, k rules chosen of a pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import csrm
from csrm.configurations import Configuration
from csrm.errors import CheckpointError, RecordError
from csrm.labelled import PreferenceRow, as_pair
from csrm.model import CSRM
from csrm.rule_selection import RuleLabels, choose, label, label_pairs, ratings
from csrm.rules import relevance_to_requests
from jobs.commits import Commit
from jobs.local_copies import local_model
from jobs.matrix import Matrix
from jobs.options import ScoreOptions
from jobs.reading import Records, as_text, read_pass
from jobs.rules.labels import Counts, RatedPairs, to_table
from jobs.shards import Shard
from jobs.tables import to_bytes

__all__ = ["ADAPTER", "LabelJob", "Labeller", "Task"]

ADAPTER = "rule-adapter"
"""What the facts of an adapter's checkpoint say that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelJob:
    """One run of `csrm rules select`, resolved; plain data that travels to every worker."""

    options: ScoreOptions
    """How the records are read."""
    rules: tuple[Configuration, ...]
    """The pool."""
    model: str | None
    """What rates: folder or URL; None is the embedded model."""
    fingerprint: str | None
    """Of the model that the matrix was rated by; None without a matrix."""
    matrix: Matrix | None
    """Ratings; without its shards, which come one by one. None: an adapter names the rules."""
    adapter: str | None
    kept: tuple[str, ...]
    """Columns of the matrix to carry along."""
    num_rules: int
    min_margin: float


class Task(NamedTuple):
    """A shard to be labelled."""

    shard: Shard
    """Its records."""
    cells: Commit | None
    """Its rows of the matrix."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"shard": asdict(self.shard), "cells": self.cells and {"files": self.cells["files"]}}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Task:
        """The inverse of `to_json`."""
        return cls(Shard(**facts["shard"]), facts["cells"])


class Labeller:
    """Labels the pairs of shards; one to a process, because it holds models."""

    def __init__(self, job: LabelJob):
        self.job = job
        self.model = _load(job.model)
        if job.fingerprint not in (None, self.model.fingerprint):
            raise CheckpointError(f"{job.model}: the matrix was rated by another model; name that one with --model")
        self.adapter = None if job.adapter is None else _load_adapter(job.adapter)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Label shards, one row of the batch for those of one pass; yield the labels of each, and what was left out."""
        for text in batch["tasks"].to_pylist():
            tasks = [Task.from_json(facts) for facts in json.loads(text)]
            found = read_pass([task.shard for task in tasks], self.job.options)
            for task, records in zip(tasks, found, strict=True):
                labels, counts = self.label(task, records)
                yield pa.table(
                    {
                        "labels": pa.array([None if labels is None else to_bytes(labels)], pa.large_binary()),
                        "counts": [json.dumps(asdict(counts))],
                    }
                )

    def label(self, task: Task, records: Records) -> tuple[pa.Table | None, Counts]:
        """Label the pairs of a shard; None where it holds none."""
        counts = Counts()
        find = self._by_adapter if task.cells is None else self._from_matrix
        rated = find(task, records, counts)
        if rated is None:
            return None, counts
        counts.add(rated)
        return to_table(rated), counts

    def _from_matrix(self, task: Task, records: Records, counts: Counts) -> RatedPairs | None:
        """Pairs whose replies both have ratings, labelled by the rules that relevance and discrepancy choose."""
        matrix, cells, rules = self.job.matrix, task.cells, [rule.id for rule in self.job.rules]
        assert matrix is not None
        assert cells is not None
        rows = matrix.read(cells, ["row", *(f"p_safe.{rule}" for rule in rules), *self.job.kept])
        numbers = rows["row"].to_numpy()
        starts = np.flatnonzero(numbers[1:] == numbers[:-1])  # the two rows of a pair stand together
        counts.no_pair += len(numbers) - 2 * len(starts)
        rated_RK = ratings(_cells(rows, rules))
        is_rated = ~np.isnan(rated_RK[starts] + rated_RK[starts + 1]).any(axis=1)
        counts.without_scores += int((~is_rated).sum())
        pairs, starts = self._pairs(task.shard, records, numbers, starts[is_rated], counts)
        if not pairs:
            return None
        first_PK, second_PK = rated_RK[starts], rated_RK[starts + 1]
        relevance_PK = relevance_to_requests(self.model, [pair.replies()[0] for pair in pairs], self.job.rules)
        labels = label_pairs(
            first_PK, second_PK, relevance_PK, num_rules=self.job.num_rules, min_margin=self.job.min_margin
        )
        relevance_Pk, first_Pk, second_Pk = (
            np.take_along_axis(values, labels.chosen_Pk, axis=1) for values in (relevance_PK, first_PK, second_PK)
        )
        return RatedPairs(
            pairs=pairs,
            rules=rules,
            labels=labels,
            relevance_Pk=relevance_Pk,
            first_Pk=first_Pk,
            second_Pk=second_Pk,
            kept=_with_all(rows, self.job.kept).take(pa.array(starts)),
        )

    def _by_adapter(self, task: Task, records: Records, counts: Counts) -> RatedPairs | None:
        """Pairs labelled by the rules that the adapter names."""
        from csrm.rule_adapter import critical, rate_chosen

        assert self.adapter is not None
        numbers = np.arange(len(records.values)) + task.shard.row_start
        pairs, _ = self._pairs(task.shard, records, numbers, np.arange(len(numbers)), counts)
        if not pairs:
            return None
        critical_PK = critical(self.adapter, pairs, self.job.rules)
        chosen_Pk = choose(critical_PK, self.job.num_rules)
        replies = [pair.replies() for pair in pairs]
        first_Pk, second_Pk = (
            ratings(rate_chosen(self.model, [each[side] for each in replies], self.job.rules, chosen_Pk))
            for side in (0, 1)
        )
        everything = np.broadcast_to(np.arange(self.job.num_rules), chosen_Pk.shape)
        label_P, margin_P = label(first_Pk, second_Pk, everything, min_margin=self.job.min_margin)
        return RatedPairs(
            pairs=pairs,
            rules=[rule.id for rule in self.job.rules],
            labels=RuleLabels(chosen_Pk=chosen_Pk, label_P=label_P, margin_P=margin_P),
            relevance_Pk=np.take_along_axis(critical_PK, chosen_Pk, axis=1),
            first_Pk=first_Pk,
            second_Pk=second_Pk,
        )

    def _pairs(
        self, shard: Shard, records: Records, numbers: NDArray[np.int64], places: NDArray[np.int64], counts: Counts
    ) -> tuple[list[PreferenceRow], NDArray[np.int64]]:
        """Pairs that records hold, and their places; records that hold none are counted.

        Args:
            shard: where the records are from.
            records: of the shard.
            numbers: rows of the input file, by place.
            places: those to look at.
            counts: to which records without a pair are added.
        """
        pairs, found = [], []
        for place in places.tolist():
            row = int(numbers[place])
            value = records.values[row - shard.row_start]
            try:
                if isinstance(value, RecordError):
                    raise value
                history, first, second = as_pair(value, self.job.options.columns)
            except RecordError:
                counts.no_pair += 1
                continue
            name = as_text(value.get(self.job.options.id_column)) if self.job.options.id_column else None
            id = name or f"{shard.source}:{row}"
            pairs.append(PreferenceRow(id=id, conversation=history, chosen=first, rejected=second))
            found.append(place)
        return pairs, np.array(found, np.int64)


def _cells(rows: pa.Table, rules: Sequence[str]) -> NDArray[np.float64]:
    """p_safe of rows under rules, (R, K); NaN where there is none."""
    fields = rows["p_safe"].combine_chunks()
    return np.stack([fields.field(rule).to_numpy(zero_copy_only=False).astype(np.float64) for rule in rules], axis=1)


def _with_all(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Some columns; a file that does not lie in a partition folder of a name has none of it."""
    return pa.table({n: rows[n] if n in rows.column_names else pa.nulls(len(rows), pa.string()) for n in names})


def _load(place: str | None) -> CSRM:
    with local_model(place) as folder:
        return csrm.CSRM.from_pretrained(folder)


def _load_adapter(place: str) -> CSRM:
    model = _load(place)
    if model.facts.get("kind") != ADAPTER:
        raise CheckpointError(f"{place}: no rule adapter; train one with csrm rules train-adapter")
    return model
