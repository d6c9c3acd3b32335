"""The clauses of a training set, and which of them may be presumed kept by a message that violates another.

Labels say whether a row keeps its own clauses. Counterfactual configurations need more: other clauses that the row
surely does not violate. Which those are is a table over pairs of clauses, made once from the similarity of their texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Clause
from csrm.labelled import LabelledRow

__all__ = ["SPECIFIC_DOMAINS", "ClauseLibrary", "unit_vectors"]

# Text about these domains often violates the rules of its neighbour too: never presume otherwise.
RELATED_DOMAINS = tuple(
    map(frozenset, ({"social", "diasafety", "requests"}, {"cyber", "requests"}, {"cyber", "social"}))
)

# Clauses about harm in general, under which any two replies can be compared.
GENERAL_DOMAINS = ("social", "diasafety", "requests")

# Clauses about form ("must not apologise"): any text may violate them.
CONDUCT_DOMAINS = frozenset({"rbr"})

# Rules on who may say what, written for one text each.
SPECIFIC_DOMAINS = frozenset({"rbr", "exchanges"})

# A clause counts as being about something else when its text is at most this similar: the cosine of vectors from which
# their mean is taken, because what all clauses share tells none apart. As a model is trained its vectors come to share
# more; with plain cosines one that had been trained before found 14 % of the rules for single texts unrelated where its
# backbone found 62 %, and hardly met a rule that has nothing to do with the text. Rules for single texts are about
# everything, so towards every domain they are judged alike.
UNRELATED_ACROSS_DOMAINS = 0.4
UNRELATED_TO_EXCHANGES = 0.2
UNRELATED_WITHIN_DOMAIN = 0.0


class ClauseLibrary:
    """The distinct clauses of a training set, and which may be presumed kept where another is violated."""

    def __init__(self, rows: Sequence[LabelledRow], conduct_domains: frozenset[str] = CONDUCT_DOMAINS):
        """Collect clauses.

        Args:
            rows: labelled rows; a clause belongs to the domain where it comes first.
            conduct_domains: domains whose clauses are used with their own labels only.
        """
        owners: dict[Clause, str] = {}
        for row in rows:
            for clause in row.clauses:
                owners.setdefault(clause, row.domain)
        self.clauses = list(owners)
        self.domains = np.array(list(owners.values()))
        self.index = {clause: number for number, clause in enumerate(self.clauses)}
        self.is_presumable = ~np.isin(self.domains, list(conduct_domains))
        self.is_specific = np.isin(self.domains, list(SPECIFIC_DOMAINS))
        self.is_general = np.isin(self.domains, GENERAL_DOMAINS)
        self.is_unrelated = np.zeros((len(self.clauses), len(self.clauses)), dtype=bool)

    def relate(self, vectors_CE: NDArray[np.float32]) -> None:
        """Fill the table of unrelated clauses from vectors of the clauses' texts, (C, E)."""
        centred_CE = unit_vectors(vectors_CE - vectors_CE.mean(axis=0))
        self.relate_similar(centred_CE @ centred_CE.T)

    def relate_similar(self, similarity_CC: NDArray[np.float32]) -> None:
        """Fill the table of unrelated clauses from similarities of the clauses' texts, (C, C)."""
        same_domain = self.domains[:, None] == self.domains[None, :]
        related = np.zeros_like(same_domain)
        for pair in RELATED_DOMAINS:
            inside = np.isin(self.domains, list(pair))
            related = related | (inside[:, None] & inside[None, :] & ~same_domain)
        anything = self.domains == "exchanges"
        limit = np.where(same_domain, UNRELATED_WITHIN_DOMAIN, UNRELATED_ACROSS_DOMAINS)
        limit[anything[:, None] | anything[None, :]] = UNRELATED_TO_EXCHANGES
        categories = np.array([clause.category for clause in self.clauses])
        same_category = categories[:, None] == categories[None, :]
        unrelated = (similarity_CC < limit) & ~related & ~same_category & self.is_presumable[None, :]
        self.is_unrelated = np.asarray(unrelated, dtype=bool)

    def numbers(self, row: LabelledRow) -> NDArray[np.int64]:
        """Numbers of a row's own clauses."""
        return np.array([self.index[clause] for clause in row.clauses], dtype=np.int64)

    def presumed_kept(self, row: LabelledRow) -> NDArray[np.bool_]:
        """(C,) clauses that the row's message is presumed not to violate.

        They are unrelated to every clause that says what the message is about: those that it violates, that nobody is
        sure of, and those of its own domain. A clause of another domain that it keeps says nothing of the kind.
        """
        numbers, violated = self.numbers(row), np.array(row.violated, dtype=bool)
        telling = numbers[violated | (self.domains[numbers] == row.domain)]
        unsure = [self.index[clause] for clause in row.unsure if clause in self.index]
        unrelated = self.is_unrelated[np.array([*telling, *unsure], dtype=np.int64)].all(axis=0)
        return np.asarray(unrelated & self.is_presumable)


def unit_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1 along the last axis; zero vectors stay zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))
