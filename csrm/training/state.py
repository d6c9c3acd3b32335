"""A run's state between two steps, as files: weights, optimiser, number of steps. Safetensors and JSON.

Everything else follows: batches and learning rates are functions of the step's number. Tensors are written whole,
however the run spread them over workers, so that a run may go on with another number of workers or strategy.
Frozen weights are not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from csrm.errors import CheckpointError
from csrm.model import CSRM
from csrm.training.trainer import Trainer
from csrm.training.workers import like, num_workers, whole

__all__ = ["load_state", "load_weights", "save_state"]

WEIGHTS, OPTIMISER, FACTS = "weights.safetensors", "optimiser.safetensors", "state.json"


def save_state(trainer: Trainer, folder: str | Path) -> None:
    """Write a run's state; every worker must call it, and the first one writes."""
    weights, moments = {}, {}
    for name, parameter in _trained(trainer.model).items():
        weights[name] = _on_first_worker(parameter)
        for key, value in trainer.optimiser.state[parameter].items():
            moments[f"{name}/{key}"] = _on_first_worker(value)
    if num_workers() > 1 and dist.get_rank() > 0:
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_file(weights, path / WEIGHTS)
    save_file(moments, path / OPTIMISER)
    (path / FACTS).write_text(json.dumps({"num_done": trainer.num_done}), encoding="utf-8")


def load_state(trainer: Trainer, folder: str | Path) -> None:
    """Go on from a state that `save_state` wrote; every worker must call it.

    Raises:
        CheckpointError: the folder is incomplete or holds another model's state.
    """
    load_weights(trainer.model, folder)
    moments = _read(Path(folder) / OPTIMISER)
    for name, parameter in _trained(trainer.model).items():
        keys = [key for key in moments if key.rpartition("/")[0] == name]
        trainer.optimiser.state[parameter] = {
            key.rpartition("/")[2]: moments[key] if moments[key].ndim == 0 else like(moments[key], parameter)
            for key in keys
        }
    trainer.num_done = int(json.loads((Path(folder) / FACTS).read_text(encoding="utf-8"))["num_done"])


def load_weights(model: CSRM, folder: str | Path) -> None:
    """Put a run's weights into a model.

    Raises:
        CheckpointError: the folder is incomplete or holds another model's state.
    """
    weights, trained = _read(Path(folder) / WEIGHTS), _trained(model)
    if {n: t.shape for n, t in weights.items()} != {n: p.shape for n, p in trained.items()}:
        raise CheckpointError(f"{folder}: another model's state; give the same backbone, --probes and --lora")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(like(weights[name], parameter))


def _trained(model: CSRM) -> Mapping[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _on_first_worker(tensor: Tensor) -> Tensor:
    return whole(tensor.detach()).cpu().contiguous()


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: unreadable ({error}); remove this checkpoint and resume once more") from None
