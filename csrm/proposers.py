"""Who names the clauses that turn a configuration round: p⁺ and p⁻ (arXiv 2605.30487, category augmentation).

For a conversation under a configuration a proposer names a category outside it that would make the conversation
unsafe (p⁺) and one that is on topic but would leave it safe (p⁻). Configurations built from them keep the label
rule: unsafe iff a violated clause is in it. `LibraryProposer` draws from clauses that are known, offline;
`csrm.endpoint.EndpointProposer` asks a language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from csrm.clause_library import ClauseLibrary, unit_vectors
from csrm.configurations import Clause
from csrm.labelled import LabelledRow

__all__ = ["LibraryProposer", "Proposal", "Proposer", "counterfactual", "says_the_same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Two clauses that are not in the configuration; either may be missing."""

    violated: Clause | None = None
    """p⁺: the conversation's last message violates it."""
    kept: Clause | None = None
    """p⁻: on topic, but not violated."""


class Proposer(Protocol):
    """Names p⁺ and p⁻ for conversations."""

    def propose(self, row: LabelledRow, clauses: Sequence[Clause], rng: np.random.Generator) -> Proposal:
        """Name p⁺ and p⁻ for one row under a configuration of these clauses."""
        ...

    def propose_all(
        self, rows: Sequence[LabelledRow], configurations: Sequence[Sequence[Clause]], rng: np.random.Generator
    ) -> list[Proposal]:
        """Name p⁺ and p⁻ for every row under its own configuration, in the rows' order."""
        ...


class LibraryProposer:
    """Draws p⁺ from the row's own violated clauses and p⁻ from those known or presumed kept, nearest first.

    A clause is drawn with probability ∝ exp(cosine(clause, conversation) / temperature).
    """

    def __init__(
        self,
        library: ClauseLibrary,
        clause_vectors_CD: NDArray[np.float32],
        row_vectors: Mapping[str, NDArray[np.float32]],
        *,
        temperature: float = 0.1,
        overlap: float = 0.9,
    ) -> None:
        """Take vectors that somebody else made, for instance the pooled ones of a sentence encoder.

        Args:
            library: clauses and which are unrelated, with `relate` done.
            clause_vectors_CD: one vector per clause of the library, (C, D), of any length.
            row_vectors: one vector (D,) per row id.
            temperature: 0 takes the nearest clause every time, large values draw evenly.
            overlap: a clause at least this similar (cosine) to one that the row violates is never p⁻.

        Raises:
            ValueError: shapes do not fit, or the temperature is negative.
        """
        if len(clause_vectors_CD) != len(library.clauses):
            raise ValueError(f"{len(clause_vectors_CD)} vectors for {len(library.clauses)} clauses; give one each")
        if not temperature >= 0:
            raise ValueError(f"temperature {temperature} must be 0 or more")
        self.library = library
        self.vectors_CD = unit_vectors(clause_vectors_CD)
        self.row_vectors = row_vectors
        self.temperature = temperature
        self.overlap = overlap

    def propose(self, row: LabelledRow, clauses: Sequence[Clause], rng: np.random.Generator) -> Proposal:
        """Name p⁺ and p⁻ for one row of the library under a configuration of these clauses."""
        present = np.zeros(len(self.library.clauses), dtype=bool)
        present[[self.library.index[clause] for clause in clauses if clause in self.library.index]] = True
        for clause in clauses:
            if clause not in self.library.index:
                present |= np.array([says_the_same(clause, known) for known in self.library.clauses])
        closeness_C = self.vectors_CD @ unit_vectors(self.row_vectors[row.id])
        violated = self._draw(self.violated(row) & ~present, closeness_C, rng)
        kept = self._draw(self.kept(row) & ~present, closeness_C, rng)
        return Proposal(violated=violated, kept=kept)

    def propose_all(
        self, rows: Sequence[LabelledRow], configurations: Sequence[Sequence[Clause]], rng: np.random.Generator
    ) -> list[Proposal]:
        """Name p⁺ and p⁻ for every row under its own configuration, in the rows' order."""
        return [self.propose(row, clauses, rng) for row, clauses in zip(rows, configurations, strict=True)]

    def violated(self, row: LabelledRow) -> NDArray[np.bool_]:
        """(C,) clauses that the row is known to violate."""
        return self._own(row, True)

    def kept(self, row: LabelledRow) -> NDArray[np.bool_]:
        """(C,) clauses that the row is known or presumed to keep and that overlap none that it violates."""
        known = self._own(row, False)
        presumed = self.library.presumed_kept(row) if row.clauses else np.zeros_like(known)
        violated = self.violated(row)
        return np.asarray((known | presumed) & ~self._overlapping(violated))

    def _own(self, row: LabelledRow, label: bool) -> NDArray[np.bool_]:
        own = np.zeros(len(self.library.clauses), dtype=bool)
        pairs = zip(row.clauses, row.violated, strict=True)
        own[[self.library.index[clause] for clause, violated in pairs if violated == label]] = True
        return own

    def _overlapping(self, violated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(C,) clauses that say the same as a violated one, or nearly; the violated ones among them."""
        if not violated.any():
            return violated
        bad = np.flatnonzero(violated)
        near = (self.vectors_CD @ self.vectors_CD[bad].T).max(axis=1) >= self.overlap
        texts = {_text(self.library.clauses[number]) for number in bad}
        return np.asarray(violated | near | np.array([_text(clause) in texts for clause in self.library.clauses]))

    def _draw(
        self, candidates: NDArray[np.bool_], closeness_C: NDArray[np.float32], rng: np.random.Generator
    ) -> Clause | None:
        numbers = np.flatnonzero(candidates)
        if not len(numbers):
            return None
        closeness = closeness_C[numbers].astype(np.float64)
        if self.temperature == 0:
            return self.library.clauses[int(numbers[closeness.argmax()])]
        weights = np.exp((closeness - closeness.max()) / self.temperature)
        return self.library.clauses[int(rng.choice(numbers, p=weights / weights.sum()))]


def counterfactual(
    row: LabelledRow, clauses: Sequence[Clause], proposal: Proposal, rng: np.random.Generator
) -> tuple[list[Clause], bool]:
    """Another configuration around a row: clauses dropped at random, p⁺ and p⁻ put in at random, in random order.

    The label is that of arXiv 2605.30487: unsafe iff (violated ∪ {p⁺}) ∩ p′ is not empty. Clauses are told by
    equality, so put them in other words only afterwards.

    Args:
        row: the row; of `clauses`, it violates those that it is labelled to violate and no others.
        clauses: the configuration to start from.
        proposal: p⁺ and p⁻ for it.
        rng: source of randomness.

    Returns:
        (p′, whether the row complies with it). p′ is empty only where there is nothing to choose from.
    """
    choice = [*clauses, *(clause for clause in (proposal.violated, proposal.kept) if clause)]
    is_in = rng.random(len(choice)) < 1 / 2
    if choice and not is_in.any():
        is_in[rng.integers(len(choice))] = True
    members = [choice[number] for number in rng.permutation(np.flatnonzero(is_in))]
    bad = {clause for clause, violated in zip(row.clauses, row.violated, strict=True) if violated}
    return members, bad.union([proposal.violated]).isdisjoint(members)


def says_the_same(one: Clause, other: Clause) -> bool:
    """Whether two clauses have the same guideline, case, spacing and punctuation aside."""
    return _text(one) == _text(other)


def _text(clause: Clause) -> str:
    return " ".join("".join(sign if sign.isalnum() else " " for sign in clause.guideline.casefold()).split())
