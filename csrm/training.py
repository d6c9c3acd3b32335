"""The training loop: one process, plain torch. It knows no files, no cluster and no progress bar.

One step encodes a batch's conversations once and its distinct clauses once, reads out every (row, clause)
pair, and scores all cells of all rows: one pass over a conversation trains many configurations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrm.augmentation import ClauseLibrary, sample_batch
from csrm.cells import batch_reward
from csrm.labelled import LabelledRow
from csrm.model import CSRM
from csrm.objective import classification_loss

__all__ = ["Step", "TrainOptions", "similarity", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Settings of a training run."""

    num_steps: int
    """Optimiser steps."""
    batch_rows: int = 64
    """Conversations per step."""
    num_configurations: int = 8
    """Configurations drawn around each conversation."""
    backbone_lr: float = 1e-4
    """Peak learning rate of the pre-trained weights."""
    head_lr: float = 1e-3
    """Peak learning rate of what is new."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices."""
    warmup_share: float = 0.05
    """Share of the steps over which the rates rise; then they fall along a cosine to zero."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    domain_power: float = 0.5
    """1 draws domains by their size, 0 draws them alike; between, small ones are drawn more often than they weigh."""
    max_characters: int = 6_000
    """Longer conversations are left out: one alone would cost as much as the rest of its batch."""
    seed: int = 0
    """Seeds the order of rows and the configurations drawn."""

    def __post_init__(self) -> None:
        if min(self.num_steps, self.batch_rows, self.num_configurations) < 1:
            raise ValueError(f"num_steps, batch_rows and num_configurations must be at least 1, got {self}")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share must be in [0, 1), got {self.warmup_share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did."""

    number: int
    loss: float
    accuracy: float
    """Share of cells on the right side of zero."""
    num_tokens: int
    seconds: float


def train(
    model: CSRM,
    rows: Sequence[LabelledRow],
    options: TrainOptions,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
) -> None:
    """Train `model` in place, in bfloat16 where its device multiplies that fast.

    Args:
        model: float32 weights.
        rows: labelled rows.
        options: settings.
        on_step: called after each step.
    """
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    rows = [row for row in rows if sum(len(message.content) for message in row.conversation) <= options.max_characters]
    library = ClauseLibrary(rows)
    library.relate(similarity(model, [clause.text for clause in library.clauses]))
    optimiser = torch.optim.AdamW(parameter_groups(model, options), betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, options))
    # Dropout costs a third of a step on a CPU and bought nothing in a few epochs: the model stays in eval mode.
    model.eval()
    for number, drawn in enumerate(draw_rows(rows, options, rng), start=1):
        started = time.perf_counter()
        batch = sample_batch(drawn, library, rng, num_configurations=options.num_configurations)
        complies = torch.from_numpy(batch.complies_RK).to(model.device)
        with mixed_precision(model.device):
            reward, num_tokens = batch_reward(model, batch)
            loss = classification_loss(reward, complies)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        on_step(
            Step(
                number=number,
                loss=loss.item(),
                accuracy=((reward > 0) == complies).float().mean().item(),
                num_tokens=num_tokens,
                seconds=time.perf_counter() - started,
            )
        )


def similarity(model: CSRM, texts: Sequence[str]) -> NDArray[np.float32]:
    """Cosine similarities of clause texts by the model's own pooled vectors, (C, C)."""
    blocks = model.encoder.encode_clauses(texts)
    order = sorted(range(len(blocks)), key=lambda c: len(blocks[c]))
    with torch.inference_mode(), mixed_precision(model.device):
        pooled = [
            model.encode_clauses([blocks[c] for c in order[s : s + 128]]).pooled_BE for s in range(0, len(order), 128)
        ]
    vectors = torch.nn.functional.normalize(torch.cat(pooled), dim=-1).cpu().numpy()
    vectors = vectors[np.argsort(order)]
    return np.asarray(vectors @ vectors.T, dtype=np.float32)


def draw_rows(
    rows: Sequence[LabelledRow], options: TrainOptions, rng: np.random.Generator
) -> Iterator[list[LabelledRow]]:
    """Batches of distinct rows. A domain of n rows is drawn in proportion to n ** domain_power."""
    _, inverse, sizes = np.unique([row.domain for row in rows], return_inverse=True, return_counts=True)
    shares = sizes**options.domain_power / np.sum(sizes**options.domain_power)
    probability = (shares / sizes)[inverse]
    for _ in range(options.num_steps):
        size = min(options.batch_rows, len(rows))
        yield [rows[r] for r in rng.choice(len(rows), size=size, replace=False, p=probability)]


def parameter_groups(model: CSRM, options: TrainOptions) -> list[dict[str, object]]:
    """Two learning rates, and weight decay on matrices alone."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.backbone_lr if is_backbone else options.head_lr,
            "weight_decay": options.weight_decay if is_matrix else 0.0,
        }
        for (is_backbone, is_matrix), parameters in groups.items()
    ]


def learning_rate(step: int, options: TrainOptions) -> float:
    """Share of the peak rate: a linear rise, then a cosine down to zero."""
    warmup = options.warmup_share * options.num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, options.num_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def mixed_precision(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 where the device multiplies it fast."""
    from csrm.checkpoint import resolve_dtype

    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_dtype("auto", device) == torch.bfloat16)
