"""Where rated pairs come from: a matrix of ratings, or records whose pairs an adapter looks at first.

Shape letters: P pairs, K rules of the pool, k rules chosen of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csrm.errors import InputError, RecordError
from csrm.labelled import PreferenceRow, as_pair
from csrm.rule_selection import choose, label, label_pairs, ratings, relevance
from jobs.inputs import list_inputs
from jobs.matrix import Matrix
from jobs.options import OUTPUT_COLUMNS, ScoreOptions
from jobs.reading import Records, as_text, read_pass
from jobs.rules.labels import OWN_COLUMNS, Counts, RatedPairs
from jobs.shards import Shard, passes, plan_files

if TYPE_CHECKING:
    from csrm.configurations import Configuration
    from csrm.model import CSRM

__all__ = ["adapted_pairs", "matrix_pairs"]

SHARD_ROWS = 1024
"""Pairs that an adapter looks at together."""


def matrix_pairs(matrix: Matrix, counts: Counts, *, num_rules: int, min_margin: float) -> Iterator[RatedPairs]:
    """Label the preference pairs of a matrix of ratings, a shard at a time.

    Args:
        matrix: what `csrm rules rate` wrote for records with `chosen` and `rejected`. Columns of configurations with
            one clause are rules.
        counts: to which what holds no rated pair is added.
        num_rules: rules of a pair.
        min_margin: pairs with a smaller margin are not labelled.

    Raises:
        InputError: There are not enough rules, or the input is not what was rated any more.
    """
    rules = [one.id for one in matrix.configurations if len(one.clauses) == 1]
    _check_pool(rules, num_rules, matrix.folder.url)
    kept = [name for name in matrix.schema.names if name not in OUTPUT_COLUMNS]
    _check_names(kept, matrix.folder.url)
    shards = [matrix.source(shard) for shard in matrix.shards]
    options = replace(matrix.options, keep_columns=(), partition_by=())
    for own in passes(range(len(shards)), shards.__getitem__):
        found = read_pass([shards[number] for number in own], options)
        for number, records in zip(own, found, strict=True):
            rows = matrix.read(matrix.shards[number], ["row", *(f"p_safe.{rule}" for rule in rules), *kept])
            numbers = rows["row"].to_numpy()
            starts = np.flatnonzero(numbers[1:] == numbers[:-1])
            counts.no_pair += len(numbers) - 2 * len(starts)
            rated_RK = ratings(_cells(rows, rules))
            is_rated = ~np.isnan(rated_RK[starts] + rated_RK[starts + 1]).any(axis=1)
            counts.without_scores += int((~is_rated).sum())
            pairs, starts = _read_pairs(records, shards[number], numbers, starts[is_rated], options, counts)
            yield _labelled(
                pairs, rules, rated_RK[starts], rated_RK[starts + 1], rows.select(kept).take(pa.array(starts)),
                num_rules=num_rules, min_margin=min_margin,
            )  # fmt: skip


def adapted_pairs(
    options: ScoreOptions,
    adapter: CSRM,
    model: CSRM,
    rules: Sequence[Configuration],
    counts: Counts,
    *,
    num_rules: int,
    min_margin: float,
) -> Iterator[RatedPairs]:
    """Label preference pairs by the rules that an adapter names, rating replies on these alone.

    Args:
        options: input, and where its records keep their pairs.
        adapter: names the rules.
        model: rates.
        rules: the pool.
        counts: to which what holds no pair is added.
        num_rules: rules of a pair.
        min_margin: pairs with a smaller margin are not labelled.

    Raises:
        InputError: The input cannot be read, or the pool is smaller than `num_rules`.
    """
    from csrm.rule_adapter import critical, rate_chosen

    _check_pool([rule.id for rule in rules], num_rules, options.configurations)
    plan = plan_files(list_inputs(options.input).files, SHARD_ROWS, named_columns=options.named_columns)
    for own in passes(plan.shards, lambda shard: shard):
        for shard, records in zip(own, read_pass(own, options), strict=True):
            numbers = np.arange(len(records.values)) + shard.row_start
            pairs, _ = _read_pairs(records, shard, numbers, np.arange(len(numbers)), options, counts)
            if not pairs:
                continue
            critical_PK = critical(adapter, pairs, rules)
            chosen_Pk = choose(critical_PK, num_rules)
            replies = [pair.replies() for pair in pairs]
            first_Pk, second_Pk = (
                ratings(rate_chosen(model, [each[side] for each in replies], rules, chosen_Pk)) for side in (0, 1)
            )
            everything = np.broadcast_to(np.arange(num_rules), chosen_Pk.shape)
            label_P, margin_P = label(first_Pk, second_Pk, everything, min_margin=min_margin)
            yield RatedPairs(
                pairs=pairs,
                rules=[rule.id for rule in rules],
                chosen_Pk=chosen_Pk,
                relevance_Pk=np.take_along_axis(critical_PK, chosen_Pk, axis=1),
                first_Pk=first_Pk,
                second_Pk=second_Pk,
                label_P=label_P,
                margin_P=margin_P,
            )


def _labelled(
    pairs: list[PreferenceRow],
    rules: list[str],
    first_PK: NDArray[np.float64],
    second_PK: NDArray[np.float64],
    kept: pa.Table,
    *,
    num_rules: int,
    min_margin: float,
) -> RatedPairs:
    """Pairs with ratings on all rules, labelled by those that matter."""
    labels = label_pairs(first_PK, second_PK, num_rules=num_rules, min_margin=min_margin)
    relevance_Pk, first_Pk, second_Pk = (
        np.take_along_axis(values, labels.chosen_Pk, axis=1)
        for values in (relevance(first_PK, second_PK), first_PK, second_PK)
    )
    return RatedPairs(
        pairs=pairs,
        rules=rules,
        chosen_Pk=labels.chosen_Pk,
        relevance_Pk=relevance_Pk,
        first_Pk=first_Pk,
        second_Pk=second_Pk,
        label_P=labels.label_P,
        margin_P=labels.margin_P,
        kept=kept,
    )


def _read_pairs(
    records: Records,
    shard: Shard,
    numbers: NDArray[np.int64],
    places: NDArray[np.int64],
    options: ScoreOptions,
    counts: Counts,
) -> tuple[list[PreferenceRow], NDArray[np.int64]]:
    """Pairs that records hold, and the places of these; records that hold none are counted.

    Args:
        records: of the shard.
        shard: where they are from.
        numbers: rows of the input file, by place.
        places: those to look at.
        options: where a record keeps its pair and its name.
        counts: to which records without a pair are added.
    """
    pairs, found = [], []
    for place in places.tolist():
        value, row = records.values[numbers[place] - shard.row_start], numbers[place]
        try:
            if isinstance(value, RecordError):
                raise value
            history, chosen, rejected = as_pair(value, options.columns)
        except RecordError:
            counts.no_pair += 1
            continue
        name = as_text(value.get(options.id_column)) if options.id_column else None
        id = name or f"{shard.source}:{row}"
        pairs.append(PreferenceRow(id=id, conversation=history, chosen=chosen, rejected=rejected))
        found.append(place)
    return pairs, np.array(found, np.int64)


def _cells(rows: pa.Table, rules: Sequence[str]) -> NDArray[np.float64]:
    """p_safe of rows under rules, (R, K); NaN where there is none."""
    fields = rows["p_safe"].combine_chunks()
    return np.stack([fields.field(rule).to_numpy(zero_copy_only=False).astype(np.float64) for rule in rules], axis=1)


def _check_pool(rules: Sequence[str], num_rules: int, place: str) -> None:
    if len(rules) < num_rules:
        raise InputError(f"{place}: {len(rules)} rules, fewer than the {num_rules} of a pair; take more, or --top-k")


def _check_names(names: Sequence[str], place: str) -> None:
    if taken := sorted(OWN_COLUMNS.intersection(names)):
        raise InputError(f"{place}: column {taken[0]!r} has the name of one of the labels' own; rename it")
