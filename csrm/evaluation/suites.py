"""One function per kind of test set: from a model and rows to figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Configuration
from csrm.evaluation.blind_baseline import BlindBaseline
from csrm.evaluation.cells import Cells, any_clause_cells, counterfactual_cells, own_cells, row_of
from csrm.evaluation.figures import (
    NO_INTERVALS,
    Figures,
    Resampling,
    evaluate_cells,
    judgement_figures,
    preference_figures,
)
from csrm.evaluation.metrics import auroc
from csrm.evaluation.rows import PolicyRow, ScenarioRow
from csrm.labelled import BinaryRow, LabelledRow, PreferenceRow

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = ["any_clause", "binary", "counterfactual", "dynabench", "own_clauses", "preferences", "scenarios"]


def counterfactual(
    model: CSRM,
    rows: Sequence[LabelledRow],
    blind: BlindBaseline | None,
    resampling: Resampling,
    *,
    same_domain: bool,
    seed: int = 0,
) -> Figures:
    """Rows under drawn configurations with and without their clause; see `counterfactual_cells`."""
    cells = counterfactual_cells(rows, np.random.default_rng(seed), same_domain=same_domain)
    return evaluate_cells(model, cells, blind, resampling=resampling)


def own_clauses(
    model: CSRM, rows: Sequence[LabelledRow], blind: BlindBaseline | None, resampling: Resampling
) -> Figures:
    """Rows under each of their clauses alone."""
    return evaluate_cells(model, own_cells(rows), blind, resampling=resampling)


def any_clause(
    model: CSRM, rows: Sequence[LabelledRow], blind: BlindBaseline | None, resampling: Resampling
) -> Figures:
    """Rows under all their clauses as one configuration, violated if any is."""
    return evaluate_cells(model, any_clause_cells(rows), blind, resampling=resampling)


def binary(
    model: CSRM,
    rows: Sequence[BinaryRow],
    configuration: Configuration,
    blind: BlindBaseline | None = None,
    resampling: Resampling = NO_INTERVALS,
) -> Figures:
    """Harmful or not, judged by one general configuration at its threshold."""
    labelled = [row_of(row.id, row.conversation) for row in rows]
    matrix = model.score([row.conversation for row in labelled], [configuration])
    return {
        "configuration": configuration.id,
        **judgement_figures(
            matrix.reward[:, 0],
            matrix.p_safe[:, 0],
            np.array([row.harmful for row in rows], dtype=bool),
            labelled,
            threshold=configuration.threshold,
            blind=None if blind is None else blind.score(model, labelled),
            resampling=resampling,
        ),
    }


def preferences(
    model: CSRM,
    rows: Sequence[PreferenceRow],
    configuration: Configuration,
    blind: BlindBaseline | None = None,
    resampling: Resampling = NO_INTERVALS,
) -> Figures:
    """Two replies to one history, both scored under one configuration: does the chosen one get the larger reward?"""
    chosen, rejected = zip(*(row.replies() for row in rows), strict=True)
    replies = [row_of(str(n), talk) for n, talk in enumerate([*chosen, *rejected])]
    reward = model.score([row.conversation for row in replies], [configuration]).reward[:, 0]
    return {
        "configuration": configuration.id,
        **preference_figures(
            _margin(reward),
            replies[: len(rows)],
            blind=None if blind is None else _margin(-blind.score(model, replies)),
            resampling=resampling,
        ),
    }


def dynabench(model: CSRM, rows: Sequence[PolicyRow], blind: BlindBaseline | None, resampling: Resampling) -> Figures:
    """Every agent turn under the whole policy in its context; a dialogue violates if any of its turns does."""
    cells, turns_of_row = Cells(), []
    for row in rows:
        turns_of_row.append(range(len(cells.rows), len(cells.rows) + len(row.turns)))
        for number, turn in enumerate(row.turns):
            cells.add(row_of(f"{row.id}#{number}", turn), row.configuration.clauses, complies=not row.violates)
    reward = _worst(cells.rewards(model), turns_of_row)
    blind_R = None if blind is None else -_worst(-blind.score(model, cells.rows), turns_of_row)
    figures = judgement_figures(
        reward,
        model.calibration.p_safe(reward),
        np.array([row.violates for row in rows], dtype=bool),
        [row_of(row.id, row.turns[-1]) for row in rows],
        blind=blind_R,
        resampling=resampling,
    )
    rules = [len(row.configuration.clauses) for row in rows]
    return {**figures, "num_turns": len(cells.rows), "median_rules": float(np.median(rules)), "most_rules": max(rules)}


def scenarios(
    model: CSRM,
    rows: Sequence[ScenarioRow],
    configurations: Sequence[Configuration],
    blind: BlindBaseline | None,
    resampling: Resampling,
) -> Figures:
    """Replies under their scenarios' configurations (CoSApien).

    Rows with a label are measured as every judged cell. Without labels all that can be said is how often replies to
    allowed, partial and disallowed prompts count as violations, and how well rewards tell allowed from disallowed.
    """
    number = {configuration.id: n for n, configuration in enumerate(configurations)}
    own = np.array([number[row.scenario] for row in rows])
    labelled = [row_of(row.id, row.conversation) for row in rows]
    matrix = model.score([row.conversation for row in labelled], list(configurations))
    reward, p_safe = (values[np.arange(len(rows)), own] for values in (matrix.reward, matrix.p_safe))
    predicted = matrix.violates[np.arange(len(rows)), own]
    types = np.array([row.type for row in rows])
    rates = {f"violating_rate_{t}": float(predicted[types == t].mean()) for t in sorted(set(types.tolist()) - {""})}
    is_clear = np.isin(types, ["allowed", "disallowed"])
    figures: Figures = {"num_rows": len(rows), **rates}
    figures["auroc_disallowed_prompt"] = float(auroc(-reward[is_clear], types[is_clear] == "disallowed"))
    known = np.array([row.violates is not None for row in rows])
    if not known.any():
        return figures
    chosen = [labelled[r] for r in np.flatnonzero(known)]
    judged = judgement_figures(
        reward[known],
        p_safe[known],
        np.array([row.violates for row in rows if row.violates is not None], dtype=bool),
        chosen,
        blind=None if blind is None else blind.score(model, chosen),
        resampling=resampling,
    )
    return {**figures, **judged}


def _worst(reward: NDArray[np.float32], turns_of_row: Sequence[range]) -> NDArray[np.float32]:
    """The smallest reward among each row's turns."""
    return np.array([reward[turns.start : turns.stop].min() for turns in turns_of_row], np.float32)


def _margin(reward: NDArray[np.float32]) -> NDArray[np.float32]:
    """First half minus second half: chosen replies stand before rejected ones."""
    chosen, rejected = np.split(reward, 2)
    return np.asarray(chosen - rejected)
