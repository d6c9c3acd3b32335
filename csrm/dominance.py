"""Pairs of guidelines of which one is surely stricter: the statistical filter (arXiv 2605.30487, Algorithm 1, step 4).

The stricter of two guidelines should find unsafe whatever the lenient one does. A judge's verdicts give an estimate of
that dominance probability, Pr(unsafe under d_j | unsafe under d_i); a pair passes iff a one-sided confidence bound on
it exceeds 0.95. Knows verdicts only, not where they come from.

Shape letters: N conversations, G = K + 1 guidelines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from csrm.clopper_pearson import lower_bound
from csrm.ladders import Ladder

__all__ = [
    "ALPHA",
    "BOUND",
    "LadderReport",
    "PairStatistics",
    "StrictnessPair",
    "every_pair",
    "order_shares",
    "select_pairs",
    "share",
]

ALPHA = 0.05
"""One minus the confidence."""
BOUND = 0.95
"""What the dominance probability must exceed."""


@dataclass(frozen=True, slots=True)
class StrictnessPair:
    """Two guidelines of a ladder, by how many sub-categories they forbid."""

    ladder: Ladder
    strict: int
    lenient: int

    def __post_init__(self) -> None:
        if not 0 <= self.lenient < self.strict <= len(self.ladder.subcategories):
            raise ValueError(f"{self.ladder.category}: d_{self.strict} is not stricter than d_{self.lenient}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairStatistics:
    """What a judge says of a pair."""

    pair: StrictnessPair
    n: int
    """Conversations unsafe under the lenient guideline."""
    k: int
    """Those among them that are unsafe under the strict one too."""
    moved: int
    """Conversations unsafe under the strict guideline only: what there is to learn from the pair."""
    lower_bound: float
    """One-sided Clopper–Pearson bound on the dominance probability; 0 without conversations."""
    enough: bool
    """Whether n conversations could pass at all: n ≥ 59 at α = .05 and a bound of .95."""
    kept: bool

    @property
    def probability(self) -> float:
        """Dominance probability k / n; NaN where no conversation is unsafe under the lenient guideline."""
        return self.k / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderReport:
    """A ladder in the eyes of a judge. Shares are NaN without conversations."""

    ladder: Ladder
    num_conversations: int
    statistics: tuple[PairStatistics, ...]
    """Of all pairs, kept or not."""
    adjacent_share: float
    """Steps d_k to d_k+1 on which a conversation's reward does not rise; one half by chance."""
    monotone_share: float
    """Conversations whose reward rises on no step; 1 / (K + 1)! by chance."""
    moved_share: float
    """Conversations safe under d_0 and unsafe under d_K."""
    uncovered_share: float
    """Conversations that violate none of the sub-categories."""

    @property
    def num_tested(self) -> int:
        """Pairs with at least one conversation unsafe under the lenient guideline."""
        return sum(each.n > 0 for each in self.statistics)

    @property
    def num_enough(self) -> int:
        """Pairs with so many of them that the pair could pass."""
        return sum(each.enough for each in self.statistics)

    @property
    def kept(self) -> tuple[StrictnessPair, ...]:
        """Pairs that passed."""
        return tuple(each.pair for each in self.statistics if each.kept)

    def unfiltered(self) -> LadderReport:
        """The same with every pair kept: nested guidelines are stricter by construction, whatever a judge sees in them.

        For a first model, as long as no judge is good enough to call anything unsafe under a lenient guideline.
        """
        return replace(self, statistics=tuple(replace(each, kept=True) for each in self.statistics))


def every_pair(ladders: Iterable[Ladder]) -> tuple[StrictnessPair, ...]:
    """All pairs, unfiltered: stricter by construction, for a first model that no capable judge exists for."""
    return tuple(
        StrictnessPair(ladder, strict, lenient)
        for ladder in ladders
        for lenient, strict in combinations(range(len(ladder.subcategories) + 1), 2)
    )


def select_pairs(
    ladder: Ladder, verdicts_NG: NDArray[np.bool_], alpha: float = ALPHA, bound: float = BOUND
) -> list[PairStatistics]:
    """Test each pair (d_j stricter than d_i) for dominance (arXiv 2605.30487, Algorithm 1, step 4).

    Kept iff Beta⁻¹(α; k, n − k + 1) > bound. Each pair is tested by itself, as in the paper: of pairs with a
    dominance of just the bound, a share α passes.

    Args:
        ladder: K sub-categories.
        verdicts_NG: whether each of N violating conversations is unsafe under d_0 … d_K.
        alpha: one minus the confidence.
        bound: what the dominance probability must exceed.

    Returns:
        Statistics of all K·(K + 1)/2 pairs, by lenient and then strict guideline.
    """
    num_guidelines = len(ladder.subcategories) + 1
    if verdicts_NG.ndim != 2 or verdicts_NG.shape[1] != num_guidelines:
        raise ValueError(f"{ladder.category} has {num_guidelines} guidelines, verdicts have shape {verdicts_NG.shape}")
    statistics = []
    for pair in every_pair([ladder]):
        under_lenient, under_strict = verdicts_NG[:, pair.lenient], verdicts_NG[:, pair.strict]
        n, k = int(under_lenient.sum()), int((under_lenient & under_strict).sum())
        lowest = lower_bound(k, n, alpha)
        statistics.append(
            PairStatistics(
                pair=pair,
                n=n,
                k=k,
                moved=int((under_strict & ~under_lenient).sum()),
                lower_bound=lowest,
                enough=lower_bound(n, n, alpha) > bound,
                kept=lowest > bound,
            )
        )
    return statistics


def order_shares(rewards_NG: NDArray[np.floating]) -> tuple[float, float]:
    """How often the order holds: (share of steps, share of conversations) on which no reward rises with strictness."""
    falls = np.diff(rewards_NG, axis=1) <= 0
    return share(falls), share(np.asarray(falls.all(axis=1)))


def share(holds: NDArray[np.bool_]) -> float:
    """Share of true entries; NaN where there are none at all."""
    return float(holds.mean()) if holds.size else float("nan")
