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
from csrm.permissions import permission

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
            related = related | (inside[:, None] & inside[None, :] & ~same_domain)
        limit = np.where(same_domain, UNRELATED_WITHIN_DOMAIN, UNRELATED_ACROSS_DOMAINS)
        categories = np.array([clause.category for clause in self.clauses])
        same_category = categories[:, None] == categories[None, :]
        unrelated = (similarity_CC < limit) & ~related & ~same_category & self.is_presumable[None, :]
        self.is_unrelated = np.asarray(unrelated, dtype=bool)

    def presumed_kept(self, row: LabelledRow) -> NDArray[np.bool_]:
        """(C,) clauses that the row's message is presumed not to violate."""
        own = [self.index[clause] for clause in row.clauses]
        return np.asarray(self.is_unrelated[own].all(axis=0))


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
    num_permissions: int = 16,
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
        num_permissions: how many of the rows' own clauses get a twin that allows what they forbid; it stands in
            their place in some of the configurations without them.
        max_clauses: the most clauses in one configuration.
    """
    own = sorted({library.index[clause] for row in rows for clause in row.clauses})
    extra = rng.choice(np.flatnonzero(library.is_presumable), size=num_extra_clauses)
    pool = np.array(sorted({*own, *extra.tolist()}))
    position = {number: place for place, number in enumerate(pool.tolist())}
    allowed = rng.choice(own, size=min(num_permissions, len(own)), replace=False).tolist()
    clauses = [library.clauses[number] for number in pool]
    clauses += [permission(library.clauses[number], rng) for number in allowed]
    twin = {number: len(pool) + place for place, number in enumerate(allowed)}
    index = np.full((len(rows), num_configurations, max_clauses), len(clauses))
    complies = np.ones((len(rows), num_configurations), dtype=bool)
    for r, row in enumerate(rows):
        numbers = [library.index[clause] for clause in row.clauses]
        known = np.array([position[number] for number in numbers])
        choice = _Choice(
            bad=known[list(row.violated)],
            good=known[[not label for label in row.violated]],
            allowed=np.array([twin[number] for number in numbers if number in twin], dtype=np.int64),
            other=np.flatnonzero(library.presumed_kept(row)[pool]),
        )
        for k in range(num_configurations):
            members = choice.draw(rng, int(rng.integers(1, max_clauses + 1)), with_bad=k % 2 == 0)
            index[r, k, : len(members)] = members
            complies[r, k] = not np.isin(members, choice.bad).any()
    return Batch(list(rows), clauses, index, complies)


@dataclass(slots=True)
class _Choice:
    """What one row's configurations are drawn from; all are places in the batch's clauses."""

    bad: NDArray[np.int64]
    """Own clauses that the row violates."""
    good: NDArray[np.int64]
    """Own clauses that it keeps."""
    allowed: NDArray[np.int64]
    """Twins that allow what own clauses forbid."""
    other: NDArray[np.int64]
    """Clauses about something else, presumed kept."""

    def draw(self, rng: np.random.Generator, size: int, *, with_bad: bool) -> NDArray[np.int64]:
        """One configuration of at most `size` clauses, holding a violated one if asked for and there is one."""
        core = self._core(rng, with_bad)
        num_core = min(len(core), size) if core is self.good else 1
        members = rng.choice(core, size=num_core, replace=False)
        rest = np.setdiff1d(np.concatenate([self.good, self.other]), members)
        filling = rng.choice(rest, size=min(size - num_core, len(rest)), replace=False)
        return np.concatenate([members, filling])

    def _core(self, rng: np.random.Generator, with_bad: bool) -> NDArray[np.int64]:
        own = self.bad if len(self.bad) else self.good
        if with_bad and len(own):
            return own
        options = [part for part in (self.good, self.allowed, self.other) if len(part)]
        return options[int(rng.integers(len(options)))] if options else own
