"""Held-out evaluation: figures of a model on rows it never saw, beside baselines that never read the rules.

Returns plain dictionaries: a figure under its name, its 95 % interval under `<name>_95`, what trivial models get under
`<name>_if_all_violate` and the like, what a model without configurations gets under `<name>_blind`. Nothing here
trains, tunes or chooses anything.

Shape letters: R judged cells, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csrm.evaluation.blind_baseline import BlindBaseline
from csrm.evaluation.bootstrap import Measure, cluster_numbers, estimate
from csrm.evaluation.cells import Cells, own_cells
from csrm.evaluation.metrics import (
    auroc,
    average_precision,
    brier,
    expected_calibration_error,
    f1,
    pairwise_accuracy,
    weighted_mean,
)
from csrm.evaluation.smooth_ece import smooth_ece
from csrm.labelled import LabelledRow

if TYPE_CHECKING:
    from csrm.messages import Message
    from csrm.model import CSRM

__all__ = [
    "NO_INTERVALS",
    "Resampling",
    "evaluate_cells",
    "judgement_figures",
    "per_clause",
    "per_clause_figures",
    "preference_figures",
]

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How intervals are made."""

    num_resamples: int = 0
    """Bootstrap resamples; 0 leaves intervals out."""
    by: Literal["row", "prompt"] = "row"
    """What is drawn: single rows with all their cells, or all rows that answer the same prompt."""
    seed: int = 0
    """Of the resamples."""

    def estimate(self, measures: dict[str, Measure], rows: Sequence[LabelledRow]) -> Figures:
        """Figures and their intervals; see `csrm.evaluation.bootstrap.estimate`."""
        keys = [id(row) if self.by == "row" else _prompt(row.conversation) for row in rows]
        return dict(estimate(measures, cluster_numbers(keys), num_resamples=self.num_resamples, seed=self.seed))


NO_INTERVALS = Resampling()


def evaluate_cells(
    model: CSRM, cells: Cells, blind: BlindBaseline | None = None, *, resampling: Resampling = NO_INTERVALS
) -> Figures:
    """Score cells under their configurations and measure; see `judgement_figures`."""
    reward = cells.rewards(model)
    blind_R = None if blind is None else blind.score(model, cells.rows)
    return judgement_figures(
        reward, model.calibration.p_safe(reward), cells.violates, cells.rows, blind=blind_R, resampling=resampling
    )


def judgement_figures(
    reward: Floats,
    p_safe: Floats,
    violates: Bools,
    rows: Sequence[LabelledRow],
    *,
    threshold: float = 0.5,
    blind: Floats | None = None,
    resampling: Resampling = NO_INTERVALS,
) -> Figures:
    """Ranking, verdicts and calibration of judged cells, beside what trivial models get.

    Args:
        reward: (R,) log-odds of compliance.
        p_safe: (R,) calibrated probabilities.
        violates: (R,) labels.
        rows: (R,) the row of each cell; cells of a row (or of its prompt) are resampled together.
        threshold: p_safe below it is a violation.
        blind: (R,) log-odds of violation by a model that reads no configuration.
        resampling: of the intervals.
    """
    predicted = p_safe < threshold
    measures: dict[str, Measure] = {
        "auroc": partial(auroc, -reward, violates),
        "auprc": partial(average_precision, -reward, violates),
        "auprc_complying": partial(average_precision, reward, ~violates),
        "f1_violating": partial(f1, predicted, violates),
        "f1_complying": partial(f1, ~predicted, ~violates),
        "smece": partial(smooth_ece, p_safe, ~violates),
        "ece": partial(expected_calibration_error, p_safe, ~violates),
        "brier": partial(brier, p_safe, ~violates),
    }
    if blind is not None:
        measures |= {
            "auroc_blind": partial(auroc, blind, violates),
            "auprc_blind": partial(average_precision, blind, violates),
            "f1_violating_blind": partial(f1, blind > 0, violates),
            "f1_complying_blind": partial(f1, blind <= 0, ~violates),
        }
    everything, share = np.ones_like(violates), float(violates.mean())
    return {
        "num_rows": len({id(row) for row in rows}),
        "num_cells": len(reward),
        "share_violating": share,
        **resampling.estimate(measures, rows),
        "f1_violating_if_all_violate": float(f1(everything, violates)),
        "f1_complying_if_all_comply": float(f1(everything, ~violates)),
        "brier_if_constant": share * (1 - share),
    }


def preference_figures(
    margin: Floats, rows: Sequence[LabelledRow], *, blind: Floats | None = None, resampling: Resampling = NO_INTERVALS
) -> Figures:
    """How often, and by how much, the chosen reply has the larger reward.

    Args:
        margin: (R,) reward of the chosen reply minus that of the rejected one.
        rows: (R,) one of the two, for its prompt.
        blind: (R,) the same margin of a model that reads no configuration.
        resampling: of the intervals.
    """
    measures: dict[str, Measure] = {
        "pairwise_accuracy": partial(pairwise_accuracy, margin),
        "mean_margin": partial(weighted_mean, margin),
    }
    if blind is not None:
        measures["pairwise_accuracy_blind"] = partial(pairwise_accuracy, blind)
    return {"num_rows": len(margin), **resampling.estimate(measures, rows)}


def per_clause(model: CSRM, rows: Sequence[LabelledRow]) -> dict[str, float]:
    """AUROC of each clause over the rows where its label is known; clauses with one class only are left out."""
    cells = own_cells(rows)
    return {name: float(measure(None)) for name, measure in _by_category(cells, cells.rewards(model)).items()}


def per_clause_figures(
    model: CSRM,
    rows: Sequence[LabelledRow],
    blind: BlindBaseline | None = None,
    resampling: Resampling = NO_INTERVALS,
) -> Figures:
    """Mean AUROC over clauses with its interval, that of a model that reads none, and every clause's own."""
    cells = own_cells(rows)
    measures = {"mean_auroc": _by_category(cells, cells.rewards(model))}
    by_category = {name: float(measure(None)) for name, measure in measures["mean_auroc"].items()}
    if blind is not None:
        measures["mean_auroc_blind"] = _by_category(cells, -blind.score(model, cells.rows))
    means: dict[str, Measure] = {name: _mean_of(list(parts.values())) for name, parts in measures.items()}
    figures = resampling.estimate(means, cells.rows) if by_category else {"mean_auroc": float("nan")}
    return {
        "num_rows": len(rows),
        "num_cells": len(cells.rows),
        "num_clauses": len(by_category),
        **figures,
        "by_clause": by_category,
    }


def _by_category(cells: Cells, reward: Floats) -> dict[str, Measure]:
    """The AUROC of each category with both classes, as measures over all cells."""
    categories = np.array([clauses[0].category for clauses in cells.clauses])
    violates, measures = cells.violates, {}
    for category in sorted(set(categories.tolist())):
        mask = categories == category
        if violates[mask].any() and not violates[mask].all():
            measures[category] = _restricted(partial(auroc, -reward[mask], violates[mask]), mask)
    return measures


def _restricted(measure: Callable[[Floats | None], Floats], mask: Bools) -> Measure:
    return lambda weight: measure(None if weight is None else weight[..., mask])


def _mean_of(measures: Sequence[Measure]) -> Measure:
    """Mean over measures, those left out that do not exist in a resample."""

    def mean(weight: Floats | None) -> Floats:
        values = np.stack([measure(weight) for measure in measures])
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0).sum(axis=0)
        return np.asarray(np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan))

    return mean


def _prompt(conversation: Sequence[Message]) -> tuple[str, ...]:
    """All messages but the judged one; a single message is its own prompt."""
    return tuple(message.content for message in conversation[:-1]) or (conversation[-1].content,)
