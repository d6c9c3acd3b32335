"""What `csrm train` does: read, run on Ray Train, calibrate, write."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from csrm.augmentation import Recipe
from csrm.calibration import Calibration
from csrm.checkpoint import resolve_device, resolve_dtype
from csrm.endpoint import EndpointProposer
from csrm.errors import InputError
from csrm.labelled import LabelledRow
from csrm.model import CSRM
from csrm.proposers import Proposer
from csrm.training import held_out
from csrm.training.lora import merge_lora
from csrm.training.proposed import SavedProposals, add_proposals, library_proposer
from csrm.training.state import load_weights
from csrm.training.trainer import TrainOptions, make_sampler
from jobs.pipeline import cluster
from jobs.summary import say
from jobs.train import DEFAULT_STEPS
from jobs.train_data import Material, Proposing, Sources, read_material
from jobs.train_report import follow, show_material, show_report, summarise
from jobs.train_run import claim, fit, write_model
from jobs.train_worker import Plan, Start, build_model, named_backbone

__all__ = ["train"]

PROPOSALS = "proposals.jsonl"


def train(*, output: Path, resume: bool, num_workers: int, use_gpu: bool, max_failures: int, **values: Any) -> None:
    """Run the command; see its options for the arguments."""
    console = Console(stderr=True)
    sources, proposing = _pick(Sources, values), _pick(Proposing, values)
    start = _start(values)
    material = read_material(sources, max_characters=values["max_characters"], seed=values["seed"])
    options = _options(values, len(material.training.rows))
    show_material(material, console)
    settings = {"start": asdict(start), "options": asdict(options), "files": material.files} | {
        "contrasts": sources.num_contrasts if sources.contrasts else 0,
        "exchanges": sources.num_exchanges if sources.contrasts else 0,
        "holdout": sources.holdout,
        **({"proposing": asdict(proposing)} if proposing.num_proposed else {}),
    }
    folder = claim(output, settings, resume=resume)
    proposed = _propose(material, proposing, start, folder, console) if proposing.num_proposed else {}
    log = folder / "train.jsonl"
    with cluster():
        plan = Plan(
            start=start,
            options=options,
            source=_source(start, material, options),
            log=str(log.absolute()),
            save_every=values["save_every"],
            strategy=values["strategy"],
        )
        with follow(log, options.num_steps, console):
            checkpoint = fit(plan, folder, num_workers=num_workers, use_gpu=use_gpu, max_failures=max_failures)
    model = build_model(start)
    load_weights(model, checkpoint)
    calibration = _finish(model, material, options, is_adapted=start.lora is not None)
    report = summarise(log) | {"calibration": calibration, "rows": material.rows.to_json()}
    report |= {"preferences": material.preferences.to_json()} | proposed
    model.facts = {"data": material.files, "backbone": Path(start.backbone).name, "options": settings["options"]}
    extra = {"train.json": json.dumps(report, indent=2) + "\n"}
    extra |= {path.name: path.read_text(encoding="utf-8") for path in (log, folder / PROPOSALS) if path.exists()}
    write_model(model, output, extra)
    shutil.rmtree(folder)
    show_report(report, output, console)


def _propose(material: Material, proposing: Proposing, start: Start, folder: Path, console: Console) -> dict[str, Any]:
    """Label rows of the material with proposed clauses, once for a run and all that resume it; for the report."""
    endpoint = proposing.endpoint()
    asked = EndpointProposer(endpoint) if endpoint else None

    def make(chosen: Sequence[LabelledRow]) -> Proposer:
        if asked is None:
            model = build_model(start).to(resolve_device("auto"))
            return library_proposer(model, material.training.rows, chosen)
        say(console, f"asking {proposing.proposer_model} at {proposing.proposer_url} about {len(chosen):,} rows")
        return asked

    rows, counts = add_proposals(
        material.training.rows,
        SavedProposals(folder / PROPOSALS, make),
        np.random.default_rng([start.seed, 0, 1]),  # batches draw from (seed, step): this is no step's
        proposing.num_proposed,
        excluded={clause for row in material.held for clause in row.clauses},
    )
    material.training = replace(material.training, rows=rows)
    unanswered = asked.num_unanswered if asked else 0
    say(
        console,
        f"proposals: {counts.num_asked:,} rows asked about, {counts.num_violated:,} clauses added that they violate, "
        f"{counts.num_kept:,} that they keep" + (f"; {unanswered:,} questions without answer" if unanswered else ""),
    )
    return {"proposals": asdict(counts)}


def _source(start: Start, material: Material, options: TrainOptions) -> Any:
    """What draws batches, in Ray's object store; the model is only needed to relate clauses, and let go."""
    import ray

    model = build_model(start).to(resolve_device("auto"))
    return ray.put((make_sampler(model, material.training, options), model.encoder))


def _finish(model: CSRM, material: Material, options: TrainOptions, *, is_adapted: bool) -> dict[str, Any]:
    """Merge adapters, round the weights as they will be written, and calibrate what is left."""
    import torch

    if is_adapted:
        merge_lora(model)
    device = resolve_device("auto")
    model.to(torch.bfloat16).to(device, resolve_dtype("auto", device))
    model.calibration, num_cells = Calibration(), 0
    if material.held:
        model.calibration, num_cells = held_out.fit_held_out(model, material.training, material.held, options)
    model.to("cpu", torch.bfloat16)
    return {"scale": model.calibration.scale, "bias": model.calibration.bias, "cells": num_cells}


def _start(values: dict[str, Any]) -> Start:
    return Start(
        backbone=named_backbone(values["backbone"]),
        name=values["name"],
        num_probes=values["probes"],
        read_out=values["read_out"],
        lora=values["lora"],
        seed=values["seed"],
    )


def _options(values: dict[str, Any], num_rows: int) -> TrainOptions:
    if values["steps"] and values["epochs"]:
        raise InputError("give --steps or --epochs, not both")
    epochs = values["epochs"]
    num_steps = math.ceil(epochs * num_rows / values["batch_rows"]) if epochs else values["steps"] or DEFAULT_STEPS
    try:
        return _pick(TrainOptions, values | {"num_steps": num_steps, "recipe": _pick(Recipe, values)})
    except ValueError as error:
        raise InputError(f"these options do not go together: {error}") from None


def _pick(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from those of the values that it has fields for."""
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})
