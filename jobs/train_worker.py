"""What each training worker runs: steps, checkpoints, a log."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.train_log import StepLog

if TYPE_CHECKING:
    from csrm.model import CSRM
    from csrm.training.trainer import TrainOptions

__all__ = ["Plan", "Start", "build_model", "named_backbone", "train_loop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The model before its first step."""

    backbone: str
    """Folder or hub name of a Hugging Face model, or folder of a CSRM."""
    name: str
    num_probes: int = 0
    """Of a new CSRM."""
    read_out: Literal["linear", "verbalizer"] = "linear"
    """How a new CSRM's probes are read: by a head of their own, or by the backbone's language-model head."""
    lora: int | None = None
    """Rank of the adapters; None trains the backbone itself."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a worker needs to know."""

    start: Start
    options: TrainOptions
    source: Any
    """Reference to (sampler, encoder) in Ray's object store."""
    log: str
    """File of metrics."""
    save_every: int
    """Steps between checkpoints."""
    strategy: Literal["ddp", "fsdp"] = "ddp"


def named_backbone(name: str) -> str:
    """A backbone as workers, which run in folders of their own, find it: a hub's name, or an absolute path."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def build_model(start: Start) -> CSRM:
    """The model before its first step, float32, on the CPU; the same on every machine."""
    import torch

    from csrm.checkpoint import from_backbone, from_language_model, load
    from csrm.model import Layout
    from csrm.training.lora import add_lora

    torch.manual_seed(start.seed)
    if (Path(start.backbone) / "csrm.json").is_file():
        model = load(start.backbone, dtype="float32", device="cpu")
        model.clause_evidence.learn_permissions()
    else:
        make = from_language_model if start.read_out == "verbalizer" else from_backbone
        model = make(start.backbone, Layout(num_probes=start.num_probes), name=start.name, device="cpu")
    model.name = start.name
    if start.lora:
        add_lora(model, start.lora)
    return model


def train_loop(config: dict[str, Any]) -> None:
    """Train from the latest checkpoint to the end; runs in every worker at once."""
    import ray.train

    from jobs.train_data import stream_parts

    plan: Plan = config["plan"]
    worker = ray.train.get_context()
    rank, num_workers = worker.get_world_rank(), worker.get_world_size()
    trainer = _trainer(plan, num_workers)
    log = StepLog(plan.log, writes=rank == 0)
    log.rewind(trainer.num_done)
    stream = stream_parts(
        plan.source,
        plan.options,
        first=trainer.num_done,
        rank=rank,
        num_workers=num_workers,
        even=trainer.is_sharded,
    )
    for parts in stream:
        step = trainer.step(parts)
        log.add(step)
        if step.number % plan.save_every == 0 or step.number == plan.options.num_steps:
            _report(trainer, {"step": step.number, "loss": step.loss}, is_first=rank == 0)


def _trainer(plan: Plan, num_workers: int) -> Any:
    import ray.train
    import ray.train.torch
    import torch

    from csrm.training.sharding import shard
    from csrm.training.state import load_state
    from csrm.training.trainer import Trainer

    local = ray.train.get_context().get_local_world_size()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    device = ray.train.torch.get_device()
    model = build_model(plan.start)
    is_sharded = plan.strategy == "fsdp" and num_workers > 1
    sharded = shard(model, device) if is_sharded else None
    trainer = Trainer(model.to(device), plan.options, sharded)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            load_state(trainer, folder)
    return trainer


def _report(trainer: Any, metrics: dict[str, Any], *, is_first: bool) -> None:
    """Hand a checkpoint to Ray Train, which counts it only once it lies in the run's folder as a whole."""
    import ray.train

    from csrm.training.state import save_state

    with tempfile.TemporaryDirectory() as folder:
        save_state(trainer, folder)
        checkpoint = ray.train.Checkpoint.from_directory(folder) if is_first else None
        ray.train.report(metrics, checkpoint=checkpoint)
