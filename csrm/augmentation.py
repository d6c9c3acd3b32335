"""Configurations built around labelled clauses: what makes a model obey its configuration instead of guessing.

A labelled row says that a message violates (or keeps) a clause. Around it grow *counterfactual* configurations:
its own clauses in, or out; other clauses, presumed not violated, beside them. The label follows from the set:
a configuration is violated iff a violated clause is in it (arXiv 2605.30487, section on augmentation). Without
them a model can reach .95 AUC on these rows and never read the configuration.

Which clauses may stand beside a row as presumed not violated is a table over pairs of clauses, made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Clause
from csrm.labelled import LabelledRow

__all__ = ["Batch", "ClauseLibrary", "sample_batch"]

# Text about these domains often violates the rules of its neighbour too: never presume otherwise.
RELATED_DOMAINS = frozenset({frozenset({"social", "diasafety"})})

# A clause counts as being about something else when its text is at most this similar (cosine).
UNRELATED_ACROSS_DOMAINS = 0.4
UNRELATED_WITHIN_DOMAIN = 0.2


class ClauseLibrary:
    """The distinct clauses of a training set, and which may be presumed kept where another is violated."""

    def __init__(self, rows: Sequence[LabelledRow], conduct_domains: frozenset[str] = frozenset({"rbr"})):
        """Collect clauses.

        Args:
            rows: labelled rows.
            conduct_domains: domains whose clauses speak of form ("must not apologise"): any text may violate
                them, so they are used with their own labels only.
        """
        owners: dict[Clause, str] = {}
        for row in rows:
            for clause in row.clauses:
                owners.setdefault(clause, row.domain)
        self.clauses = list(owners)
        self.domains = np.array(list(owners.values()))
        self.index = {clause: number for number, clause in enumerate(self.clauses)}
        self.is_presumable = ~np.isin(self.domains, list(conduct_domains))
        self.is_unrelated = np.zeros((len(self.clauses), len(self.clauses)), dtype=bool)

    def relate(self, similarity_CC: NDArray[np.float32]) -> None:
        """Fill the table of unrelated clauses from cosine similarities of the clauses' texts, (C, C)."""
        same_domain = self.domains[:, None] == self.domains[None, :]
        related = np.zeros_like(same_domain)
        for pair in RELATED_DOMAINS:
            inside = np.isin(self.domains, list(pair))
            related |= inside[:, None] & inside[None, :] & ~same_domain
        limit = np.where(same_domain, UNRELATED_WITHIN_DOMAIN, UNRELATED_ACROSS_DOMAINS)
        categories = np.array([clause.category for clause in self.clauses])
        same_category = categories[:, None] == categories[None, :]
        self.is_unrelated = (similarity_CC < limit) & ~related & ~same_category & self.is_presumable[None, :]

    def presumed_kept(self, row: LabelledRow) -> NDArray[np.bool_]:
        """(C,) clauses that the row's message is presumed not to violate."""
        own = [self.index[clause] for clause in row.clauses]
        allowed: NDArray[np.bool_] = self.is_unrelated[own].all(axis=0)
        return allowed


@dataclass(slots=True)
class Batch:
    """Rows with their cells: K configurations per row over clauses numbered within the batch."""

    rows: list[LabelledRow]
    clauses: list[Clause]
    """Distinct clauses of the batch."""
    index_RKM: NDArray[np.int64]
    """Clauses of each row's configurations, padded with len(clauses)."""
    complies_RK: NDArray[np.bool_]
    """Label of each cell."""


def sample_batch(
    rows: Sequence[LabelledRow],
    library: ClauseLibrary,
    rng: np.random.Generator,
    *,
    num_configurations: int = 8,
    num_extra_clauses: int = 24,
    max_clauses: int = 6,
) -> Batch:
    """Draw configurations around each row.

    Clauses come from the rows' own and a few extra ones, so that one encoding of each serves the whole batch.
    Half of a row's configurations hold a clause that it violates, if it violates any.

    Args:
        rows: labelled rows of the library.
        library: clauses, with `relate` done.
        rng: source of randomness; the batch is a function of its state.
        num_configurations: K, cells per row.
        num_extra_clauses: clauses drawn from the library beside the rows' own.
        max_clauses: the most clauses in one configuration.
    """
    own = {library.index[clause] for row in rows for clause in row.clauses}
    extra = rng.choice(np.flatnonzero(library.is_presumable), size=num_extra_clauses)
    pool = np.array(sorted(own | set(extra.tolist())))
    position = {number: place for place, number in enumerate(pool.tolist())}
    index = np.full((len(rows), num_configurations, max_clauses), len(pool))
    complies = np.ones((len(rows), num_configurations), dtype=bool)
    for r, row in enumerate(rows):
        known = np.array([position[library.index[clause]] for clause in row.clauses])
        bad, good = known[list(row.violated)], known[[not label for label in row.violated]]
        other = np.flatnonzero(library.presumed_kept(row)[pool])
        for k in range(num_configurations):
            members, safe = _draw(rng, bad, good, other, with_bad=k % 2 == 0, max_clauses=max_clauses)
            index[r, k, : len(members)] = members
            complies[r, k] = safe
    return Batch(list(rows), [library.clauses[number] for number in pool], index, complies)


def _draw(
    rng: np.random.Generator,
    bad: NDArray[np.int64],
    good: NDArray[np.int64],
    other: NDArray[np.int64],
    *,
    with_bad: bool,
    max_clauses: int,
) -> tuple[NDArray[np.int64], bool]:
    """One configuration and whether the row complies with it."""
    size = int(rng.integers(1, max_clauses + 1))
    core = bad if with_bad and len(bad) else good
    if len(core) == 0 or (not with_bad and len(good) == 1 and rng.random() < 0.5):
        core = other
    if len(core) == 0:
        core = good if len(good) else bad
    num_core = 1 if core is not good else min(len(good), size)
    members = rng.choice(core, size=num_core, replace=False)
    rest = np.setdiff1d(np.concatenate([good, other]), members)
    filling = rng.choice(rest, size=min(size - num_core, len(rest)), replace=False)
    members = np.concatenate([members, filling])
    return members, not np.isin(members, bad).any()
