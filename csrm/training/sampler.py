"""Batches as a function of (seed, step): any worker can draw any of them again, so a resumed run sees the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from csrm.augmentation import Recipe, sample_batch
from csrm.batch import Batch
from csrm.clause_library import ClauseLibrary
from csrm.framing import Frames
from csrm.labelled import LabelledRow, PreferenceRow
from csrm.strictness import StrictnessPair

__all__ = ["BatchSource", "Sampler", "TrainingData"]


class BatchSource(Protocol):
    """Whatever draws the batches of a run."""

    def draw(self, step: int) -> Batch:
        """The batch of a step (the first is 0), a function of its number alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Everything that a run learns from."""

    rows: Sequence[LabelledRow]
    """Conversations with labelled clauses."""
    preferences: Sequence[PreferenceRow] = ()
    """Pairs of replies."""
    strictness: Sequence[StrictnessPair] = ()
    """Pairs of guidelines that the filter of `csrm.strictness` kept."""
    frames: Frames | None = None
    """How single messages are put into conversations; None leaves them alone."""


class Sampler:
    """Draws the batches of a run."""

    def __init__(
        self,
        data: TrainingData,
        library: ClauseLibrary,
        *,
        batch_rows: int,
        batch_preferences: int,
        domain_power: float,
        recipe: Recipe,
        seed: int,
    ):
        """Prepare to draw.

        Args:
            data: what to draw from.
            library: clauses of `data.rows`, with `relate` done.
            batch_rows: labelled rows per batch, at most all.
            batch_preferences: preference pairs per batch, at most all.
            domain_power: a domain of n rows is drawn in proportion to n ** domain_power: 1 by size, 0 all alike.
            recipe: what to draw around each row.
            seed: with the step, the only source of randomness.
        """
        self.data, self.library, self.recipe, self.seed = data, library, recipe, seed
        self.batch_rows = min(batch_rows, len(data.rows))
        self.batch_preferences = min(batch_preferences, len(data.preferences))
        _, inverse, sizes = np.unique([row.domain for row in data.rows], return_inverse=True, return_counts=True)
        shares = sizes**domain_power / np.sum(sizes**domain_power)
        self.probability = (shares / sizes)[inverse]

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.data.rows), size=self.batch_rows, replace=False, p=self.probability)
        rows = [self.data.rows[r] for r in chosen]
        if self.data.frames is not None:
            rows = [self.data.frames.frame(row, rng) for row in rows]
        pairs = rng.choice(len(self.data.preferences), size=self.batch_preferences, replace=False)
        return sample_batch(
            rows,
            self.library,
            rng,
            self.recipe,
            preferences=[self.data.preferences[p] for p in pairs],
            strictness=self.data.strictness,
        )
