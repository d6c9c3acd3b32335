"""Strictness augmentation: pairs of guidelines of which one is surely stricter (arXiv 2605.30487, Algorithm 1).

A ladder gives guidelines d_0 … d_K, each forbidding one sub-category more. Whether d_j is stricter than d_i in the eyes
of a judge is measured on conversations that violate the category: Pr(unsafe under d_j | unsafe under d_i) must exceed
a bound with confidence. Pairs that pass are used in training: the conversations are real, only guidelines are written.
The judge is any CSRM; all guidelines are one matrix, conversations × guidelines, in one pass.

Two warnings. A judge that calls everything unsafe passes every pair, hence `moved`, the share of conversations whose
verdict the ladder changes at all. And a judge that calls too few unsafe under d_i tells nothing: n ≥ 59 is the least
that can pass.

Shape letters: N conversations, C clauses, G = K + 1 guidelines, W wordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Clause, Configuration
from csrm.dominance import (
    ALPHA,
    BOUND,
    LadderReport,
    PairStatistics,
    StrictnessPair,
    every_pair,
    order_shares,
    select_pairs,
    share,
)
from csrm.ladders import Ladder, guideline, insert, load_ladders, prohibition
from csrm.strictness_pairs import SavedPairs, load_pairs, save_pairs

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = [
    "ALPHA",
    "BOUND",
    "Ladder",
    "LadderReport",
    "PairStatistics",
    "SavedPairs",
    "StrictnessPair",
    "SubcategoryProposer",
    "every_pair",
    "extend",
    "guideline",
    "judge",
    "load_ladders",
    "load_pairs",
    "order_shares",
    "report",
    "save_pairs",
    "select_pairs",
    "uncovered",
]

Floats: TypeAlias = NDArray[np.floating]
Bools: TypeAlias = NDArray[np.bool_]
SubcategoryProposer: TypeAlias = Callable[[Ladder, Sequence[Any]], Sequence[tuple[str, int]]]
"""From a ladder and the conversations it does not cover to sub-categories, each with how many are more severe."""

NUM_WORDINGS = 16
"""Wordings of each guideline that a judge's rewards are averaged over: with 4, what passes is a matter of the draw."""


def judge(
    model: CSRM,
    conversations: Sequence[Any],
    ladder: Ladder,
    rng: np.random.Generator,
    *,
    num_wordings: int = NUM_WORDINGS,
) -> Bools:
    """Whether each conversation is unsafe under d_0 … d_K, (N, G); see `report` for the rewards behind it."""
    rewards_NG = _rewards(model, conversations, partial(_guidelines, ladder), rng, num_wordings)
    return _unsafe(model, rewards_NG)


def uncovered(
    model: CSRM,
    conversations: Sequence[Any],
    ladder: Ladder,
    rng: np.random.Generator,
    *,
    num_wordings: int = NUM_WORDINGS,
) -> Bools:
    """Which violating conversations are unsafe under none of the sub-categories, each forbidden by itself, (N,)."""
    return ~_any(_covered(model, conversations, ladder, _named(ladder), rng, num_wordings), axis=1)


def extend(
    ladder: Ladder,
    model: CSRM,
    conversations: Sequence[Any],
    propose: SubcategoryProposer,
    rng: np.random.Generator,
    *,
    max_rounds: int = 3,
    num_wordings: int = NUM_WORDINGS,
) -> Ladder:
    """Add sub-categories for what the ladder does not cover (arXiv 2605.30487, Algorithm 1, step 1).

    A proposal is added if it covers a conversation that nothing covered. Stops when everything is covered, or when no
    proposal does that.

    Example:
        >>> ask = lambda ladder, left: endpoint_proposer.propose_subcategories(
        ...     ladder.category, left, ladder.subcategories)
        >>> extend(ladder, model, conversations, ask, rng)
    """
    left = list(compress(conversations, uncovered(model, conversations, ladder, rng, num_wordings=num_wordings)))
    for _ in range(max_rounds):
        proposals = list(propose(ladder, left)) if left else []
        if not proposals:
            break
        covered_NC = _covered(model, left, ladder, [phrase for phrase, _ in proposals], rng, num_wordings)
        useful = list(compress(proposals, _any(covered_NC, axis=0)))
        # From the mild end, so that the ranks of the others stay right.
        for phrase, rank in sorted(useful, key=itemgetter(1), reverse=True):
            ladder = insert(ladder, phrase, rank)
        left = list(compress(left, ~_any(covered_NC, axis=1)))
        if not useful:
            break
    return ladder


def report(
    model: CSRM,
    conversations: Sequence[Any],
    ladder: Ladder,
    rng: np.random.Generator,
    *,
    alpha: float = ALPHA,
    bound: float = BOUND,
    num_wordings: int = NUM_WORDINGS,
) -> LadderReport:
    """Which pairs pass, how often the order holds, and what is not covered, in one pass over the conversations.

    Args:
        model: the judge.
        conversations: N conversations that violate the ladder's category.
        ladder: its K sub-categories.
        rng: draws wordings.
        alpha: see `select_pairs`.
        bound: see `select_pairs`.
        num_wordings: W; rewards are means over W wordings of each guideline.
    """
    num_guidelines = len(ladder.subcategories) + 1

    def draw(seed: int) -> list[Clause]:
        return [*_guidelines(ladder, seed), *_prohibitions(ladder, _named(ladder), seed)]

    rewards_NC = _rewards(model, conversations, draw, rng, num_wordings)
    unsafe_NC = _unsafe(model, rewards_NC)
    verdicts_NG = unsafe_NC[:, :num_guidelines]
    adjacent_share, monotone_share = order_shares(rewards_NC[:, :num_guidelines])
    return LadderReport(
        ladder=ladder,
        num_conversations=len(conversations),
        statistics=tuple(select_pairs(ladder, verdicts_NG, alpha, bound)),
        adjacent_share=adjacent_share,
        monotone_share=monotone_share,
        moved_share=share(~verdicts_NG[:, 0] & verdicts_NG[:, -1]),
        uncovered_share=share(~_any(unsafe_NC[:, num_guidelines:], axis=1)),
    )


def _guidelines(ladder: Ladder, seed: int) -> list[Clause]:
    """d_0 … d_K in one style: each differs from the next in what is forbidden alone."""
    return [guideline(ladder, k, np.random.default_rng(seed)) for k in range(len(ladder.subcategories) + 1)]


def _named(ladder: Ladder) -> tuple[str, ...]:
    """All sub-categories."""
    return (*ladder.always_forbidden, *ladder.subcategories)


def _prohibitions(ladder: Ladder, subcategories: Sequence[str], seed: int) -> list[Clause]:
    return [prohibition(ladder, subcategory, np.random.default_rng(seed)) for subcategory in subcategories]


def _covered(
    model: CSRM,
    conversations: Sequence[Any],
    ladder: Ladder,
    subcategories: Sequence[str],
    rng: np.random.Generator,
    num_wordings: int,
) -> Bools:
    """Which conversations are unsafe where one sub-category is forbidden by itself, (N, C)."""
    draw = partial(_prohibitions, ladder, subcategories)
    return _unsafe(model, _rewards(model, conversations, draw, rng, num_wordings))


def _rewards(
    model: CSRM,
    conversations: Sequence[Any],
    draw: Callable[[int], list[Clause]],
    rng: np.random.Generator,
    num_wordings: int,
) -> Floats:
    """Rewards under configurations of one clause each, means over W wordings, (N, C)."""
    wordings = [draw(int(seed)) for seed in rng.integers(2**32, size=num_wordings)]
    if not conversations:
        return np.empty((0, len(wordings[0])), np.float32)
    clauses = [clause for wording in wordings for clause in wording]
    configurations = [Configuration(id=f"clause_{number}", clauses=(clause,)) for number, clause in enumerate(clauses)]
    reward = model.score(conversations, configurations).reward
    return np.asarray(reward.reshape(len(conversations), num_wordings, -1).mean(axis=1))


def _unsafe(model: CSRM, rewards: NDArray[Any]) -> Bools:
    return np.asarray(model.calibration.p_safe(rewards) < 0.5)


def _any(holds: Bools, axis: int) -> Bools:
    return np.asarray(holds.any(axis=axis))
