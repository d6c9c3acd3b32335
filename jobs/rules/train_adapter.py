"""`csrm rules train-adapter`: learn which rules decide between two replies, on Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.places import Place
from jobs.train import train

__all__ = ["train_adapter"]

SHARED = (
    *("num_workers", "use_gpu", "strategy", "max_tokens", "max_characters", "backbone_lr", "head_lr", "dtype"),
    *("save_every", "max_failures", "resume"),
)
"""Options that are those of `csrm train`."""


def learn(**values: Any) -> None:
    """Train an adapter on what csrm rules select chose: which rules are critical for which pairs of replies.

    An adapter reads a prompt with both replies and says of each rule how surely it is among those that decide. Rules
    are texts to it, so it can be asked about rules that it was not trained on; --holdout-rules measures that.
    LABELS are files of csrm rules select, made without an adapter.

    The state of a run lies in OUTPUT.training, from which --resume goes on; OUTPUT appears at the end, whole.

    \b
    Examples:
      csrm rules train-adapter labels.parquet --output my-adapter
      csrm rules train-adapter labels.parquet --holdout-rules 20 --steps 400 --output my-adapter
    """
    from jobs.rules.adapter_run import run

    run(**values)


train_adapter = click.Command(
    "train-adapter",
    callback=learn,
    help=learn.__doc__,
    params=[
        click.Argument(["labels"], nargs=-1, required=True, type=click.Path()),
        click.Option(
            ["--output"], required=True, type=click.Path(file_okay=False, path_type=Path), help="Model folder to write."
        ),
        click.Option(
            ["--rules"],
            type=Place(),
            metavar="PATH",
            help="Configurations whose clauses are the rules.  [default: 100 of our own]",
        ),
        click.Option(
            ["--backbone"],
            help="Hugging Face model (folder or hub name), or a CSRM to train on.  [default: the embedded csrm-mini]",
        ),
        click.Option(["--name"], default="rule-adapter", show_default=True, help="The adapter's name."),
        click.Option(["--steps"], default=400, show_default=True, type=click.IntRange(1), help="Optimiser steps."),
        click.Option(["--batch-rows"], default=32, show_default=True, type=click.IntRange(1), help="Pairs per step."),
        click.Option(
            ["--holdout"],
            default=0.1,
            show_default=True,
            type=click.FloatRange(0, 1, max_open=True),
            help="Share of the prompts kept out, to measure recall on.",
        ),
        click.Option(
            ["--holdout-rules"],
            default=0,
            show_default=True,
            type=click.IntRange(0),
            help="Rules that are not trained on, to measure recall of new ones.",
        ),
        click.Option(["--seed"], default=0, show_default=True, help="Seeds new weights, batches and rules held out."),
        *(one for name in SHARED for one in train.params if one.name == name),
    ],
)
