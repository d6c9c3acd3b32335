"""Calibration on rules that a model was not trained on, in configurations of the kind that it was trained in.

About one in five of these is violated, and p_safe holds where that is so; how often rules are broken differs from
corpus to corpus, and `csrm calibrate` fits p_safe to one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from csrm import calibration
from csrm.augmentation import sample_batch
from csrm.calibration import Calibration
from csrm.cells import batch_reward
from csrm.errors import InputError
from csrm.labelled import LabelledRow
from csrm.model import CSRM
from csrm.training.sampler import TrainingData
from csrm.training.trainer import TrainOptions, make_library, mixed_precision

__all__ = ["fit_held_out"]

ROWS_PER_BATCH = 64


def fit_held_out(
    model: CSRM, data: TrainingData, held: Sequence[LabelledRow], options: TrainOptions
) -> tuple[Calibration, int]:
    """Fit a calibration to cells drawn around held-out rows.

    Args:
        model: trained; its own calibration is ignored.
        data: what it was trained on: other clauses of the configurations come from there too.
        held: rows about clauses that are not in `data`.
        options: of the training; settles what is drawn.

    Returns:
        The calibration and the number of cells behind it.

    Raises:
        InputError: the held-out cells do not have both labels.
    """
    library = make_library(model, [*data.rows, *held])
    rng = np.random.default_rng([options.seed, options.num_steps])
    recipe = replace(options.recipe, num_strictness=0)
    rewards: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.bool_]] = []
    for start in range(0, len(held), ROWS_PER_BATCH):
        rows = list(held[start : start + ROWS_PER_BATCH])
        framed = rows if data.frames is None else [data.frames.frame(row, rng) for row in rows]
        batch = sample_batch(framed, library, rng, recipe)
        with torch.inference_mode(), mixed_precision(model.device, options.dtype):
            reward_RK, _ = batch_reward(model, batch)
        rewards.append(reward_RK.float().cpu().numpy()[batch.known_RK])
        labels.append(batch.complies_RK[batch.known_RK])
    complies = np.concatenate(labels) if labels else np.empty(0, bool)
    if complies.all() or not complies.any():
        raise InputError(
            f"the clauses held out for calibration have {len(held)} rows, not of both labels: "
            "hold out more of them with --holdout, or none with --holdout 0 (no calibration)"
        )
    return calibration.fit(np.concatenate(rewards), complies), len(complies)
