"""Labelled cells for calibration: which rows label which configurations, and what calibration does to them.

Shape letters: R labelled cells.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csrm.calibration import MIN_LABELS, fit_configurations
from csrm.configurations import Configuration
from csrm.evaluation.bootstrap import cluster_numbers, estimate
from csrm.evaluation.cells import Cells, any_clause_cells, counterfactual_cells, own_cells, row_of
from csrm.evaluation.metrics import brier, expected_calibration_error
from csrm.evaluation.smooth_ece import smooth_ece
from csrm.labelled import BinaryRow, LabelledRow
from csrm.messages import Message

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = ["LabelledCells", "binary_cells", "calibration_figures", "cross_fitted", "judgement_cells", "label_under"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCells:
    """Rewards with their labels."""

    reward: NDArray[np.float32]
    """(R,) log-odds of compliance."""
    complies: NDArray[np.bool_]
    """(R,)"""
    fingerprints: Sequence[str | None]
    """Of each cell's configuration; None where it was made up around a row."""
    prompts: list[str]
    """What each cell's row answers: cells of one prompt stay together in folds and resamples."""

    @classmethod
    def join(cls, parts: Sequence[LabelledCells]) -> LabelledCells:
        """All cells of several files."""
        return cls(
            reward=np.concatenate([part.reward for part in parts]),
            complies=np.concatenate([part.complies for part in parts]),
            fingerprints=[key for part in parts for key in part.fingerprints],
            prompts=[prompt for part in parts for prompt in part.prompts],
        )


def judgement_cells(
    model: CSRM,
    rows: Sequence[LabelledRow],
    configurations: Sequence[Configuration] = (),
    kinds: Collection[str] = ("own", "any"),
    *,
    seed: int = 0,
) -> LabelledCells:
    """Score judgement rows under their own clauses, and under given configurations as far as they label them.

    Args:
        model: to calibrate.
        rows: judgement rows.
        configurations: a row labels one if `label_under` says so.
        kinds: "own", each clause alone; "any", all of a row's clauses together, where it has several;
            "counterfactual", drawn configurations with and without the row's clause.
        seed: of what is drawn.
    """
    made_up = Cells()
    if "own" in kinds:
        _extend(made_up, own_cells(rows))
    if "any" in kinds:
        _extend(made_up, any_clause_cells([row for row in rows if len(row.clauses) > 1]))
    if "counterfactual" in kinds:
        _extend(made_up, counterfactual_cells(rows, np.random.default_rng(seed)))
    given, fingerprints = Cells(), list[str | None]()
    for configuration in configurations:
        for row in rows:
            label = label_under(row, configuration)
            if label is not None:
                given.add(row, configuration.clauses, complies=not label)
                fingerprints.append(configuration.fingerprint)
    parts = [_scored(model, cells, keys) for cells, keys in ((made_up, None), (given, fingerprints)) if cells.rows]
    if not parts:
        raise ValueError("no labelled cells: no row has several clauses, and none labels a given configuration")
    return LabelledCells.join(parts)


def binary_cells(model: CSRM, rows: Sequence[BinaryRow], configurations: Sequence[Configuration]) -> LabelledCells:
    """Score binary rows under every configuration; a harmful row violates each of them."""
    labelled = [row_of(row.id, row.conversation) for row in rows]
    reward_RN = model.score([row.conversation for row in labelled], list(configurations)).reward
    return LabelledCells(
        reward=reward_RN.ravel(),
        complies=np.repeat([not row.harmful for row in rows], len(configurations)),
        fingerprints=[configuration.fingerprint for configuration in configurations] * len(rows),
        prompts=[_prompt(row.conversation) for row in rows for _ in configurations],
    )


def label_under(row: LabelledRow, configuration: Configuration) -> bool | None:
    """Whether a row violates a configuration: yes if it violates one of its clauses, no if it keeps all, else None."""
    label = dict(zip(row.clauses, row.violated, strict=True))
    known = [label[clause] for clause in configuration.clauses if clause in label]
    if any(known):
        return True
    return False if len(known) == len(configuration.clauses) else None


def cross_fitted(
    cells: LabelledCells, *, num_folds: int = 5, seed: int = 0, min_labels: int = MIN_LABELS
) -> NDArray[np.float32]:
    """(R,) p_safe of every cell by a calibration fitted to the prompts of the other folds.

    Raises:
        ValueError: the other folds hold one class only.
    """
    cluster_R = cluster_numbers(cells.prompts)
    fold_R = (np.random.default_rng(seed).permutation(cluster_R.max() + 1) % num_folds)[cluster_R]
    keys = np.array([key or "" for key in cells.fingerprints])
    p_safe = np.empty(len(cells.reward), np.float32)
    for fold in np.unique(fold_R):
        inside, outside = fold_R == fold, fold_R != fold
        calibration = fit_configurations(
            cells.reward[outside], cells.complies[outside], keys[outside].tolist(), min_labels=min_labels
        )
        p_safe[inside] = calibration.p_safe(cells.reward[inside], keys[inside].tolist())
    return p_safe


def calibration_figures(p_safe: NDArray[np.float32], cells: LabelledCells) -> dict[str, Any]:
    """smECE, ECE over bins of equal mass and Brier score, with 95 % intervals over prompts."""
    measures = {
        "smece": partial(smooth_ece, p_safe, cells.complies),
        "ece": partial(expected_calibration_error, p_safe, cells.complies),
        "brier": partial(brier, p_safe, cells.complies),
    }
    return dict(estimate(measures, cluster_numbers(cells.prompts), num_resamples=500))


def _scored(model: CSRM, cells: Cells, fingerprints: Sequence[str | None] | None) -> LabelledCells:
    return LabelledCells(
        reward=cells.rewards(model),
        complies=~cells.violates,
        fingerprints=[None] * len(cells.rows) if fingerprints is None else fingerprints,
        prompts=[_prompt(row.conversation) for row in cells.rows],
    )


def _extend(cells: Cells, more: Cells) -> None:
    cells.rows += more.rows
    cells.clauses += more.clauses
    cells.complies += more.complies


def _prompt(conversation: Sequence[Message]) -> str:
    """All messages but the judged one; a single message is its own prompt."""
    return "\x00".join(message.content for message in conversation[:-1] or conversation)
