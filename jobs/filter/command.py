"""`csrm filter`: the original records whose cells satisfy a condition."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jobs.places import Place, date_option, endpoint_option

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.filter.plan import FilterOptions

__all__ = ["filter_records"]


@click.command(name="filter")
@click.argument("matrix", type=Place())
@click.option(
    "-w", "--where", required=True, metavar="EXPR", help="Condition on columns of the matrix and the records."
)
@click.option(
    "-o", "--output", type=Place(), metavar="DIR", help="Folder for the records that are kept; running again resumes."
)
@click.option(
    "--rejected", type=Place(), metavar="DIR", help="Folder for the others, each with the conditions that it fails."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["same", "parquet"]),
    default="same",
    show_default=True,
    help="Format of what is written: that of each file, or Parquet.",
)
@click.option(
    "--sample",
    "num_examples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print N records that would be kept and N that would not; write nothing.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier filter wrote to these folders.")
@date_option
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def filter_records(
    matrix: str,
    where: str,
    output: str | None,
    rejected: str | None,
    kind: str,
    num_examples: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the original records whose cells in MATRIX satisfy a condition.

    MATRIX is the folder that `csrm score` wrote, local or s3://. The condition is SQL over p_safe.ID, reward.ID,
    worst_clause.ID, the other columns of the matrix, and the columns of the records; record.NAME is a column of the
    records where the matrix has one of the same name. What is null is not fulfilled.

    Kept records are what they were: JSON Lines byte for byte, Parquet with its schema, in their order and folders.
    Records without scores are neither kept nor rejected, but errors. Of a preference pair both must satisfy.

    \b
    Examples:
      csrm filter runs/chats --where "p_safe.children_app >= 0.9 and p_safe.legal >= 0.5" --sample 5
      csrm filter runs/chats --where "p_safe.children_app >= 0.9" --output clean --rejected unfit
    """
    from rich.console import Console

    from jobs.filter.plan import FilterOptions
    from jobs.filter.run import run
    from jobs.filter.summary import show_filter, sum_line
    from jobs.summary import say
    from jobs.termination import TERMINATED_EXIT, Terminated, terminable

    options = FilterOptions(
        matrix=matrix, where=where, output=output, rejected=rejected, to_parquet=kind == "parquet", overwrite=overwrite
    )
    out, err = Console(), Console(stderr=True)
    if num_examples is not None:
        _show_sample(options, num_examples, as_json, out)
        return
    if output is None:
        raise click.UsageError("give --output, or --sample N to look first")
    try:
        with terminable():
            result = run(options, err)
    except (KeyboardInterrupt, Terminated) as stop:
        word, code = ("terminated", TERMINATED_EXIT) if isinstance(stop, Terminated) else ("interrupted", 130)
        say(err, f"{word}; the same command resumes, what is committed stays in {output}")
        raise click.exceptions.Exit(code) from None
    if as_json:
        lost = {"output": output, "lost": [asdict(one) for one in result.lost]}
        click.echo(json.dumps(result.totals.to_json(result.conditions) | lost, ensure_ascii=False))
    else:
        show_filter(result.totals, result.conditions, out)
        say(out, f"{sum_line(result.totals)} · {output}")
    if result.code:
        raise click.exceptions.Exit(result.code)


def _show_sample(options: FilterOptions, num_examples: int, as_json: bool, out: Console) -> None:
    from jobs.filter.sample import sample
    from jobs.filter.summary import show_examples, show_filter, sum_line
    from jobs.summary import say

    found = sample(options, num_examples)
    if as_json:
        examples = {"kept": "kept_examples", "rejected": "rejected_examples"}
        told = {to: [one._asdict() for one in getattr(found, of)] for of, to in examples.items()}
        shards = {"shards": found.num_shards, "of_shards": found.of_shards}
        click.echo(json.dumps(found.totals.to_json(found.conditions) | shards | told, ensure_ascii=False))
        return
    show_examples(found.kept, found.rejected, out)
    show_filter(found.totals, found.conditions, out)
    say(out, f"{sum_line(found.totals)} in {found.num_shards:,} of {found.of_shards:,} shards; nothing is written")
