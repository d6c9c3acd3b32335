"""`csrm score`: the compliance matrix of a corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobs.places import Place, date_option, endpoint_option

if TYPE_CHECKING:
    from jobs.options import ScoreOptions

__all__ = ["execute", "score"]


def split_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the names in a comma-separated option."""
    return tuple(name.strip() for name in value.split(",")) if value else ()


@click.command()
@click.argument("input", type=Place())
@click.option(
    "-c",
    "--configurations",
    required=True,
    type=Place(),
    metavar="PATH",
    help="Safety configurations: a file or folder of YAML, Markdown or text.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=Place(),
    metavar="DIR",
    help="Folder for the matrix; running again resumes.",
)
@click.option("-m", "--model", type=Place(), metavar="DIR", help="Model folder.  [default: the embedded csrm-mini]")
@click.option("--id-column", metavar="C", help="Column that names a record.  [default: file and row number]")
@click.option("--keep-columns", callback=split_names, metavar="A,B", help="Input columns to carry into the matrix.")
@click.option("--partition-by", callback=split_names, metavar="C,D", help="Input columns whose values become folders.")
@click.option("--messages-column", metavar="C", help="Column that holds a list of messages.")
@click.option("--prompt-column", metavar="C", help="Column that holds the history before a response.")
@click.option("--response-column", metavar="C", help="Column that holds the response to judge.")
@click.option("--text-column", metavar="C", help="Column that holds a text to judge.")
@click.option("--by-clause", is_flag=True, help="A column for each clause, in place of each configuration.")
@click.option("--explain", is_flag=True, help="Also name the most violated clause of each cell.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score only the first N records.")
@click.option(
    "--num-actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Model replicas.  [default: one per GPU, else by cores]",
)
@click.option(
    "--num-gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Wait for the cluster to bring up N GPUs.  [default: use those that are up]",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens in one forward pass.  [default: by device]",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most records in a shard, the unit of commit and resume.  [default: 256 to 4096, by size of input]",
)
@click.option(
    "--batch-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Longest time of one forward pass; a record that takes longer gets no scores.  [default: any]",
)
@click.option(
    "--max-error-rate",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    metavar="R",
    help="Share of records that may end without scores before the exit code is 3.",
)
@date_option
@endpoint_option
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote to the output folder.")
@click.option("--prune", is_flag=True, help="Drop columns of configurations that are not among those given.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be scored and why, with an estimate of tokens and time; write nothing.",
)
@click.option(
    "--bench", type=Place(), metavar="FILE", help="With --dry-run: what csrm bench printed on the GPUs to use."
)
@click.option("--gpu", metavar="NAME", help="With --bench: which of several devices in it, such as h200.")
@click.option("--price", type=click.FloatRange(0), metavar="P", help="With --bench: what an hour of one device costs.")
def score(dry_run: bool, bench: str | None, gpu: str | None, price: float | None, **settings: Any) -> None:
    """Score every conversation in INPUT under every safety configuration.

    INPUT is a file, folder or glob, local or s3://, of Parquet or JSON Lines (plain, .gz, .zst). The
    matrix is one Parquet row per record, with a field of `reward` and of `p_safe` for each configuration.
    A run that was stopped is resumed by the same command. Run again with more configurations, with a
    changed one, another model or changed input, it scores the cells that are not current and no others.

    \b
    Examples:
      csrm score chats.jsonl --configurations policies/ --output runs/chats
      csrm score s3://lake/chats/ -c policies/ -o s3://lake/matrix/ --keep-columns lang,user --explain
      csrm score 's3://lake/chats/date={date}/' -c policies/ -o 's3://lake/matrix/date={date}' --date yesterday
      csrm score 'chats/*.parquet' -c policy.md -o runs/trial --limit 1000 --dry-run
      csrm score s3://lake/chats/ -c policies/ -o s3://lake/matrix/ --dry-run --bench bench.jsonl --gpu h200 --price 3.5
    """
    if (gpu or price is not None) and bench is None:
        raise click.UsageError("--gpu and --price need --bench: a file that csrm bench wrote on such a machine")
    if bench and not dry_run:
        raise click.UsageError("--bench says what a run would take; add --dry-run")
    if dry_run:
        show_plan(settings, bench, gpu, price)
    else:
        execute(settings)


def show_plan(settings: dict[str, Any], bench: str | None, gpu: str | None, price: float | None) -> None:
    """Run `csrm score --dry-run` with the values of its options."""
    from rich.console import Console

    from jobs import run
    from jobs.costs import read_bench

    run.dry_run(_options(settings), Console(), read_bench(bench, gpu) if bench else None, price)


def execute(settings: dict[str, Any]) -> None:
    """Run `csrm score` with the values of its options, and end the process with its exit code."""
    from rich.console import Console

    from jobs import run
    from jobs.summary import say
    from jobs.termination import TERMINATED_EXIT, Terminated, terminable

    options = _options(settings)
    out, err = Console(), Console(stderr=True)
    try:
        with terminable():
            code = run.run(options, out, err)
    except (KeyboardInterrupt, Terminated) as stop:
        word, code = ("terminated", TERMINATED_EXIT) if isinstance(stop, Terminated) else ("interrupted", 130)
        say(err, f"{word}; the same command resumes, what is committed stays in {options.output}")
    if code:
        raise click.exceptions.Exit(code)


def _options(settings: dict[str, Any]) -> ScoreOptions:
    from csrm.conversations import RecordColumns
    from jobs.options import ScoreOptions

    try:
        columns = RecordColumns(**{name: settings.pop(f"{name}_column", None) for name in RecordColumns.__slots__})
        return ScoreOptions(columns=columns, **settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
