"""Data-adaptive safety rules: choose the few rules that matter for a pair of responses, and label the pair with them.

The method is RuleAdapter / RAMO (arXiv 2501.15453). There a language model rates each response on each rule, one call
per rating. Here responses × rules is a compliance matrix, one pass, and this file is arithmetic on its cells: it knows
neither models nor texts. A rule is a configuration of one clause (`csrm.rules`).

Swapping the responses of a pair keeps its rules and turns its label round.

Shape letters: P pairs, K rules of the pool, k rules chosen of a pair, B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DISCREPANCY_WEIGHT",
    "NUM_RULES",
    "RuleLabels",
    "choose",
    "criterion",
    "label",
    "label_pairs",
    "mutual_information",
    "ratings",
    "relevance",
    "request_relevance",
]

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

NUM_RULES = 5
"""Rules chosen of a pair (arXiv 2501.15453)."""

DISCREPANCY_WEIGHT = 0.5
"""Weight of |discrepancy| beside relevance (arXiv 2501.15453)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLabels:
    """What rules say of pairs."""

    chosen_Pk: NDArray[np.int64]
    """Numbers of each pair's rules in the pool, the one that matters most first."""
    label_P: NDArray[np.int8]
    """+1: the first response is the safer one; −1: the second; 0: the rules do not tell."""
    margin_P: NDArray[np.float64]
    """Summed ratings of the first response less those of the second; its sign is the label."""


def ratings(p_safe: Floats) -> NDArray[np.float64]:
    """How well responses keep rules, in [−1, 1]: 2 p_safe − 1, same shape.

    The counterpart of P(Yes) − P(No) of a language model that is asked whether a response keeps a rule (arXiv
    2501.15453): with P(Yes) = p_safe and P(No) = 1 − p_safe it is the same number.
    """
    return 2 * np.asarray(p_safe, np.float64) - 1


def relevance(first_PK: Floats, second_PK: Floats) -> NDArray[np.float64]:
    """How much each rule has to do with a pair, in [0, 1], from ratings alone: (1 − min(r₁, r₂)) / 2.

    The probability of violation of the response that keeps the rule less well: a rule matters to a pair if one of its
    responses touches it. The source asks a language model instead.
    """
    return (1 - np.minimum(first_PK, second_PK, dtype=np.float64)) / 2


def request_relevance(reward_PK: Floats, neutral_K: Floats | float = 0.0) -> NDArray[np.float64]:
    """How much each rule has to do with what the user asks for: (s_k(neutral) − s_k(request)), standardised.

    How much surer than an innocuous request the user's own words break the rule, by the matrix's rows of
    `csrm.rules.request` and `csrm.rules.NEUTRAL`: a model has its own idea of every rule, whatever the text (contextual
    calibration, arXiv 2102.09690). Standardised over the pool: mean 0 and standard deviation 1 within each pair, for a
    relevance must differ between rules by as much as discrepancies do (up to 1 after their weight), or it has no say.
    Zero throughout where all rules are equally far from the request.

    Args:
        reward_PK: log-odds of compliance of the request under each rule.
        neutral_K: those of innocuous requests, their mean.
    """
    breaks_PK = np.subtract(neutral_K, reward_PK, dtype=np.float64)
    breaks_PK = breaks_PK - breaks_PK.mean(axis=1, keepdims=True)
    spread_P1 = np.sqrt((breaks_PK**2).mean(axis=1, keepdims=True))
    return np.asarray(np.divide(breaks_PK, spread_P1, out=np.zeros_like(breaks_PK), where=spread_P1 > 1e-9))


def criterion(
    relevance_PK: Floats, first_PK: Floats, second_PK: Floats, *, weight: float = DISCREPANCY_WEIGHT
) -> NDArray[np.float64]:
    """What rules are chosen by: relevance + weight · |r₁ − r₂| (arXiv 2501.15453), (P, K)."""
    discrepancy_PK = np.subtract(first_PK, second_PK, dtype=np.float64)
    return relevance_PK + weight * np.abs(discrepancy_PK)


def choose(criterion_PK: Floats, num_rules: int = NUM_RULES) -> NDArray[np.int64]:
    """The rules with the largest criterion, largest first, (P, k) numbers; of equal ones that with the lower number.

    Raises:
        ValueError: the pool does not hold so many rules, or a criterion is not a number.
    """
    if not 1 <= num_rules <= criterion_PK.shape[1]:
        raise ValueError(f"cannot choose {num_rules} of {criterion_PK.shape[1]} rules")
    if np.isnan(criterion_PK).any():
        raise ValueError("a criterion is not a number; leave out pairs with a response that has no scores")
    return np.argsort(-criterion_PK, axis=1, kind="stable")[:, :num_rules]


def label(
    first_PK: Floats, second_PK: Floats, chosen_Pk: Ints, *, min_margin: float = 0.0
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Which response of each pair is safer: sign Σ_chosen (r₁ − r₂), the unweighted vote of arXiv 2501.15453.

    Args:
        first_PK: ratings of the first responses.
        second_PK: ratings of the second responses.
        chosen_Pk: rules of each pair.
        min_margin: abstain where |margin| is smaller. A margin of 0 is never labelled.

    Returns:
        Labels (P,), +1 for the first, −1 for the second and 0 for neither, and margins (P,).

    Raises:
        ValueError: min_margin is negative.
    """
    if min_margin < 0:
        raise ValueError(f"min_margin must be at least 0, got {min_margin}")
    difference_PK = np.subtract(first_PK, second_PK, dtype=np.float64)
    margin_P = np.take_along_axis(difference_PK, chosen_Pk, axis=1).sum(axis=1)
    is_sure_P = np.abs(margin_P) >= min_margin
    return np.where(is_sure_P, np.sign(margin_P), 0).astype(np.int8), margin_P


def label_pairs(
    first_PK: Floats,
    second_PK: Floats,
    relevance_PK: Floats | None = None,
    *,
    num_rules: int = NUM_RULES,
    min_margin: float = 0.0,
) -> RuleLabels:
    """Choose the rules of each pair by relevance and discrepancy, and label it with them.

    Args:
        first_PK: ratings of the first responses.
        second_PK: ratings of the second responses.
        relevance_PK: of each rule to each pair, such as `request_relevance`; None takes `relevance`, which needs the
            ratings alone (`tests/benchmarks/README.md` compares them).
        num_rules: rules of a pair.
        min_margin: abstain where |margin| is smaller.
    """
    relevance_PK = relevance(first_PK, second_PK) if relevance_PK is None else relevance_PK
    chosen_Pk = choose(criterion(relevance_PK, first_PK, second_PK), num_rules)
    label_P, margin_P = label(first_PK, second_PK, chosen_Pk, min_margin=min_margin)
    return RuleLabels(chosen_Pk=chosen_Pk, label_P=label_P, margin_P=margin_P)


def mutual_information(labels_P: Ints, preferences_P: Ints, weight: Floats | None = None) -> NDArray[np.float64]:
    """Mutual information between labels and human preferences, in bits: c · (1 − h(a) − 1 / (2 n ln 2)).

    Which response of a pair stands first says nothing, so each pair counts in both orders: labels and preferences are
    then balanced, and their mutual information has this form, with coverage c (the share of pairs labelled), agreement
    a among these n pairs, and binary entropy h. The last term is the correction of Miller (1955) for the bias of an
    entropy estimated from n draws. So labels that know nothing come to about 0, and may come out below. This is the
    quantity that choosing rules by discrepancy is to make large, says the theorem of
    arXiv 2501.15453.

    Args:
        labels_P: +1, −1, or 0 for abstention.
        preferences_P: +1 or −1.
        weight: of the pairs, (P,) or (B, P), as a bootstrap draws them; None for all ones.

    Returns:
        A number, or B of them; 0 where no pair is labelled, NaN where there is none.
    """
    labels_P, preferences_P = np.asarray(labels_P), np.asarray(preferences_P)
    if not np.isin(preferences_P, (-1, 1)).all():
        raise ValueError("preferences are +1 or -1")
    weight = np.ones(len(labels_P)) if weight is None else weight
    num_labelled = weight @ (labels_P != 0).astype(float)
    num_agreeing = weight @ (labels_P == preferences_P).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        coverage = num_labelled / weight.sum(axis=-1)
        known = 1 - _binary_entropy(num_agreeing / num_labelled) - 1 / (2 * np.log(2) * num_labelled)
        return np.asarray(np.where(coverage == 0, 0.0, coverage * known))[()]


def _binary_entropy(share: Floats) -> Floats:
    """Bits of −s log s − (1 − s) log(1 − s); 0 where s is 0 or 1."""
    tiny = np.finfo(float).tiny
    return np.asarray(-share * np.log2(np.maximum(share, tiny)) - (1 - share) * np.log2(np.maximum(1 - share, tiny)))
