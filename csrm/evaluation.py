"""Held-out evaluation: what a model makes of rows it never saw, beside a baseline that never reads the rules.

Suites return plain dictionaries of figures. Nothing here trains, tunes or chooses anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.augmentation import Batch
from csrm.cells import batch_reward
from csrm.configurations import Clause, Configuration
from csrm.labelled import BinaryRow, LabelledRow
from csrm.metrics import auroc, average_precision, brier, expected_calibration_error, f1
from csrm.model import CSRM
from csrm.training import mixed_precision

__all__ = [
    "BlindBaseline",
    "Cells",
    "binary",
    "counterfactual_cells",
    "evaluate_cells",
    "own_cells",
    "per_clause",
    "sample",
]


class Cells:
    """Cells to judge: for each, a row, the clauses of its configuration, and whether the row complies."""

    def __init__(self) -> None:
        self.rows: list[LabelledRow] = []
        self.clauses: list[list[Clause]] = []
        self.complies: list[bool] = []

    def add(self, row: LabelledRow, clauses: Sequence[Clause], complies: bool) -> None:
        """Add one cell."""
        self.rows.append(row)
        self.clauses.append(list(clauses))
        self.complies.append(complies)

    def rewards(self, model: CSRM, *, batch_rows: int = 64) -> NDArray[np.float32]:
        """Rewards of all cells, (num_cells,)."""
        order = sorted(range(len(self.rows)), key=lambda i: sum(len(m.content) for m in self.rows[i].conversation))
        rewards = np.empty(len(order), np.float32)
        for start in range(0, len(order), batch_rows):
            chosen = order[start : start + batch_rows]
            with torch.inference_mode(), mixed_precision(model.device):
                reward_RK, _ = batch_reward(model, self._batch(chosen))
            rewards[chosen] = reward_RK[:, 0].float().cpu().numpy()
        return rewards

    def _batch(self, chosen: Sequence[int]) -> Batch:
        clauses = list(dict.fromkeys(clause for i in chosen for clause in self.clauses[i]))
        number = {clause: n for n, clause in enumerate(clauses)}
        longest = max(len(self.clauses[i]) for i in chosen)
        index = np.full((len(chosen), 1, longest), len(clauses))
        for r, i in enumerate(chosen):
            index[r, 0, : len(self.clauses[i])] = [number[clause] for clause in self.clauses[i]]
        complies = np.array([[self.complies[i]] for i in chosen])
        return Batch([self.rows[i] for i in chosen], clauses, index, complies)


def counterfactual_cells(
    rows: Sequence[LabelledRow], rng: np.random.Generator, *, num_others: int = 3, same_domain: bool = False
) -> Cells:
    """Cells that cannot be judged without reading the configuration; half of them hold a violated clause.

    Every violating row appears with its own clause (violates) and, as often, a counterpart that complies: in turn
    the same row with its clause left out, and a row that keeps its own clause. Beside it stand clauses of other
    categories, from other domains (or, if `same_domain`, from the row's own: harder, and with label noise where
    rules overlap).
    """
    by_domain: dict[str, list[Clause]] = {}
    for row in rows:
        by_domain.setdefault(row.domain, []).extend(row.clauses)
    pools = {domain: list(dict.fromkeys(clauses)) for domain, clauses in by_domain.items()}
    cells = Cells()
    keeping = [row for row in rows if not row.violated[0]]
    breaking = [row for row in rows if row.violated[0]]
    for number, row in enumerate(breaking):
        cells.add(row, [row.clauses[0], *_others(row, pools, rng, num_others, same_domain)], complies=False)
        if number % 2:
            cells.add(row, _others(row, pools, rng, num_others + 1, same_domain), complies=True)
        else:
            kept = keeping[int(rng.integers(len(keeping)))]
            cells.add(kept, [kept.clauses[0], *_others(kept, pools, rng, num_others, same_domain)], complies=True)
    return cells


def _others(
    row: LabelledRow, pools: dict[str, list[Clause]], rng: np.random.Generator, number: int, same_domain: bool
) -> list[Clause]:
    """Clauses of other categories, all from other domains or all from the row's own."""
    own = {clause.category for clause in row.clauses}
    pool = [
        clause
        for domain, clauses in pools.items()
        if (domain == row.domain) == same_domain
        for clause in clauses
        if clause.category not in own
    ]
    return [pool[i] for i in rng.choice(len(pool), size=min(number, len(pool)), replace=False)]


def sample(rows: Sequence[LabelledRow], number: int, rng: np.random.Generator) -> list[LabelledRow]:
    """At most `number` of the rows, drawn without replacement."""
    return [rows[i] for i in rng.choice(len(rows), size=min(number, len(rows)), replace=False)]


def own_cells(rows: Sequence[LabelledRow]) -> Cells:
    """Each row under each of its own clauses alone."""
    cells = Cells()
    for row in rows:
        for clause, violated in zip(row.clauses, row.violated, strict=True):
            cells.add(row, [clause], complies=not violated)
    return cells


def evaluate_cells(model: CSRM, cells: Cells, blind: BlindBaseline | None = None) -> dict[str, float]:
    """AUROC of violation, calibration and both F1s; beside them the AUROC of a model that reads no configuration."""
    reward = cells.rewards(model)
    violates = ~np.array(cells.complies)
    p_safe = model.calibration.p_safe(reward)
    figures = {
        "num_cells": float(len(reward)),
        "auroc": auroc(-reward, violates),
        "average_precision": average_precision(-reward, violates),
        "f1_violating": f1(p_safe < 0.5, violates),
        "f1_complying": f1(p_safe >= 0.5, ~violates),
        "ece": expected_calibration_error(p_safe, ~violates),
        "brier": brier(p_safe, ~violates),
    }
    if blind is not None:
        figures["auroc_blind"] = auroc(blind.score(model, cells.rows), violates)
    return figures


def per_clause(model: CSRM, rows: Sequence[LabelledRow]) -> dict[str, float]:
    """AUROC of each clause over the rows where its label is known; clauses with one class only are left out."""
    cells = own_cells(rows)
    reward, violates = cells.rewards(model), ~np.array(cells.complies)
    categories = np.array([clauses[0].category for clauses in cells.clauses])
    figures = {}
    for category in sorted(set(categories)):
        mask = categories == category
        if violates[mask].any() and not violates[mask].all():
            figures[category] = auroc(-reward[mask], violates[mask])
    return figures


def binary(model: CSRM, rows: Sequence[BinaryRow], configuration: Configuration) -> dict[str, float]:
    """Harmful or not, judged by one general configuration: AUROC and F1 of both classes at the threshold."""
    matrix = model.score([[message._asdict() for message in row.conversation] for row in rows], [configuration])
    harmful, predicted = np.array([row.harmful for row in rows]), matrix.violates[:, 0]
    return {
        "num_rows": float(len(rows)),
        "auroc": auroc(-matrix.reward[:, 0], harmful),
        "f1_violating": f1(predicted, harmful),
        "f1_complying": f1(~predicted, ~harmful),
        "f1_violating_if_all_violate": f1(np.ones_like(harmful), harmful),
    }


class BlindBaseline:
    """Logistic regression on a text's pooled vector: how far one gets without ever reading the configuration."""

    def __init__(self, model: CSRM, rows: Sequence[LabelledRow], *, l2: float = 1e-3, num_steps: int = 50):
        """Fit on rows labelled by whether they violate any of their own clauses, by L-BFGS."""
        features = self._features(model, rows)
        violates = torch.tensor([any(row.violated) for row in rows], dtype=torch.float32)
        self.linear = torch.nn.Linear(features.shape[1], 1)
        optimiser = torch.optim.LBFGS(self.linear.parameters(), max_iter=num_steps, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            logits = self.linear(features).squeeze(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, violates)
            loss = loss + l2 * self.linear.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]

    def score(self, model: CSRM, rows: Sequence[LabelledRow]) -> NDArray[np.float32]:
        """Log-odds of violation, (num_rows,)."""
        with torch.no_grad():
            return np.asarray(self.linear(self._features(model, rows)).squeeze(1).numpy(), np.float32)

    def _features(self, model: CSRM, rows: Sequence[LabelledRow]) -> torch.Tensor:
        encoded = model.encoder.encode([row.conversation for row in rows])
        windows, firsts = encoded.windows(), np.cumsum(encoded.windows_per_record) - 1
        features = torch.empty(len(rows), model.backbone.config.hidden_size)
        order = sorted(range(len(rows)), key=lambda r: len(windows[firsts[r]]))
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            with torch.inference_mode(), mixed_precision(model.device):
                pooled = model.encode_windows(
                    [windows[firsts[r]] for r in chosen],
                    [int(encoded.judged_starts[firsts[r]]) for r in chosen],
                ).pooled_BE
            features[chosen] = torch.nn.functional.normalize(pooled, dim=-1).cpu() * 10
        return features
