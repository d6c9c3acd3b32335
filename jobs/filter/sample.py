"""A look before the leap: some shards, spread over the corpus, judged here; nothing is written."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jobs.filter.columns import sampled
from jobs.filter.expressions import Evaluator
from jobs.filter.plan import FilterOptions, Plan, check_columns, plan_filter
from jobs.filter.summary import Example, FilterTotals
from jobs.filter.worker import FilterJob, Judged, Task, judge

__all__ = ["Sample", "sample"]

_SAMPLED_SHARDS = 16


class Sample(NamedTuple):
    """What a filter would do to some shards."""

    totals: FilterTotals
    conditions: tuple[str, ...]
    num_shards: int
    of_shards: int
    kept: list[Example]
    rejected: list[Example]


def sample(options: FilterOptions, num_examples: int) -> Sample:
    """Judge some shards and pick records of them.

    Raises:
        CSRMError: What the user can mend.
    """
    plan = plan_filter(options)
    columns, records_schema = check_columns(plan)
    nowhere = plan.matrix.folder
    job = FilterJob(
        expression=plan.expression,
        columns=columns,
        matrix=plan.matrix,
        output=nowhere,
        rejected=None,
        state=nowhere,
        records_schema=records_schema,
        identity={},
    )
    evaluator = Evaluator(plan.expression)
    counts, kept, rejected = [], [], []
    chosen = sampled(plan.tasks, _SAMPLED_SHARDS)
    for task in chosen:
        for one in (one for pieces in judge([task], job, evaluator) for one in pieces):
            counts.append(one.counts())
            kept += _examples(task, one, np.flatnonzero(one.is_kept), plan, num_examples)
            rejected += _examples(task, one, np.flatnonzero(one.is_rejected), plan, num_examples)
    conditions = plan.expression.conditions
    return Sample(
        totals=FilterTotals.of(counts, len(conditions)),
        conditions=conditions,
        num_shards=len(chosen),
        of_shards=len(plan.tasks),
        kept=sampled(kept, num_examples),
        rejected=sampled(rejected, num_examples),
    )


def _examples(task: Task, one: Judged, indices: Any, plan: Plan, number: int) -> list[Example]:
    chosen = sampled(indices.tolist(), number)
    reasons = one.reasons(chosen, plan.expression.conditions)
    return [
        Example(task.shard.source, one.row_start + index, one.piece.shown(index), tuple(reason))
        for index, reason in zip(chosen, reasons, strict=True)
    ]
