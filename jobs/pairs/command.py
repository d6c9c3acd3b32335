"""`csrm pairs`: alignment data from several scored responses per prompt."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.places import Place, date_option, endpoint_option

if TYPE_CHECKING:
    import pyarrow as pa

    from csrm.preference_data import PreferenceData, Quality

__all__ = ["pairs"]

FORMATS = (".jsonl", ".parquet")
DUCKDB = {"memory_limit": "2GB", "threads": 4}
"""Beyond that it goes to disk; every further thread would take its part of the memory."""
LEFT_OUT = {
    "without_score": "responses without score",
    "without_prompt": "without a value to group by",
    "without_helpfulness": "without helpfulness",
    "single_response": "prompts with one response",
    "none_to_choose": "without a complying response above another",
    "near_ties": "pairs below the margin",
    "same_text": "of the same text twice",
    "other_prompt": "of different prompts",
    "no_reply": "that no assistant's reply ends",
}


def output_file(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return an --output that is of a known format."""
    if not value.lower().endswith(FORMATS):
        raise click.BadParameter(f"{value}: name it {' or '.join(FORMATS)}, which says the format")
    return value


@click.command()
@click.argument("matrix", type=Place())
@click.option("--group-by", required=True, metavar="COLUMN", help="Column that all responses to a prompt share.")
@click.option("-c", "--configuration", required=True, metavar="ID", help="Safety configuration whose p_safe counts.")
@click.option("--helpfulness", metavar="COLUMN", help="Column of numbers from 0 to 1; ranks by p_safe × helpfulness.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["pairs", "best-of-n"]),
    default="pairs",
    show_default=True,
    help="Chosen and rejected responses, or the best alone.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="Per prompt the K best responses, or their pairs with the K worst: the best with the worst, and so on.",
)
@click.option(
    "--min-margin",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="M",
    help="Drop pairs whose scores differ by less.  [default: drop ties only]",
)
@click.option("--allow-violations", is_flag=True, help="Also choose responses that violate the configuration.")
@click.option(
    "-o", "--output", required=True, type=Place(), callback=output_file, metavar="FILE", help=".jsonl or .parquet."
)
@date_option
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def pairs(matrix: str, configuration: str, group_by: str, output: str, as_json: bool, **settings: Any) -> None:
    """Make alignment data of a MATRIX with several responses per prompt.

    Responses are ranked by their p_safe under one configuration, times their helpfulness if there is a column of it.
    Columns come from the matrix (csrm score --keep-columns) or else from its input, texts from its input. Rows are in
    TRL's conversational formats: prompt, chosen, rejected and margin for DPO and reward models, with --top-k 5 for
    reward distillation; or prompt and completion for fine-tuning on the best of n.

    What is chosen complies, unless --allow-violations. The table shows what is gained: CoSA-Score is the mean of
    helpfulness × (+1 if a response complies, −1 if not). FILE, local or s3://, is written whole or not at all.

    \b
    Examples:
      csrm pairs runs/samples --group-by prompt_id -c game_studio --helpfulness helpfulness -o pairs.jsonl
      csrm pairs runs/samples --group-by prompt_id -c game_studio --top-k 5 --min-margin 0.1 -o pairs.parquet
      csrm pairs runs/samples --group-by prompt_id -c game_studio --as best-of-n -o best.jsonl
    """
    from csrm.errors import InputError
    from csrm.preference_data import PairOptions
    from jobs.matrix import Matrix
    from jobs.pairs.responses import Responses
    from jobs.storage import open_location

    if settings["form"] != "pairs" and settings["min_margin"]:
        raise click.UsageError("--min-margin is of pairs; the best of n have none")
    open_location(output)  # a URL that nobody can write to is told at once
    rated_by = settings.pop("helpfulness")
    opened = Matrix.open(matrix)
    opened.refuse_as_output(output)
    rules = opened.configuration(configuration)
    options = PairOptions(threshold=rules.threshold, has_helpfulness=rated_by is not None, **settings)
    responses = Responses(opened, rules.id, group_by, rated_by)
    with workplace(options) as (data, folder):
        choose(data, responses)
        counts, quality = data.counts(), data.quality()
        if not counts["written"]:
            raise InputError(f"{matrix}: nothing to write: {describe(counts)}")
        write(data.rows(), folder, output)
    if as_json:
        found = {name: asdict(one) for name, one in quality.items()}
        click.echo(json.dumps({"output": output, "configuration": rules.id, "counts": counts, "quality": found}))
    else:
        show(counts, quality, output)


@contextlib.contextmanager
def workplace(options: Any) -> Iterator[tuple[PreferenceData, Path]]:
    """Tables on local disk, and the folder that they are in until they are done with."""
    import duckdb

    from csrm.preference_data import PreferenceData

    with tempfile.TemporaryDirectory(prefix="csrm-pairs-") as folder:
        path = Path(folder)
        settings = DUCKDB | {"temp_directory": str(path / "spilled")}
        with (
            duckdb.connect(str(path / "responses.duckdb"), config=settings) as connection,
            (path / "texts").open("w+b") as spool,
        ):
            yield PreferenceData(connection, options, spool), path


def choose(data: PreferenceData, responses: Any) -> None:
    """Rank all responses, and read the texts of those that are picked."""
    for table in responses.tables():
        data.add(table)
    data.pick()
    for texts in responses.texts(data.wanted_shards(), data.wanted):
        data.add_texts(texts)
    data.check_texts()


def write(tables: Iterable[pa.Table], folder: Path, output: str) -> None:
    """Write rows to a local file, and that to where it belongs."""
    from jobs.storage import publish_file

    file = folder / f"rows{Path(output).suffix.lower()}"
    if file.suffix == ".parquet":
        _write_parquet(tables, file)
    else:
        with file.open("w", encoding="utf-8") as out:
            for table in tables:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    publish_file(file, output)


def _write_parquet(tables: Iterable[pa.Table], file: Path) -> None:
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        writer = None
        for table in tables:
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)


def describe(counts: dict[str, int]) -> str:
    """What was left out, and of how much, in a line."""
    total = f"{counts['responses']:,} responses to {counts['prompts']:,} prompts"
    return " · ".join([total, *(f"{counts[key]:,} {words}" for key, words in LEFT_OUT.items() if counts.get(key))])


def show(counts: dict[str, int], quality: dict[str, Quality], output: str) -> None:
    """Print a line for each set of responses, and what became of them."""
    from rich.console import Console
    from rich.table import Table

    from jobs.summary import say

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("responses")
    for name in ("number", "comply", "mean p_safe", "helpfulness", "CoSA-Score"):
        table.add_column(name, justify="right")
    for name, one in quality.items():
        means = (one.mean_p_safe, one.mean_helpfulness, one.cosa_score)
        rate = "-" if one.compliance_rate is None else f"{one.compliance_rate:.1%}"
        table.add_row(name, f"{one.num_responses:,}", rate, *("-" if mean is None else f"{mean:.3f}" for mean in means))
    out = Console()
    out.print(table)
    say(out, f"{describe(counts)}\n{counts['written']:,} rows · {output}")
