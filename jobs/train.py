"""`csrm train`: a checkpoint from labelled clauses, in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from csrm.labelled import LabelledRow
    from csrm.training import Step

__all__ = ["train"]


@click.command(
    epilog="\b\nExample:\n  csrm train --data rules.jsonl.gz --data conduct.jsonl@0.25"
    " --backbone all-MiniLM-L6-v2/ --output my-model --steps 1500",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--data",
    "data",
    multiple=True,
    required=True,
    help="Labelled rows, JSON Lines; PATH@SHARE keeps that share of its prompts out instead of --holdout.",
)
@click.option("--backbone", required=True, help="Hugging Face model (folder or hub name), or a CSRM to train on.")
@click.option(
    "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Model folder to write."
)
@click.option("--name", default="csrm", show_default=True, help="The model's name.")
@click.option("--steps", default=1500, show_default=True, type=click.IntRange(1), help="Optimiser steps.")
@click.option("--batch-rows", default=64, show_default=True, type=click.IntRange(1), help="Conversations per step.")
@click.option("--probes", default=0, show_default=True, type=click.IntRange(0), help="Probe tokens per cell.")
@click.option("--holdout", default=0.02, show_default=True, help="Share of prompts kept out, for calibration.")
@click.option("--seed", default=0, show_default=True, help="Seeds the order of rows and the configurations drawn.")
@click.option("--save-every", default=200, show_default=True, type=click.IntRange(1), help="Steps between checkpoints.")
def train(data: tuple[str, ...], output: Path, backbone: str, name: str, probes: int, **options: Any) -> None:
    """Train a CSRM on labelled clauses and calibrate it on prompts kept out.

    Configurations are built around the labelled clauses while training: a row's own clauses in or out, clauses of
    other categories and domains beside them, several configurations per conversation in one pass.
    """
    import torch

    from csrm.checkpoint import from_backbone, load
    from csrm.model import Layout
    from csrm.training import TrainOptions
    from csrm.training import train as run

    rows, held, facts = read_data(data, options.pop("holdout"))
    save_every = options.pop("save_every")
    settings = TrainOptions(num_steps=options.pop("steps"), **options)
    is_checkpoint = (Path(backbone) / "csrm.json").is_file()
    if is_checkpoint:
        model = load(backbone, dtype="float32")
    else:
        model = from_backbone(backbone, Layout(num_probes=probes), name=name)
    click.echo(
        f"{len(rows):,} rows to train on, {len(held):,} kept out, {settings.num_steps:,} steps on {model.device}"
    )
    output.mkdir(parents=True, exist_ok=True)
    with (output / "train.jsonl").open("w", encoding="utf-8") as log:
        started = time.monotonic()

        def on_step(step: Step) -> None:
            log.write(json.dumps({"step": step.number, "loss": step.loss, "accuracy": step.accuracy}) + "\n")
            if step.number % 20 == 0 or step.number == settings.num_steps:
                _say(step, settings.num_steps, time.monotonic() - started)
                log.flush()
            if step.number % save_every == 0:
                model.save_pretrained(output)

        run(model, rows, settings, on_step=on_step)
    calibrate(model, rows, held, settings.seed)
    model.facts = {**facts, "backbone": Path(backbone).name, "options": _plain(settings)}
    model.to(torch.bfloat16).save_pretrained(output)
    click.echo(f"wrote {output}: scale {model.calibration.scale:.3f}, bias {model.calibration.bias:+.3f}")


def read_data(data: tuple[str, ...], share: float) -> tuple[list[LabelledRow], list[LabelledRow], dict[str, Any]]:
    """Rows to train on, rows kept out, and what to remember of the files."""
    import hashlib

    from csrm.labelled import holdout, read_labelled

    rows, held, files = [], [], []
    for entry in data:
        path, own_share = split_share(entry)
        kept, out = holdout(read_labelled(path), share if own_share is None else own_share)
        rows += kept
        held += out
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        files.append({"file": Path(path).name, "sha256": digest, "rows": len(kept), "held_out": len(out)})
    return rows, held, {"data": files}


def split_share(entry: str) -> tuple[str, float | None]:
    """Split "PATH@SHARE" into path and share; a path without a share gives None."""
    path, at, share = entry.rpartition("@")
    if not at or Path(entry).exists():
        return entry, None
    try:
        value = float(share)
    except ValueError:
        raise click.BadParameter(f"{entry}: after @ comes a share such as 0.25", param_hint="--data") from None
    if not 0 <= value < 1:
        raise click.BadParameter(f"{entry}: the share must be at least 0 and below 1", param_hint="--data")
    return path, value


def calibrate(model: Any, rows: list[LabelledRow], held: list[LabelledRow], seed: int) -> None:
    """Fit the calibration on cells of rows kept out, drawn as in training."""
    import numpy as np
    import torch

    from csrm import calibration
    from csrm.augmentation import ClauseLibrary, sample_batch
    from csrm.cells import batch_reward
    from csrm.training import mixed_precision, similarity

    library = ClauseLibrary([*rows, *held])
    library.relate(similarity(model, [clause.text for clause in library.clauses]))
    rng = np.random.default_rng(seed + 1)
    rewards, labels = [], []
    for start in range(0, len(held), 64):
        batch = sample_batch(held[start : start + 64], library, rng, num_configurations=4)
        with torch.inference_mode(), mixed_precision(model.device):
            reward_RK, _ = batch_reward(model, batch)
        rewards.append(reward_RK.float().cpu().numpy().ravel())
        labels.append(batch.complies_RK.ravel())
    model.calibration = calibration.fit(np.concatenate(rewards), np.concatenate(labels))


def _say(step: Step, num_steps: int, elapsed_s: float) -> None:
    left_s = elapsed_s / step.number * (num_steps - step.number)
    click.echo(
        f"step {step.number:>6,}/{num_steps:,}  loss {step.loss:.4f}  accuracy {step.accuracy:.3f}  "
        f"{step.num_tokens / step.seconds:,.0f} tokens/s  {left_s / 60:.0f} min left"
    )


def _plain(settings: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(settings)
