"""The Ray Data pipeline of `csrm rules select`: shards → labelled pairs, in the order of the input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from csrm.configurations import Configuration
from csrm.errors import InputError
from csrm.rules import POOL, as_rules
from jobs import shards
from jobs.inputs import list_inputs, refuse_as_output
from jobs.job import read_model_facts
from jobs.local_copies import load_configurations
from jobs.matrix import Matrix
from jobs.options import OUTPUT_COLUMNS, ScoreOptions
from jobs.pipeline import MAX_BLOCKS, Stage, configure_ray_data, original_errors
from jobs.rules.labels import OWN_COLUMNS, Counts
from jobs.rules.worker import LabelJob, Labeller, Task
from jobs.storage import Folder
from jobs.tables import from_bytes

__all__ = ["label_shards", "plan_matrix", "plan_records"]

SHARD_ROWS = 1024
"""Pairs that an adapter looks at together."""


class Label(Stage):
    """Shards become labelled pairs."""

    make = Labeller


def plan_matrix(
    matrix: Matrix, *, pool: str | None, model: str | None, num_rules: int, min_margin: float
) -> tuple[LabelJob, list[Task]]:
    """What is to be done where a matrix holds all ratings.

    Args:
        matrix: what `csrm rules rate` wrote.
        pool: configurations whose clauses are the rules; None takes all of the matrix's that have one clause.
        model: what the matrix was rated by; None is where it was then.
        num_rules: rules of a pair.
        min_margin: pairs with a smaller margin are not labelled.

    Raises:
        InputError: There are not enough rules, or a kept column has the name of one of ours.
    """
    rules = _rules_of(matrix, pool)
    kept = tuple(name for name in matrix.schema.names if name not in OUTPUT_COLUMNS)
    if taken := sorted(OWN_COLUMNS.intersection(kept)):
        raise InputError(f"{matrix.folder.url}: column {taken[0]!r} has the name of one of the labels' own; rename it")
    _check_pool(len(rules), num_rules, matrix.folder.url)
    job = LabelJob(
        options=replace(matrix.options, keep_columns=(), partition_by=()),
        rules=rules,
        model=model or matrix.manifest["model"]["path"],
        fingerprint=matrix.manifest["model"]["fingerprint"],
        matrix=replace(matrix, shards=()),
        adapter=None,
        kept=kept,
        num_rules=num_rules,
        min_margin=min_margin,
    )
    return job, [Task(matrix.source(shard), shard) for shard in matrix.shards]


def plan_records(
    input: str,
    adapter: str,
    output: str,
    *,
    pool: str | None,
    model: str | None,
    id_column: str | None,
    num_rules: int,
    min_margin: float,
) -> tuple[LabelJob, list[Task]]:
    """What is to be done where an adapter names the rules of records.

    Args:
        input: of records with two replies each.
        adapter: its folder or URL.
        output: where labels are written.
        pool: configurations whose clauses are the rules; None takes the bundled pool.
        model: what rates; None is the embedded model.
        id_column: names a record; None: file and row number do.
        num_rules: rules of a pair.
        min_margin: pairs with a smaller margin are not labelled.

    Raises:
        CSRMError: The input, the pool or the adapter cannot be read.
    """
    rules = tuple(as_rules(load_configurations(pool or str(POOL))))
    _check_pool(len(rules), num_rules, pool or str(POOL))
    options = ScoreOptions(input=input, configurations=pool or str(POOL), output="-", id_column=id_column)
    job = LabelJob(
        options=options,
        rules=rules,
        model=read_model_facts(model).path,
        fingerprint=None,
        matrix=None,
        adapter=read_model_facts(adapter).path,
        kept=(),
        num_rules=num_rules,
        min_margin=min_margin,
    )
    inputs = list_inputs(input)
    refuse_as_output(Folder.at(output).url, output, input, inputs.root, {file.source for file in inputs.files})
    plan = shards.plan_files(inputs.files, SHARD_ROWS, named_columns=options.named_columns)
    return job, [Task(shard, None) for shard in plan.shards]


def _rules_of(matrix: Matrix, pool: str | None) -> tuple[Configuration, ...]:
    """Configurations of one clause, each text once, that the matrix's model has rated.

    Raises:
        InputError: A rule of the pool is not among them, or another model has rated some rows.
    """
    rated = {(one.clauses[0], one.context): one for one in reversed(matrix.configurations) if len(one.clauses) == 1}
    rules = tuple(reversed(rated.values()))
    if pool is not None:
        wanted = [(rule.clauses[0], rule.context) for rule in as_rules(load_configurations(pool))]
        if missing := [clause.category for clause, context in wanted if (clause, context) not in rated]:
            raise InputError(f"{matrix.folder.url}: rule {missing[0]!r} is not rated there; csrm rules rate adds it")
        rules = tuple(rated[one] for one in wanted)
    fingerprint = matrix.manifest["model"]["fingerprint"]
    for rule in rules:
        if any(column["model"] != fingerprint for column in matrix.manifest["columns"][rule.id]):
            raise InputError(
                f"{matrix.folder.url}: another model has rated {rule.id!r}; rate again, or leave it out with --rules"
            )
    return rules


def label_shards(tasks: Sequence[Task], job: LabelJob) -> Iterator[tuple[pa.Table | None, Counts]]:
    """Label shards on the cluster; yield the labels of each, in order.

    Raises:
        CSRMError: What a worker raised that a user can mend.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    configure_ray_data()
    DataContext.get_current().execution_options.preserve_order = True
    together = passes(tasks)
    size = -(-len(together) // MAX_BLOCKS)
    blocks = [pa.table({"tasks": together[start : start + size]}) for start in range(0, len(together), size)]
    resources = ray.cluster_resources()
    num_gpus = int(resources.get("GPU", 0))
    labelled = ray.data.from_arrow(blocks).map_batches(
        Label,
        fn_constructor_args=(job,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=min(num_gpus or max(1, int(resources["CPU"])), len(blocks))),
        num_cpus=1,
        num_gpus=1 if num_gpus else 0,
    )
    with original_errors():
        for row in labelled.iter_rows():
            yield from_row(row)


def passes(tasks: Sequence[Task]) -> list[str]:
    """Tasks that are read in one pass over a file, together, as text."""
    return [json.dumps([task.to_json() for task in together]) for together in shards.passes(tasks, lambda t: t.shard)]


def from_row(row: dict[str, Any]) -> tuple[pa.Table | None, Counts]:
    """From what a worker returns."""
    return row["labels"] and from_bytes(row["labels"]), Counts(**json.loads(row["counts"]))


def _check_pool(num: int, num_rules: int, place: str) -> None:
    if num < num_rules:
        raise InputError(f"{place}: {num} rules, fewer than the {num_rules} of a pair; rate on more, or lower --top-k")
