"""Cells to judge, each with a known answer, and the configurations that suites build around labelled rows.

Shape letters: R rows, K configurations per row, M clauses of the longest configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.batch import Batch
from csrm.cells import batch_reward
from csrm.configurations import Clause, Configuration
from csrm.dice import one_of
from csrm.evaluation.bootstrap import cluster_numbers
from csrm.labelled import BinaryRow, LabelledRow
from csrm.messages import Message
from csrm.model import CSRM

__all__ = ["Cells", "any_clause_cells", "binary_cells", "counterfactual_cells", "own_cells", "row_of", "sample"]

MAX_CHARACTERS = 96_000
"""Conversation text of one batch, about 24,000 tokens: bounds its activations."""
MAX_PAIRS = 65_536
"""Pairs of rows and distinct clauses in one batch, for every clause is compared with every row."""
MAX_WASTE = {True: 2, False: 32}
"""With probes and without: up to this many cells are computed per cell asked for before rows are scored one by one."""


@dataclass(slots=True)
class Cells:
    """Cells to judge: for each, a row, the clauses of its configuration, and whether the row complies."""

    rows: list[LabelledRow] = field(default_factory=list)
    clauses: list[tuple[Clause, ...]] = field(default_factory=list)
    complies: list[bool] = field(default_factory=list)

    def add(self, row: LabelledRow, clauses: Sequence[Clause], complies: bool) -> None:
        """Add one cell."""
        self.rows.append(row)
        self.clauses.append(tuple(clauses))
        self.complies.append(complies)

    @property
    def violates(self) -> NDArray[np.bool_]:
        """(num_cells,) labels."""
        return ~np.array(self.complies, dtype=bool)

    def rewards(self, model: CSRM) -> NDArray[np.float32]:
        """Rewards of all cells, (num_cells,). Every row's conversation is encoded once, however many cells it has.

        Where most rows share their configurations the engine scores them all under all of these; else batches of
        rows bring their own.
        """
        row_of_cell = cluster_numbers([id(row) for row in self.rows])
        rows = list({id(row): row for row in self.rows}.values())
        configuration_of_cell, configurations = cluster_numbers(self.clauses), list(dict.fromkeys(self.clauses))
        if len(rows) * len(configurations) <= MAX_WASTE[model.layout.num_probes > 0] * len(self.rows):
            named = [Configuration(id=f"c{n}", clauses=clauses) for n, clauses in enumerate(configurations)]
            reward_RN = model.score([row.conversation for row in rows], named).reward
            return np.asarray(reward_RN[row_of_cell, configuration_of_cell])
        rewards = np.empty(len(self.rows), np.float32)
        cells_of_row: list[list[int]] = [[] for _ in rows]
        for cell, row in enumerate(row_of_cell.tolist()):
            cells_of_row[row].append(cell)
        for group in self._groups(rows, cells_of_row):
            cells = [cells_of_row[r] for r in group]
            with torch.inference_mode():
                reward_RK, _ = batch_reward(model, self._batch([rows[r] for r in group], cells))
            for own, reward_K in zip(cells, reward_RK.float().cpu().numpy(), strict=True):
                rewards[own] = reward_K[: len(own)]
        return rewards

    def _groups(self, rows: Sequence[LabelledRow], cells_of_row: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Rows of similar length, as many at once as the budgets of text and pairs allow."""
        length = [sum(len(message.content) for message in row.conversation) for row in rows]
        group: list[int] = []
        text, clauses = 0, set[Clause]()
        for r in sorted(range(len(rows)), key=lambda r: length[r]):
            own = {clause for cell in cells_of_row[r] for clause in self.clauses[cell]}
            pairs = (len(group) + 1) * len(clauses | own)
            if group and (text + length[r] > MAX_CHARACTERS or pairs > MAX_PAIRS):
                yield group
                group, text, clauses = [], 0, set()
            group.append(r)
            text += length[r]
            clauses |= own
        if group:
            yield group

    def _batch(self, rows: list[LabelledRow], cells: Sequence[Sequence[int]]) -> Batch:
        """Rows with their cells side by side; a row with fewer than K cells repeats its last."""
        members = [[self.clauses[cell] for cell in own] for own in cells]
        clauses = list(dict.fromkeys(clause for own in members for cell in own for clause in cell))
        number = {clause: n for n, clause in enumerate(clauses)}
        most, longest = max(map(len, members)), max(len(cell) for own in members for cell in own)
        index_RKM = np.full((len(rows), most, longest), len(clauses))
        for r, own in enumerate(members):
            for k in range(most):
                cell = own[min(k, len(own) - 1)]
                index_RKM[r, k, : len(cell)] = [number[clause] for clause in cell]
        return Batch(rows, clauses, index_RKM, np.zeros(index_RKM.shape[:2], dtype=bool))


def row_of(id: str, conversation: list[Message]) -> LabelledRow:
    """A conversation as a row without clauses of its own."""
    return LabelledRow(id=id, domain="", conversation=conversation, clauses=(), violated=())


def own_cells(rows: Sequence[LabelledRow]) -> Cells:
    """Each row under each of its own clauses alone."""
    cells = Cells()
    for row in rows:
        for clause, violated in zip(row.clauses, row.violated, strict=True):
            cells.add(row, [clause], complies=not violated)
    return cells


def any_clause_cells(rows: Sequence[LabelledRow]) -> Cells:
    """Each row under all its clauses as one configuration, which it violates if it violates any."""
    cells = Cells()
    for row in rows:
        cells.add(row, row.clauses, complies=not any(row.violated))
    return cells


def binary_cells(rows: Sequence[BinaryRow], configuration: Configuration) -> Cells:
    """Each row under one general configuration, which it violates if it is harmful."""
    cells = Cells()
    for row in rows:
        cells.add(row_of(row.id, row.conversation), configuration.clauses, complies=not row.harmful)
    return cells


def counterfactual_cells(
    rows: Sequence[LabelledRow], rng: np.random.Generator, *, num_others: int = 3, same_domain: bool = False
) -> Cells:
    """Cells that cannot be judged without reading the configuration; half of them hold a violated clause.

    Every violating row appears with its own clause (violates) and, as often, a counterpart that complies: in turn
    the same row with its clause left out, and a row that keeps its own clause. Beside it stand clauses of other
    categories, from other domains (or, if `same_domain`, from the row's own: harder, and with label noise where
    rules overlap).

    Args:
        rows: judgement rows; the first clause of each is the one that counts.
        rng: draws the clauses that stand beside.
        num_others: how many of them.
        same_domain: where they come from.

    Raises:
        ValueError: no row violates its clause, none keeps it, or there is no other clause to draw.
    """
    by_domain: dict[str, list[Clause]] = {}
    for row in rows:
        by_domain.setdefault(row.domain, []).extend(row.clauses)
    pools = {domain: list(dict.fromkeys(clauses)) for domain, clauses in by_domain.items()}
    cells = Cells()
    keeping = [row for row in rows if not row.violated[0]]
    breaking = [row for row in rows if row.violated[0]]
    if not keeping or not breaking:
        raise ValueError("counterfactual configurations need rows that violate their clause and rows that keep it")
    for number, row in enumerate(breaking):
        cells.add(row, [row.clauses[0], *_others(row, pools, rng, num_others, same_domain)], complies=False)
        if number % 2:
            cells.add(row, _others(row, pools, rng, num_others + 1, same_domain), complies=True)
        else:
            kept = one_of(keeping, rng)
            cells.add(kept, [kept.clauses[0], *_others(kept, pools, rng, num_others, same_domain)], complies=True)
    return cells


def sample(rows: Sequence[LabelledRow], number: int, rng: np.random.Generator) -> list[LabelledRow]:
    """At most `number` of the rows, drawn without replacement."""
    return [rows[i] for i in rng.choice(len(rows), size=min(number, len(rows)), replace=False)]


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
    if not pool:
        raise ValueError(f"no clause of another category in {'the same' if same_domain else 'another'} domain")
    return [pool[i] for i in rng.choice(len(pool), size=min(number, len(pool)), replace=False)]
