"""`csrm train`: a calibrated checkpoint from labelled clauses, on Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.train_data import split_share

__all__ = ["split_share", "train"]

DEFAULT_STEPS = 1500
MANY = "May be given several times."


@click.command(
    epilog="\b\nExample:\n  csrm train --data rules.jsonl.gz --data conduct.jsonl@0.25 --preferences pairs.jsonl.gz"
    " --backbone all-MiniLM-L6-v2/ --output my-model --steps 1500",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="PATH[@SHARE]",
    help=f"Labelled rows, JSON Lines; PATH@SHARE leaves that share of its prompts out altogether. {MANY}",
)
@click.option(
    "--preferences",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help=f"Pairs of replies to rank, JSON Lines or Parquet. {MANY}",
)
@click.option(
    "--strictness-pairs", type=click.Path(), metavar="FILE", help="Pairs of guidelines that `csrm strictness` kept."
)
@click.option(
    "--contrasts/--no-contrasts",
    default=True,
    show_default=True,
    help="Add the bundled requests, answers and exchanges, and put single messages into conversations.",
)
@click.option(
    "--num-contrasts", default=4_000, show_default=True, type=click.IntRange(1), help="How many requests and answers."
)
@click.option(
    "--num-exchanges",
    default=12_000,
    show_default=True,
    type=click.IntRange(0),
    help="How many rows of the bundled, fully labelled exchanges join them.",
)
@click.option(
    "--num-proposed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="How many rows get further clauses: one that they violate, one on the same subject that they keep.",
)
@click.option(
    "--proposer-url",
    metavar="URL",
    help="OpenAI-compatible server that names these clauses and is sent the rows' conversations; its key is read from "
    "OPENAI_API_KEY. Without one they come from the data: the nearest that a row keeps.",
)
@click.option("--proposer-model", metavar="NAME", help="The model's name on that server.")
@click.option(
    "--exclude-prompts",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help=f"Leave out rows that share a prompt with it. {MANY}",
)
@click.option("--backbone", required=True, help="Hugging Face model (folder or hub name), or a CSRM to train on.")
@click.option(
    "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Model folder to write."
)
@click.option("--name", default="csrm", show_default=True, help="The model's name.")
@click.option("--num-workers", default=1, show_default=True, type=click.IntRange(1), help="Workers that share a batch.")
@click.option("--use-gpu", is_flag=True, help="Give each worker a GPU.")
@click.option(
    "--strategy",
    default="ddp",
    show_default=True,
    type=click.Choice(["ddp", "fsdp"]),
    help="All weights on every worker, or spread over them (FSDP2).",
)
@click.option("--steps", type=click.IntRange(1), help=f"Optimiser steps; without --epochs {DEFAULT_STEPS}.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Steps as passes over the rows instead.")
@click.option("--batch-rows", default=64, show_default=True, type=click.IntRange(1), help="Conversations per step.")
@click.option(
    "--batch-preferences", default=8, show_default=True, type=click.IntRange(0), help="Preference pairs per step."
)
@click.option(
    "--max-tokens", default=32_768, show_default=True, type=click.IntRange(1), help="Tokens per worker at once."
)
@click.option(
    "--max-characters", default=6_000, show_default=True, type=click.IntRange(1), help="Longer conversations stay out."
)
@click.option(
    "--num-configurations", default=8, show_default=True, type=click.IntRange(1), help="Cells per conversation."
)
@click.option(
    "--max-clauses", default=16, show_default=True, type=click.IntRange(1), help="The most clauses in a configuration."
)
@click.option(
    "--num-extra-clauses", default=24, show_default=True, type=click.IntRange(0), help="Other rows' clauses per step."
)
@click.option(
    "--num-permissions", default=16, show_default=True, type=click.IntRange(0), help="Clauses with an allowing twin."
)
@click.option(
    "--num-strictness", default=8, show_default=True, type=click.IntRange(0), help="Strictness pairs per step, at most."
)
@click.option(
    "--domain-power",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="1 draws domains by their size, 0 all alike.",
)
@click.option("--probes", default=0, show_default=True, type=click.IntRange(0), help="Probe tokens per cell.")
@click.option(
    "--read-out",
    default="linear",
    show_default=True,
    type=click.Choice(["linear", "verbalizer"]),
    help="How probes are read; the verbalizer asks a decoder's own language-model head and sets --probes itself.",
)
@click.option("--lora", type=click.IntRange(1), metavar="RANK", help="Train low-rank adapters; needs csrm[lora].")
@click.option(
    "--delta",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Weight of what single clauses should say.",
)
@click.option("--gamma", default=0.1, show_default=True, type=click.FloatRange(0), help="Weight of the ranking terms.")
@click.option("--backbone-lr", default=1e-4, show_default=True, help="Peak learning rate of the backbone.")
@click.option("--head-lr", default=1e-3, show_default=True, help="Peak learning rate of what is new.")
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "bfloat16", "float32"]),
    help="Of matrix products; auto is bfloat16 where the hardware is fast at it.",
)
@click.option(
    "--holdout",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the clauses kept out, for calibration; 0: no calibration.",
)
@click.option("--seed", default=0, show_default=True, help="Seeds new weights, rows and configurations drawn.")
@click.option("--save-every", default=200, show_default=True, type=click.IntRange(1), help="Steps between checkpoints.")
@click.option("--max-failures", default=3, show_default=True, type=click.IntRange(0), help="Restarts of dead workers.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped.")
def train(**values: Any) -> None:
    """Train a CSRM on labelled clauses and calibrate it on clauses kept out.

    Configurations are built around the labelled clauses while training: a row's own clauses in or out, clauses of
    other categories and domains beside them, several configurations per conversation in one pass. Guidelines of
    different strictness and pairs of replies are ranked.

    The state of a run lies in OUTPUT.training, from which --resume goes on; OUTPUT appears at the end, whole.
    """
    from jobs.train_command import train as run

    run(**values)
