"""`csrm rules select`: pairs labelled by the rules that matter for each."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.places import Place, date_option, endpoint_option

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.rules.labels import Counts
    from jobs.rules.worker import LabelJob, Task

__all__ = ["select"]

SHOWN_RULES = 10


def parquet_file(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return an --output that is named as Parquet."""
    if not value.lower().endswith(".parquet"):
        raise click.BadParameter(f"{value}: name it .parquet, which is what it will be")
    return value


@click.command()
@click.argument("input", type=Place())
@click.option(
    "-o", "--output", required=True, type=Place(), callback=parquet_file, metavar="FILE", help="Labels, .parquet."
)
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, metavar="K", help="Rules of a pair.")
@click.option(
    "--min-margin",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="M",
    help="Leave out pairs whose rules sum up to less.  [default: ties only]",
)
@click.option("--adapter", type=Place(), metavar="DIR", help="Let a trained adapter name the rules; INPUT is records.")
@click.option(
    "--rules",
    "pool",
    type=Place(),
    metavar="PATH",
    help="Configurations whose clauses are the rules.  [default: all of the matrix; with --adapter 100 of our own]",
)
@click.option(
    "-m", "--model", type=Place(), metavar="DIR", help="What rated, or rates.  [default: the matrix's own, csrm-mini]"
)
@click.option("--id-column", metavar="C", help="With --adapter: column that names a record.")
@date_option
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def select(
    input: str, output: str, adapter: str | None, as_json: bool, top_k: int, min_margin: float, **settings: Any
) -> None:
    """Choose the rules that matter for each pair of replies, and label the pair with them.

    INPUT is a matrix of csrm rules rate over records with `chosen` and `rejected` replies, in either order. The rules
    with the largest relevance + ½·|discrepancy| are taken, and the reply that keeps them better, in sum, is chosen
    (arXiv 2501.15453). With --adapter INPUT is the records themselves: the adapter names the rules, and the replies
    are rated on these alone.

    FILE has a row per pair: prompt, chosen and rejected as TRL and csrm train --preferences read them, the margin, the
    rules with their ratings, and the matrix's kept columns. Pairs that the rules leave open are counted and left out.

    \b
    Examples:
      csrm rules select runs/rated --output labels.parquet
      csrm rules select runs/rated --min-margin 0.5 --output labels.parquet
      csrm rules select pairs.jsonl --adapter my-adapter --output labels.parquet
    """
    from csrm.errors import InputError
    from jobs import pipeline
    from jobs.rules.pipeline import label_shards
    from jobs.storage import open_location, publish_file

    open_location(output)  # a URL of no store is told at once
    job, tasks = _plan(input, output, adapter, num_rules=top_k, min_margin=min_margin, **settings)
    with tempfile.TemporaryDirectory(prefix="csrm-rules-") as folder:
        file = Path(folder) / "labels.parquet"
        with pipeline.cluster():
            counts = write(label_shards(tasks, job), file, job)
        if not counts.pairs:
            raise InputError(f"{input}: nothing to write: {' · '.join(describe(counts)) or 'no pairs'}")
        publish_file(file, output)
    if as_json:
        click.echo(json.dumps({"output": output, **asdict(counts)}))
    else:
        show(counts, output)


def _plan(
    input: str, output: str, adapter: str | None, *, pool: str | None, id_column: str | None, **settings: Any
) -> tuple[LabelJob, list[Task]]:
    """What is to be done, with a matrix or with an adapter."""
    from jobs.matrix import Matrix
    from jobs.rules.pipeline import plan_matrix, plan_records

    if adapter is not None:
        return plan_records(input, adapter, output, pool=pool, id_column=id_column, **settings)
    if id_column:
        raise click.UsageError("--id-column is the matrix's; give it to csrm rules rate")
    matrix = Matrix.open(input)
    matrix.refuse_as_output(output)
    return plan_matrix(matrix, pool=pool, **settings)


def write(labelled: Iterable[tuple[pa.Table | None, Counts]], file: Path, job: LabelJob) -> Counts:
    """Write labels to a local file, with what they were made by; return what became of all pairs."""
    import pyarrow.parquet as pq

    from jobs.rules.labels import Counts, Origin

    facts = Origin(rules={rule.id: rule.fingerprint for rule in job.rules}, adapter=job.adapter).to_metadata()
    totals = Counts()
    with contextlib.ExitStack() as stack:
        writer = None
        for labels, counts in labelled:
            totals.merge(counts)
            if labels is not None:
                labels = labels.replace_schema_metadata(facts)
                writer = writer or stack.enter_context(pq.ParquetWriter(file, labels.schema, compression="zstd"))
                writer.write_table(labels)
    return totals


def describe(counts: Counts) -> list[str]:
    """What was left out."""
    left_out = {
        "pairs that their rules leave open": counts.undecided,
        "without ratings": counts.without_scores,
        "records that hold no pair": counts.no_pair,
    }
    return [f"{count:,} {what}" for what, count in left_out.items() if count]


def show(counts: Counts, output: str) -> None:
    """Print which rules decide most, and what became of the pairs."""
    from rich.console import Console
    from rich.table import Table

    from jobs.summary import say

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule")
    table.add_column("pairs", justify="right")
    table.add_column("share", justify="right")
    ranked = sorted(counts.per_rule.items(), key=lambda one: (-one[1], one[0]))
    for rule, count in ranked[:SHOWN_RULES]:
        table.add_row(rule, f"{count:,}", f"{count / counts.pairs:.1%}")
    out = Console()
    out.print(table)
    more = f"{len(ranked) - SHOWN_RULES:,} more rules had a part · " if len(ranked) > SHOWN_RULES else ""
    say(out, f"{more}{counts.first_chosen / counts.pairs:.1%} of the pairs: the input's own chosen reply")
    say(out, " · ".join([f"{counts.pairs:,} pairs labelled", *describe(counts), output]))
