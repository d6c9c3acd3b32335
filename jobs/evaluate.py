"""`csrm evaluate`: what a model makes of held-out files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

__all__ = ["evaluate"]

files = partial(click.option, multiple=True, type=click.Path(), metavar="PATH")
"""An option that may be given for several files."""


@click.command(
    epilog="\b\nExamples:\n"
    "  csrm evaluate --counterfactual rules.jsonl.gz --own conduct.jsonl.gz --binary xstest.jsonl.gz\n"
    "  csrm evaluate --any-clause beavertails.jsonl.gz --probe beavertails.jsonl.gz --markdown table.md\n"
    "  csrm evaluate --preferences pairs.jsonl.gz --split eval --configuration policy.yaml --json figures.jsonl",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-m", "--model", type=click.Path(), metavar="DIR", help="Model folder.  [default: the embedded csrm-mini]"
)
@files(
    "--counterfactual",
    help="Judgement rows, with their clause in and out.",
)
@files("--own", help="Judgement rows under each of their clauses alone.")
@files(
    "--per-clause",
    help="As --own: AUROC of each clause, and its mean.",
)
@files(
    "--any-clause",
    help="Judgement rows under all their clauses as one set.",
)
@files(
    "--binary",
    help="Rows that are harmful or not, under --configuration.",
)
@files(
    "--preferences",
    help="Chosen and rejected replies, --configuration.",
)
@files(
    "--over-refusal",
    help='Prompts (XSTest, OR-Bench) as "Sure. {prompt}".',
)
@files("--cosapien", help="prompt, scenario, response; by --scenarios.")
@files("--dynabench", help="policy, transcript, label: every agent turn.")
@files(
    "--probe",
    help="Judgement rows of several clauses: obedience probes.",
)
@click.option(
    "--configuration",
    type=click.Path(),
    metavar="FILE",
    help="For binary rows and pairs.  [default: the bundled general_safety]",
)
@click.option("--scenarios", type=click.Path(), metavar="PATH", help="Configurations that CoSApien's scenarios name.")
@files(
    "--blind-data",
    help="Judgement rows that the blind baseline is fitted to.",
)
@click.option("--split", metavar="NAME", help="Only rows whose `split` field is this, such as eval.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N rows of each file, drawn by --seed.")
@click.option(
    "--resamples", default=1000, show_default=True, type=click.IntRange(0), help="Bootstrap resamples; 0: none."
)
@click.option(
    "--resample-by",
    type=click.Choice(["row", "prompt"]),
    default="row",
    show_default=True,
    help="Draw rows, or all rows of a prompt together.",
)
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Seeds configurations drawn, samples and resamples.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines; else stdout.")
@click.option("--markdown", "markdown_path", type=click.Path(dir_okay=False, path_type=Path), help="Markdown table.")
def evaluate(json_path: Path | None, markdown_path: Path | None, **options: Any) -> None:
    """Measure a model on labelled files it was not trained on.

    Every suite stands beside trivial baselines and, with --blind-data, beside a model of the same backbone that never
    reads a configuration. PATH@SHARE reads only that share of a file's prompts: the one that `csrm train --data
    PATH@SHARE` keeps out. JSON lines go to standard output (or --json), a table to standard error.
    """
    import json

    from rich.console import Console

    from jobs.evaluation_report import markdown, terminal
    from jobs.evaluation_run import EvaluateOptions, run

    err = Console(stderr=True)
    records = []
    with err.status("loading") as status:
        for record in run(EvaluateOptions(**options), on_start=status.update):
            records.append(record)
            if json_path is None:
                click.echo(json.dumps(record, ensure_ascii=False))
    if json_path:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        json_path.write_text(lines, encoding="utf-8")
    if markdown_path:
        markdown_path.write_text(markdown(records), encoding="utf-8")
    if records:
        err.print(terminal(records))
