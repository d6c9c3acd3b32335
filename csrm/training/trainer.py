"""Training in plain torch: one step after another over parts of batches. It knows no files, no Ray, no progress bar.

A part's conversations and distinct clauses are encoded once each; then every (row, clause) pair and all cells of all
rows are read out: one pass over a conversation trains many configurations.

Several processes may train one model (`torch.distributed`): each brings its own parts of the same batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrm.batch import Part, Tokens, cut, split_long_clauses
from csrm.cells import Reading, read_tokens
from csrm.clause_library import ClauseLibrary
from csrm.configurations import Clause
from csrm.encoding import Encoder
from csrm.labelled import LabelledRow
from csrm.model import CSRM, Encoded, TokenIds
from csrm.policies.splitting import split_guideline
from csrm.training.objective import Losses, batch_losses
from csrm.training.options import TrainOptions, learning_rate
from csrm.training.sampler import BatchSource, Sampler, TrainingData
from csrm.training.workers import sum_gradients, sum_over_workers, whole

__all__ = [
    "Rewards",
    "Step",
    "TrainOptions",
    "Trainer",
    "clause_vectors",
    "draw_parts",
    "learning_rate",
    "make_library",
    "make_sampler",
    "mixed_precision",
    "pooled_vectors",
    "train",
]

BATCH_BLOCKS = 128
"""Clauses or conversations encoded at once, where only their vectors are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did, over all workers."""

    number: int
    """Of the step, the first being 1."""
    loss: float
    """classification + δ · evidence + γ · (strictness + preference)."""
    classification: float
    evidence: float
    strictness: float
    preference: float
    accuracy: float
    """Share of the labelled cells on the right side of zero."""
    strictness_margin: float | None
    """Mean s(lenient) − s(strict), in log-odds; None without pairs."""
    preference_margin: float | None
    """Mean s(chosen) − s(rejected), in log-odds; None without pairs."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """As a share of the peak rates."""
    num_tokens: int
    """Tokens read forwards; gradients read them again."""
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second, backward pass and optimiser included."""
        return self.num_tokens / self.seconds


class Rewards(torch.nn.Module):
    """All passes of a part as one forward: sharded weights must know where a computation begins and ends."""

    def __init__(self, model: CSRM):
        super().__init__()
        self.model = model

    def forward(self, part: Part) -> Reading:
        """What the model makes of a part."""
        return read_tokens(self.model, part.tokens, part.batch.index_RKM)


class Trainer:
    """A model on its way: weights, optimiser, and how many steps are done, which settles the learning rate.

    `csrm.training.state` writes and reads all of it.
    """

    def __init__(self, model: CSRM, options: TrainOptions, sharded: Rewards | None = None):
        """Start before the first step.

        Args:
            model: float32 weights; those that require no gradient stay as they are.
            options: settings.
            sharded: `Rewards` of the model with its weights spread over workers (FSDP), which adds up gradients by
                itself; None where every worker has all weights.
        """
        self.model, self.options = model, options
        self.is_sharded = sharded is not None
        self.rewards = sharded or Rewards(model)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(model, options), betas=options.betas, fused=None if self.is_sharded else True
        )
        self.num_done = 0
        # Dropout costs a third of a step on a CPU and bought nothing in a few epochs: the model stays in eval mode.
        model.eval()

    def step(self, parts: Sequence[Part]) -> Step:
        """One optimiser step over this worker's parts of a batch; workers take their steps together."""
        started = time.perf_counter()
        share = learning_rate(self.num_done, self.options)
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["peak_lr"]
        sums = sum((self._backward(part) for part in parts), torch.zeros(NUM_SUMS, dtype=torch.float64))
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not self.is_sharded:
            sum_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.num_done += 1
        totals = sum_over_workers(sums.to(self.model.device)).tolist()
        return self._step(totals, whole(norm).item(), share, time.perf_counter() - started)

    def _backward(self, part: Part) -> Tensor:
        """Add a part's gradients; returns what a step adds up, (NUM_SUMS,) float64 on the CPU."""
        with mixed_precision(self.model.device, self.options.dtype):
            reading: Reading = self.rewards(part)
        losses = batch_losses(reading, part.batch, margin=self.options.strictness_margin)
        shares = part.shares
        own = Losses(
            classification=losses.classification * shares.classification,
            evidence=losses.evidence * shares.evidence,
            strictness=losses.strictness * shares.strictness,
            preference=losses.preference * shares.preference,
        )
        own.total(self.options.gamma, self.options.delta).backward()  # type: ignore[no-untyped-call]
        terms = torch.stack([own.classification, own.evidence, own.strictness, own.preference])
        terms = terms.detach().double().cpu()
        return torch.cat([terms, _counts(reading.reward_RK.detach(), part) * part.has_weight])

    def _step(self, totals: list[float], grad_norm: float, share: float, seconds: float) -> Step:
        classification, evidence, strictness, preference, num_right, num_cells, *margins, num_tokens = totals
        return Step(
            number=self.num_done,
            loss=classification + self.options.delta * evidence + self.options.gamma * (strictness + preference),
            classification=classification,
            evidence=evidence,
            strictness=strictness,
            preference=preference,
            accuracy=num_right / max(1.0, num_cells),
            strictness_margin=margins[0] / margins[1] if margins[1] else None,
            preference_margin=margins[2] / margins[3] if margins[3] else None,
            grad_norm=grad_norm,
            learning_rate=share,
            num_tokens=int(num_tokens),
            seconds=seconds,
        )


NUM_SUMS = 11
"""What a step adds up over parts and workers: four terms of the loss, then `_counts`."""


def _counts(reward_RK: Tensor, part: Part) -> Tensor:
    """Cells on the right side, cells, (sum of margins, pairs) of both kinds of pairs, tokens; float64 on the CPU."""
    reward_RK = reward_RK.double().cpu()
    known, complies = torch.from_numpy(part.batch.known_RK), torch.from_numpy(part.batch.complies_RK)
    counts = [float(((reward_RK > 0) == complies)[known].sum()), float(known.sum())]
    for pairs_P2 in (part.batch.strictness_P2, part.batch.preference_P2):
        higher_P, lower_P = reward_RK.flatten()[torch.from_numpy(pairs_P2)].unbind(1)
        counts += [float((higher_P - lower_P).sum()), float(len(pairs_P2))]
    return torch.tensor([*counts, float(part.tokens.num_tokens)], dtype=torch.float64)


def train(
    model: CSRM,
    sampler: BatchSource,
    options: TrainOptions,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
) -> None:
    """Train `model` in place and in this process, in bfloat16 where its device multiplies that fast.

    Args:
        model: float32 weights.
        sampler: what draws the batches; see `make_sampler`.
        options: settings.
        on_step: called after each step.
    """
    torch.manual_seed(options.seed)
    trainer = Trainer(model, options)
    for number in range(options.num_steps):
        [parts] = draw_parts(sampler, model.encoder, number, options)
        on_step(trainer.step(parts))


def make_sampler(model: CSRM, data: TrainingData, options: TrainOptions) -> Sampler:
    """What draws the run's batches."""
    rows = [
        row for row in data.rows if sum(len(message.content) for message in row.conversation) <= options.max_characters
    ]
    return Sampler(
        replace(data, rows=rows),
        make_library(model, rows),
        batch_rows=options.batch_rows,
        batch_preferences=options.batch_preferences,
        domain_power=options.domain_power,
        recipe=options.recipe,
        seed=options.seed,
    )


def make_library(model: CSRM, rows: Sequence[LabelledRow]) -> ClauseLibrary:
    """The clauses of some rows, related to each other by the model's vectors."""
    library = ClauseLibrary(rows)
    library.relate(clause_vectors(model, library.clauses))
    return library


def draw_parts(
    sampler: BatchSource,
    encoder: Encoder,
    number: int,
    options: TrainOptions,
    *,
    num_workers: int = 1,
    even: bool = False,
) -> list[list[Part]]:
    """Parts of the batch of a step (the first is 0), for each worker in turn; see `csrm.batch.cut`."""
    batch = split_long_clauses(sampler.draw(number), encoder)
    return cut(batch, Tokens.of(batch, encoder), max_tokens=options.max_tokens, num_workers=num_workers, even=even)


def clause_vectors(model: CSRM, clauses: Sequence[Clause]) -> NDArray[np.float32]:
    """The model's own pooled vectors of clauses, (C, E), of length 1."""
    # Of a clause that is longer than the model reads, the beginning says what it is about.
    limit, count = model.encoder.limits.max_clause_tokens, model.encoder.count_clause_tokens
    texts = [split_guideline(clause, limit, count)[0].text for clause in clauses]
    vectors_CE = pooled_vectors(model, model.encode_clauses, model.encoder.encode_clauses(texts))
    return torch.nn.functional.normalize(torch.from_numpy(vectors_CE), dim=-1).numpy()


def pooled_vectors(
    model: CSRM, encode: Callable[..., Encoded], blocks: Sequence[TokenIds], *others: Sequence[int]
) -> NDArray[np.float32]:
    """Pooled vectors of blocks, float32 (B, E); `others` are further arguments of `encode`, one value per block."""
    order = sorted(range(len(blocks)), key=lambda b: len(blocks[b]))
    pooled = np.empty((len(blocks), model.backbone.config.hidden_size), np.float32)
    with torch.inference_mode(), mixed_precision(model.device):
        for start in range(0, len(order), BATCH_BLOCKS):
            batch = order[start : start + BATCH_BLOCKS]
            encoded = encode(*([values[b] for b in batch] for values in (blocks, *others)))
            pooled[batch] = encoded.pooled_BE.float().cpu().numpy()
    return pooled


def parameter_groups(model: CSRM, options: TrainOptions) -> list[dict[str, object]]:
    """Two learning rates, and weight decay on matrices alone; frozen weights are left out."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    rates = {True: options.backbone_lr, False: options.head_lr}
    return [
        {
            "params": parameters,
            "lr": rates[is_backbone],
            "peak_lr": rates[is_backbone],
            "weight_decay": options.weight_decay if is_matrix else 0.0,
        }
        for (is_backbone, is_matrix), parameters in groups.items()
    ]


def mixed_precision(device: torch.device, dtype: str = "auto") -> torch.autocast:
    """Matrix products in bfloat16; "auto": where the device multiplies it fast."""
    from csrm.checkpoint import resolve_dtype

    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_dtype(dtype, device) == torch.bfloat16)
