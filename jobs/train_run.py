"""A training run on Ray Train: from a folder that holds its state to the checkpoint that ends it."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csrm.errors import CSRMError, InputError
from jobs.train_data import DRAW_SHARE, MAX_DRAWERS
from jobs.train_worker import Plan, train_loop

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = ["claim", "fit", "training_folder", "write_model"]

MIN_SHARE = 0.5
"""Of a core's scheduling slot, for a worker without a GPU."""
KEPT_CHECKPOINTS = 2


def training_folder(output: Path) -> Path:
    """Where a run's state lies until it is done: beside the model folder, which appears only then."""
    return output.with_name(f"{output.name}.training")


def claim(output: Path, settings: Mapping[str, Any], *, resume: bool) -> Path:
    """Make the training folder of a new run, or find that of a stopped one.

    Raises:
        InputError: something lies there that this run must not touch, or the stopped run had other settings.
    """
    folder, wanted = training_folder(output), json.loads(json.dumps(settings))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: already there; remove it, or name another --output")
    found = _read_settings(folder)
    if found is None:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: no training run; remove it, or name another --output")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    elif not resume:
        raise InputError(f"{folder}: a run that was stopped; go on with --resume, or remove the folder")
    elif changed := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        raise InputError(f"{folder}: was started with other settings ({', '.join(changed)}); give the same ones")
    return folder


def fit(
    plan: Plan,
    folder: Path,
    *,
    num_workers: int = 1,
    use_gpu: bool = False,
    max_failures: int = 3,
    loop: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Run training to its end on the running cluster, restarting workers from the last checkpoint when they die.

    Args:
        plan: what the workers do.
        folder: holds the run's state; must be seen by all nodes. A run that lies there goes on.
        num_workers: processes that share each batch.
        use_gpu: whether each has a GPU.
        max_failures: restarts before giving up.
        loop: what each worker runs, if not `train_loop`.

    Returns:
        Folder of the last checkpoint.

    Raises:
        CSRMError: the cluster is too small, or workers failed too often.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    trainer = TorchTrainer(
        loop or train_loop,
        train_loop_config={"plan": plan},
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=_resources(num_workers, use_gpu)
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder.absolute()),
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise _in_one_line(error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # Ray Train puts its own there and leaves it
    if result.checkpoint is None:
        raise CSRMError(f"{folder}: the run ended without a checkpoint; remove the folder and start again")
    return Path(result.checkpoint.path)


def write_model(model: CSRM, output: Path, extra: Mapping[str, str]) -> None:
    """Write a model folder that appears whole or not at all.

    Args:
        model: what to write.
        output: must not exist, or be empty.
        extra: further files of text, by name.
    """
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        model.save_pretrained(partial)
        for name, text in extra.items():
            (partial / name).write_text(text, encoding="utf-8")
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _resources(num_workers: int, use_gpu: bool) -> dict[str, float]:
    """What a worker reserves: a GPU and a core, or its share of the cores, less what drawing batches takes."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    num_cores, num_gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    if use_gpu and num_workers > num_gpus:
        raise InputError(f"--num-workers {num_workers}: the cluster has {num_gpus:.0f} GPUs; one worker takes one")
    if num_workers * (MIN_SHARE + DRAW_SHARE) > num_cores:
        raise InputError(f"--num-workers {num_workers}: too many for the cluster's {num_cores:.0f} cores")
    if use_gpu:
        return {"GPU": 1, "CPU": MIN_SHARE}
    share = min(num_cores / num_workers, max(node.get("CPU", 0) for node in nodes)) - MAX_DRAWERS * DRAW_SHARE
    return {"CPU": max(MIN_SHARE, round(share, 2))}


def _read_settings(folder: Path) -> dict[str, Any] | None:
    try:
        settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{folder / 'settings.json'}: unreadable ({error}); remove the folder") from None
    return settings


def _in_one_line(error: Exception) -> CSRMError:
    """What a user can mend as it was; anything else with the way to go on."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    cause = getattr(failures[0], "_base_exc", failures[0])  # Ray Train's wrapper around what a worker raised
    if isinstance(cause, CSRMError):
        return cause
    first = next(iter(str(cause).strip().splitlines()), "no reason given")
    return CSRMError(f"training stopped: {type(cause).__name__}: {first}; mend it and go on with --resume")
