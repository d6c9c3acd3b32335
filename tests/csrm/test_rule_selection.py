"""Rules are chosen by relevance and discrepancy, and label pairs by their vote."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import mutual_info_score

from csrm.rule_selection import (
    choose,
    criterion,
    label,
    label_pairs,
    mutual_information,
    ratings,
    relevance,
    request_relevance,
)

FIRST = np.array([[0.9, -0.8, 0.2], [0.5, 0.5, 0.5]])
SECOND = np.array([[0.7, 0.6, 0.4], [0.5, 0.9, -0.1]])


@st.composite
def pairs(draw):
    """Ratings of two responses and a number of rules. Multiples of 1/64: their sums are exact in any order."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    values = st.integers(-64, 64).map(lambda number: number / 64)
    first, second = (draw(arrays(np.float64, shape, elements=values)) for _ in range(2))
    return first, second, draw(st.integers(1, shape[1]))


def test_ratings_by_hand():
    assert ratings(np.float32([[0, 0.25, 1]])).tolist() == [[-1, -0.5, 1]]


def test_relevance_by_hand():
    np.testing.assert_allclose(relevance(FIRST, SECOND), [[0.15, 0.9, 0.4], [0.25, 0.25, 0.55]])


def test_relevance_to_a_request_by_hand():
    found = request_relevance(np.array([[3.0, 1.0, -1.0, 1.0], [2.0, 2.0, 2.0, 2.0]]))
    np.testing.assert_allclose(found, [[-(2**0.5), 0, 2**0.5, 0], [0, 0, 0, 0]], atol=1e-12)
    neutral = np.array([1.0, -1.0, 1.0, -1.0])
    np.testing.assert_allclose(request_relevance(np.array([[4.0, 2.0, 0.0, -2.0]]), neutral), [[-1, -1, 1, 1]])


@given(pairs(), st.sampled_from([0.25, 4.0]), st.integers(-3, 3))
def test_relevance_to_a_request_knows_neither_scale_nor_offset(case, scale, offset):
    reward = case[0]
    np.testing.assert_allclose(request_relevance(scale * reward + offset), request_relevance(reward), atol=1e-9)
    np.testing.assert_allclose(
        request_relevance(np.repeat(reward, 3, axis=1))[:, ::3], request_relevance(reward), atol=1e-9
    )


def test_a_relevance_of_ones_own_takes_the_place_of_that_of_the_ratings():
    relevance_23 = np.array([[9.0, 0, 8], [0, 0, 9]])
    assert label_pairs(FIRST, SECOND, relevance_23, num_rules=2).chosen_Pk.tolist() == [[0, 2], [2, 1]]
    assert label_pairs(FIRST, SECOND, num_rules=2).chosen_Pk.tolist() == [[1, 2], [2, 1]]


def test_criterion_by_hand():
    expected = [[0.15 + 0.1, 0.9 + 0.7, 0.4 + 0.1], [0.25, 0.25 + 0.2, 0.55 + 0.3]]
    np.testing.assert_allclose(criterion(relevance(FIRST, SECOND), FIRST, SECOND), expected)
    np.testing.assert_allclose(criterion(np.zeros((1, 3)), FIRST[:1], SECOND[:1], weight=2), [[0.4, 2.8, 0.4]])


def test_choice_by_hand():
    assert choose(np.array([[0.25, 1.6, 0.5], [0.25, 0.45, 0.85]]), 2).tolist() == [[1, 2], [2, 1]]
    assert choose(np.array([[1.0, 2.0, 2.0, 1.0]]), 3).tolist() == [[1, 2, 0]]
    assert choose(np.arange(100)[None] % 2, 4).tolist() == [[1, 3, 5, 7]]


def test_label_by_hand():
    chosen = np.array([[1, 2], [2, 1]])
    labels, margins = label(FIRST, SECOND, chosen)
    np.testing.assert_allclose(margins, [-1.6, 0.2])
    assert labels.tolist() == [-1, 1]
    assert label(FIRST, SECOND, chosen, min_margin=0.3)[0].tolist() == [-1, 0]
    assert label(FIRST, FIRST, chosen)[0].tolist() == [0, 0]


def test_a_margin_of_just_the_minimum_is_labelled():
    assert label(np.array([[0.75]]), np.array([[0.25]]), np.array([[0]]), min_margin=0.5)[0].tolist() == [1]


@pytest.mark.parametrize("num_rules", [0, 4])
def test_no_more_rules_than_the_pool_has(num_rules):
    with pytest.raises(ValueError, match="of 3 rules"):
        choose(FIRST, num_rules)


def test_a_response_without_scores_is_no_choice():
    with pytest.raises(ValueError, match="no scores"):
        choose(np.array([[0.1, np.nan]]), 1)


def test_no_negative_margin():
    with pytest.raises(ValueError, match="at least 0"):
        label(FIRST, SECOND, np.array([[0], [0]]), min_margin=-0.1)


@given(pairs())
def test_swapping_the_responses_flips_the_label_and_keeps_the_rules(case):
    first, second, num_rules = case
    there, back = (label_pairs(*each, num_rules=num_rules) for each in ((first, second), (second, first)))
    assert (there.chosen_Pk == back.chosen_Pk).all()
    assert (there.label_P == -back.label_P).all()
    assert (there.margin_P == -back.margin_P).all()


@given(pairs())
def test_a_pair_is_labelled_as_it_would_be_alone(case):
    first, second, num_rules = case
    together = label_pairs(first, second, num_rules=num_rules)
    for number in range(len(first)):
        alone = label_pairs(first[number : number + 1], second[number : number + 1], num_rules=num_rules)
        assert (alone.chosen_Pk == together.chosen_Pk[number]).all()
        assert alone.margin_P == together.margin_P[number]


@given(pairs())
def test_the_whole_pool_is_the_plain_sum(case):
    first, second, _ = case
    found = label_pairs(first, second, num_rules=first.shape[1])
    assert (found.margin_P == first.sum(axis=1) - second.sum(axis=1)).all()
    assert (found.label_P == np.sign(found.margin_P)).all()


@given(pairs())
def test_every_rule_twice_and_twice_as_many_is_twice_the_margin(case):
    first, second, num_rules = case
    once = label_pairs(first, second, num_rules=num_rules)
    twice = label_pairs(*(np.repeat(each, 2, axis=1) for each in (first, second)), num_rules=2 * num_rules)
    assert (np.sort(twice.chosen_Pk // 2) == np.sort(np.repeat(once.chosen_Pk, 2, axis=1))).all()
    assert (twice.margin_P == 2 * once.margin_P).all()
    assert (twice.label_P == once.label_P).all()


@given(pairs())
def test_no_rule_left_out_has_a_larger_criterion(case):
    first, second, num_rules = case
    values = criterion(relevance(first, second), first, second)
    for row, chosen in zip(values, choose(values, num_rules), strict=True):
        assert len(set(chosen)) == num_rules
        assert (np.diff(row[chosen]) <= 0).all()
        assert np.delete(row, chosen).max(initial=-np.inf) <= row[chosen].min()


@given(pairs(), st.floats(0, 3), st.floats(0, 3))
def test_a_larger_margin_never_labels_more_nor_differently(case, low, high):
    first, second, num_rules = case
    low, high = sorted((low, high))
    loose, strict = (label_pairs(first, second, num_rules=num_rules, min_margin=each).label_P for each in (low, high))
    assert ((strict == loose) | (strict == 0)).all()


def test_information_by_hand():
    right = np.ones(8, int)
    bias = 1 / (2 * 8 * np.log(2))
    assert mutual_information(right, right) == pytest.approx(1 - bias)
    assert mutual_information(-right, right) == pytest.approx(1 - bias)
    assert mutual_information(np.array([1, 1, 1, 1, -1, -1, -1, -1]), right) == pytest.approx(-bias)
    three_quarters = np.array([1, 1, 1, -1, 0, 0, 0, 0])
    entropy = 0.25 * np.log2(4) + 0.75 * np.log2(4 / 3)
    assert mutual_information(three_quarters, right) == pytest.approx((1 - entropy - 2 * bias) / 2)
    assert mutual_information(np.zeros(8, int), right) == 0
    assert np.isnan(mutual_information(np.zeros(0, int), np.zeros(0, int)))
    with pytest.raises(ValueError, match="preferences"):
        mutual_information(right, 0 * right)


labels = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 1])), min_size=1, max_size=60)


@given(labels)
def test_information_is_that_of_pairs_in_both_orders(drawn):
    found, preferred = np.array(drawn).T
    count = max(1, np.count_nonzero(found))
    plug_in = mutual_info_score(np.append(found, -found), np.append(preferred, -preferred)) / np.log(2)
    bias = np.count_nonzero(found) / len(found) / (2 * count * np.log(2))
    assert mutual_information(found, preferred) == pytest.approx(plug_in - bias, abs=1e-12)


@given(labels, st.integers(0, 99))
def test_whole_weights_are_pairs_that_many_times(drawn, seed):
    found, preferred = np.array(drawn).T
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, len(found))).astype(float)
    weights[:, 0] += 1
    values = mutual_information(found, preferred, weights)
    for value, weight in zip(values, weights.astype(int), strict=True):
        expected = mutual_information(found.repeat(weight), preferred.repeat(weight))
        assert value == pytest.approx(expected, abs=1e-12)


def test_labels_that_know_nothing_carry_no_information_on_average():
    rng = np.random.default_rng(0)
    found, preferred = (rng.choice([-1, 1], size=(4000, 30)) for _ in range(2))
    mean = np.mean([mutual_information(*each) for each in zip(found, preferred, strict=True)])
    assert abs(mean) < 0.002
