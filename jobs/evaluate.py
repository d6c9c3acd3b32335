"""`csrm evaluate`: what a model makes of held-out files."""

from __future__ import annotations

import json
from typing import Any

import click

from jobs.train import split_share

__all__ = ["evaluate"]

MAX_BLIND_ROWS = 6_000
"""Rows of each file that the configuration-blind baseline is fitted to; more change it little."""


@click.command(
    epilog="\b\nExample:\n  csrm evaluate --counterfactual polyguard_eval.jsonl.gz --own diasafety_eval.jsonl.gz"
    " --binary xstest.jsonl.gz",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--model", type=click.Path(), default=None, help="Model folder (default: the embedded csrm-mini).")
@click.option("--counterfactual", multiple=True, help="Rows of one clause each, judged with their clause in and out.")
@click.option("--own", multiple=True, help="Rows judged under each of their own clauses alone.")
@click.option("--per-clause", "clauses", multiple=True, help="As --own, with AUROC per clause and its mean.")
@click.option("--binary", "binaries", multiple=True, help="Rows that are harmful or not under a general policy.")
@click.option("--blind-data", multiple=True, help="Training rows for the baseline that reads no configuration.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Seeds the configurations drawn.")
def evaluate(
    model: str | None,
    counterfactual: tuple[str, ...],
    own: tuple[str, ...],
    clauses: tuple[str, ...],
    binaries: tuple[str, ...],
    blind_data: tuple[str, ...],
    dtype: str,
    seed: int,
) -> None:
    """Measure a model on labelled files it was not trained on.

    PATH@SHARE reads only that share of a file's prompts: the one that `csrm train --data PATH@SHARE` keeps out.
    Prints one JSON line per file.
    """
    from pathlib import Path

    import numpy as np

    import csrm
    from csrm import evaluation, labelled
    from jobs.demo import SAMPLE_CONFIGURATIONS

    scorer = csrm.CSRM.from_pretrained(model, dtype=dtype)

    def rows(entry: str) -> list[labelled.LabelledRow]:
        path, share = split_share(entry)
        read = labelled.read_labelled(path)
        return read if share is None else labelled.holdout(read, share)[1]

    def say(entry: str, suite: str, figures: dict[str, Any]) -> None:
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
        click.echo(json.dumps({"file": Path(entry).name, "suite": suite, **rounded}))

    blind = None
    if blind_data:
        rng = np.random.default_rng(seed)
        chosen = [row for entry in blind_data for row in evaluation.sample(rows(entry), MAX_BLIND_ROWS, rng)]
        blind = evaluation.BlindBaseline(scorer, chosen)
    for entry in counterfactual:
        for suite, same_domain in (("other domains", False), ("same domain", True)):
            rng = np.random.default_rng(seed)
            cells = evaluation.counterfactual_cells(rows(entry), rng, same_domain=same_domain)
            say(entry, f"counterfactual, {suite}", evaluation.evaluate_cells(scorer, cells, blind))
    for entry in own:
        say(entry, "own clauses", evaluation.evaluate_cells(scorer, evaluation.own_cells(rows(entry)), blind))
    for entry in clauses:
        figures = evaluation.per_clause(scorer, rows(entry))
        say(entry, "per clause", {"mean_auroc": float(np.mean(list(figures.values()))), **figures})
    general = next(c for c in csrm.load_configurations(SAMPLE_CONFIGURATIONS) if c.id == "general_safety")
    for entry in binaries:
        say(entry, "binary", evaluation.binary(scorer, labelled.read_binary(entry), general))
