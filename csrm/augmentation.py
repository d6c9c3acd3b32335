"""Configurations built around labelled clauses: what makes a model obey its configuration instead of guessing.

A labelled row says that a message violates (or keeps) a clause. Around it grow *counterfactual* configurations:
its own clauses in, or out; other clauses, presumed not violated, beside them; the same clauses in other words; twins
that allow what a clause forbids. The label follows from the set: a configuration is violated iff a violated clause is
in it (arXiv 2605.30487, section on augmentation) and its twin is not. Without them a model can reach .95 AUC on these
rows and never read the configuration.

Two kinds of cells carry no label and are only ranked: a row under a strict and a lenient wording of one clause
(strictness pairs), and two replies to one history under the same configuration (preference pairs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csrm.batch import Batch
from csrm.clause_library import ClauseLibrary
from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.labelled import LabelledRow, PreferenceRow
from csrm.phrasing.permissions import permission
from csrm.phrasing.wording import mixed, restyle
from csrm.strictness import StrictnessPair, guideline

__all__ = ["Recipe", "sample_batch"]

VIOLATED_TWIN_SHARE = 0.7
"""Of the rows that violate a clause and get a twin: how many get that of a violated clause."""

WRITTEN_SHARE = 0.7
"""How often a permission that was written for a row is taken, where one could be generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is drawn around the rows of a batch."""

    num_configurations: int = 8
    """K, cells per row."""
    max_clauses: int = 16
    """The most clauses in one configuration; sizes are drawn evenly on a logarithmic scale."""
    num_extra_clauses: int = 24
    """Clauses drawn from the library beside the rows' own, to stand in configurations as presumed kept."""
    num_permissions: int = 16
    """How many of the rows' own clauses, at most, get a twin that allows what they forbid."""
    overridden_share: float = 0.25
    """Share of the configurations with a violated clause that hold its twin too, where there is one: these comply."""
    restyled_share: float = 0.5
    """Share of the clauses that are put in other words."""
    mixed_share: float = 0.1
    """Share of the clauses that also allow something else."""
    num_strictness: int = 8
    """The most rows that are also ranked under a strict and a lenient guideline."""

    def __post_init__(self) -> None:
        if min(self.num_configurations, self.max_clauses) < 1:
            raise ValueError(f"num_configurations and max_clauses must be at least 1, got {self}")
        if self.num_strictness and self.num_configurations < 3:
            raise ValueError(f"strictness pairs take two of the configurations: num_configurations >= 3, got {self}")
        if not 0 <= self.restyled_share + self.mixed_share <= 1 or not 0 <= self.overridden_share <= 1:
            raise ValueError(f"restyled_share, mixed_share and overridden_share must be shares, got {self}")


def sample_batch(
    rows: Sequence[LabelledRow],
    library: ClauseLibrary,
    rng: np.random.Generator,
    recipe: Recipe = Recipe(),
    *,
    preferences: Sequence[PreferenceRow] = (),
    strictness: Sequence[StrictnessPair] = (),
) -> Batch:
    """Draw configurations around each row.

    Clauses come from the rows' own and a few extra ones, so that one encoding of each serves the whole batch.
    Half of a row's configurations hold a clause that it violates, if it violates any; in some of them that clause is
    allowed again.

    Args:
        rows: labelled rows of the library.
        library: clauses, with `relate` done.
        rng: source of randomness; the batch is a function of its state.
        recipe: what to draw.
        preferences: pairs of replies to rank beside the rows.
        strictness: pairs of guidelines to rank matching rows under.
    """
    drawn = _Drawing(library, rng, recipe, rows)
    choices = [drawn.choice(row) for row in rows]
    cells = [[choice.draw(rng, drawn.size(), k) for k in range(recipe.num_configurations)] for choice in choices]
    complies = [[choice.complies(members) for members in own] for choice, own in zip(choices, cells, strict=True)]
    strictness_P2 = drawn.strictness_cells(rows, choices, cells, strictness)
    replies, shared = drawn.preference_cells(preferences)
    index = drawn.index([*cells, *shared])
    complies_RK, unknown_RK = np.zeros((2, *index.shape[:2]), dtype=bool)
    complies_RK[: len(rows)] = complies
    unknown_RK[len(rows) :] = True
    unknown_RK.reshape(-1)[strictness_P2.ravel()] = True
    says_RC2 = np.full((len(index), len(drawn.clauses), 2), -1, dtype=np.int8)
    for r, choice in enumerate(choices):
        says_RC2[r] = choice.says(len(drawn.clauses))
    says_RC2[:, drawn.mixed, 1] = -1
    first = np.arange(len(rows), len(index), 2)[:, None] * recipe.num_configurations
    chosen = (first + np.arange(recipe.num_configurations)).ravel()
    return Batch(
        rows=[*rows, *replies],
        clauses=drawn.clauses,
        index_RKM=index,
        complies_RK=complies_RK,
        unknown_RK=unknown_RK,
        strictness_P2=strictness_P2,
        preference_P2=np.stack([chosen, chosen + recipe.num_configurations], axis=1),
        says_RC2=says_RC2,
        meant_CC=drawn.meant(),
    )


class _Drawing:
    """The clauses of one batch and the dice that are cast over them. Places are numbers within the batch."""

    def __init__(
        self, library: ClauseLibrary, rng: np.random.Generator, recipe: Recipe, rows: Sequence[LabelledRow]
    ) -> None:
        self.library, self.rng, self.recipe = library, rng, recipe
        own = sorted({library.index[clause] for row in rows for clause in row.clauses})
        # "No hate speech." for a narrow rule would be wrong where a row keeps the rule and yet is hateful; and a rule
        # written for one text says more than its heading.
        self.narrow = {number for number in own if library.is_specific[number]} | {
            library.index[clause]
            for row in rows
            for clause, violated in zip(row.clauses, row.violated, strict=True)
            if not violated
        }
        extra = rng.choice(np.flatnonzero(library.is_presumable), size=recipe.num_extra_clauses)
        self.pool = np.array(sorted({*own, *extra.tolist()}))
        self.place = {number: place for place, number in enumerate(self.pool.tolist())}
        self.mixed: list[int] = []
        self.clauses = [self._in_some_words(int(number)) for number in self.pool]
        self.twin = {number: self.add(permission(library.clauses[number], rng)) for number in self._allowed(rows)}
        self.near_miss: dict[int, int] = {}
        if recipe.num_permissions:
            self._add_written_permissions(rows)

    def _allowed(self, rows: Sequence[LabelledRow]) -> list[int]:
        """One clause of each of some rows: mostly a violated one, where a permission matters most.

        The twin of a clause that the same row keeps is the hard case: a permission that comes close and is not meant.
        """
        chosen: dict[int, None] = {}
        for r in self.rng.permutation(len(rows))[: self.recipe.num_permissions].tolist():
            numbers, violated = self.library.numbers(rows[r]), np.array(rows[r].violated, dtype=bool)
            if len(numbers):
                matters = violated if violated.any() and self.rng.random() < VIOLATED_TWIN_SHARE else ~violated
                chosen[int(self.rng.choice(numbers[matters] if matters.any() else numbers))] = None
        return list(chosen)

    def meant(self) -> NDArray[np.int8]:
        """Whether a permission is meant for a clause, (C, C) as [p, c]: for its own, for none that is unrelated."""
        meant_CC = np.full((len(self.clauses), len(self.clauses)), -1, dtype=np.int8)
        for permissions, is_meant in ((self.twin, 1), (self.near_miss, 0)):
            for number, place in permissions.items():
                meant_CC[place, np.flatnonzero(self.library.is_unrelated[number][self.pool])] = 0
                meant_CC[place, self.place[number]] = is_meant
        return meant_CC

    def _add_written_permissions(self, rows: Sequence[LabelledRow]) -> None:
        """Permissions that were written for a row take the place of generated ones, more often than not."""
        for row in rows:
            if row.lifted_by is not None and self.rng.random() < WRITTEN_SHARE:
                self.twin[self.library.index[row.clauses[0]]] = self.add(row.lifted_by)
            if row.near_miss is not None:
                self.near_miss[self.library.index[row.clauses[0]]] = self.add(row.near_miss)

    def add(self, clause: Clause) -> int:
        """Append a clause; returns its place."""
        self.clauses.append(clause)
        return len(self.clauses) - 1

    def _in_some_words(self, number: int) -> Clause:
        clause, dice = self.library.clauses[number], self.rng.random()
        if dice < self.recipe.restyled_share:
            return restyle(clause, self.rng, terse=number not in self.narrow)
        if dice < self.recipe.restyled_share + self.recipe.mixed_share:
            unrelated = np.flatnonzero(self.library.is_unrelated[number])
            if len(unrelated):
                self.mixed.append(self.place[number])
                return mixed(clause, self.library.clauses[int(self.rng.choice(unrelated))], self.rng)
        return clause

    def strictness_cells(
        self,
        rows: Sequence[LabelledRow],
        choices: Sequence[_Choice],
        cells: list[list[NDArray[np.int64]]],
        pairs: Sequence[StrictnessPair],
    ) -> NDArray[np.int64]:
        """Put a lenient and a strict guideline into the last two cells of some violating rows.

        Returns:
            (lenient, strict) cell numbers, (P, 2).
        """
        found: list[tuple[int, int]] = []
        for r in self.rng.permutation(len(rows)).tolist() if pairs else []:
            fitting = _fitting(rows[r], pairs)
            if not fitting or len(found) == self.recipe.num_strictness:
                continue
            pair = one_of(fitting, self.rng)
            other = choices[r].other
            beside = self.rng.choice(other, size=min(len(other), self.size() - 1), replace=False)
            for place, num_forbidden in ((-2, pair.lenient), (-1, pair.strict)):
                cells[r][place] = np.append(beside, self.add(guideline(pair.ladder, num_forbidden, self.rng)))
            last = (r + 1) * self.recipe.num_configurations
            found.append((last - 2, last - 1))
        return np.array(found, np.int64).reshape(-1, 2)

    def preference_cells(
        self, preferences: Sequence[PreferenceRow]
    ) -> tuple[list[LabelledRow], list[list[NDArray[np.int64]]]]:
        """Rows of replies, chosen and rejected in turn, and the broad configurations that each two share."""
        general = np.flatnonzero(self.library.is_general[self.pool])
        general = general if len(general) else np.arange(len(self.pool))
        size = min(len(general), self.recipe.max_clauses)
        rows: list[LabelledRow] = []
        cells: list[list[NDArray[np.int64]]] = []
        for preference in preferences:
            shared = [
                self.rng.choice(general, size=int(self.rng.integers(max(1, size // 2), size + 1)), replace=False)
                for _ in range(self.recipe.num_configurations)
            ]
            for reply in preference.replies():
                rows.append(LabelledRow(id=preference.id, domain="", conversation=reply, clauses=(), violated=()))
                cells.append(shared)
        return rows, cells

    def index(self, cells: Sequence[Sequence[NDArray[np.int64]]]) -> NDArray[np.int64]:
        """(R, K, M) clause places, padded with the number of clauses."""
        longest = max(len(members) for own in cells for members in own)
        index = np.full((len(cells), self.recipe.num_configurations, longest), len(self.clauses))
        for r, own in enumerate(cells):
            for k, members in enumerate(own):
                index[r, k, : len(members)] = members
        return index

    def size(self) -> int:
        """Clauses of one configuration."""
        return int(math.exp(self.rng.uniform(0, math.log(self.recipe.max_clauses + 1))))

    def choice(self, row: LabelledRow) -> _Choice:
        """What the configurations of a row are drawn from."""
        numbers = self.library.numbers(row).tolist()
        known = np.array([self.place[number] for number in numbers], dtype=np.int64)
        violated = np.array(row.violated, dtype=bool)
        kept = self.library.presumed_kept(row)
        bad = {number for number, broken in zip(numbers, row.violated, strict=True) if broken}
        good = {*numbers} - bad
        broken_categories = {self.library.clauses[number].category for number in bad}
        return _Choice(
            bad=known[violated],
            good=known[~violated],
            allowed=np.array([self.twin[number] for number in numbers if number in self.twin], dtype=np.int64),
            other=np.flatnonzero(kept[self.pool]),
            beside=np.array(
                [
                    twin
                    for number, twin in self.twin.items()
                    if (kept[number] or number in good)
                    # A permission may speak of its whole category.
                    and self.library.clauses[number].category not in broken_categories
                ]
                + [miss for number, miss in self.near_miss.items() if kept[number] or number in bad],
                dtype=np.int64,
            ),
            twin={self.place[number]: self.twin[number] for number in bad if number in self.twin},
            near_miss={self.place[number]: self.near_miss[number] for number in bad if number in self.near_miss},
            overridden_share=self.recipe.overridden_share,
        )


def _fitting(row: LabelledRow, pairs: Sequence[StrictnessPair]) -> list[StrictnessPair]:
    """Pairs about something that the row violates."""
    broken = [clause.category for clause, violated in zip(row.clauses, row.violated, strict=True) if violated]
    return [pair for pair in pairs if any(pair.ladder.matches(category) for category in broken)]


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
    beside: NDArray[np.int64]
    """Twins that allow something else: what kept clauses forbid, own or not."""
    twin: dict[int, int]
    """The twin of each violated clause that has one."""
    near_miss: dict[int, int]
    """A permission that comes close to a violated clause and does not lift it."""
    overridden_share: float

    def draw(self, rng: np.random.Generator, size: int, k: int) -> NDArray[np.int64]:
        """The k-th configuration, of at most `size` clauses; every even one holds a violated clause if there is one.

        A violated clause may be followed by its twin or by a near miss, so that even the smallest has two.
        """
        core = self._core(rng, with_bad=k % 2 == 0)
        num_core = min(len(core), size) if core is self.good else 1
        members = rng.choice(core, size=num_core, replace=False)
        permissions = np.array([*self._permissions(members.tolist(), rng)], dtype=np.int64)
        members = np.concatenate([members, permissions])
        rest = np.setdiff1d(np.concatenate([self.good, self.other, self.beside]), members)
        filling = rng.choice(rest, size=min(max(0, size - len(members)), len(rest)), replace=False)
        return np.concatenate([members, filling])

    def _permissions(self, members: list[int], rng: np.random.Generator) -> Iterator[int]:
        """What follows the violated clauses among the members."""
        for place in members:
            if place in self.twin and rng.random() < self.overridden_share:
                yield self.twin[place]
            elif place in self.near_miss and rng.random() < self.overridden_share:
                yield self.near_miss[place]

    def complies(self, members: NDArray[np.int64]) -> bool:
        """Whether no violated clause is among the members without its twin."""
        held = {*members.tolist()}
        return not any(place in held and self.twin.get(place) not in held for place in self.bad.tolist())

    def says(self, num_clauses: int) -> NDArray[np.int8]:
        """Whether each clause objects to the row and whether it permits what the row does, (C, 2): 1, 0, −1 unknown."""
        says_C2 = np.full((num_clauses, 2), -1, dtype=np.int8)
        says_C2[np.concatenate([self.good, self.other, self.beside])] = (0, 0)
        says_C2[self.bad] = (1, 0)
        says_C2[list(self.twin.values())] = (0, 1)
        return says_C2

    def _core(self, rng: np.random.Generator, *, with_bad: bool) -> NDArray[np.int64]:
        own = self.bad if len(self.bad) else self.good
        if with_bad and len(own):
            return own
        options = [part for part in (self.good, self.allowed, self.other) if len(part)]
        return one_of(options, rng) if options else own
