"""Measures against scikit-learn and by hand; weights against rows repeated as often."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from csrm.evaluation.metrics import auroc, average_precision, brier, expected_calibration_error, f1, pairwise_accuracy

samples = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=80).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(samples)
def test_ranking_measures_equal_scikit_learn(rows):
    score, positive = np.array([s for s, _ in rows], float), np.array([p for _, p in rows])
    assert auroc(score, positive) == pytest.approx(peer.roc_auc_score(positive, score))
    assert average_precision(score, positive) == pytest.approx(peer.average_precision_score(positive, score))
    assert f1(score > 0, positive) == pytest.approx(peer.f1_score(positive, score > 0, zero_division=0))


MEASURES = {
    "auroc": lambda p, y, w=None: auroc(p, y, w),
    "average precision": lambda p, y, w=None: average_precision(p, y, w),
    "f1": lambda p, y, w=None: f1(p > 0.5, y, w),
    "brier": lambda p, y, w=None: brier(p, y, w),
    "pairwise accuracy": lambda p, y, w=None: pairwise_accuracy(p - 0.5, w),
}


@pytest.mark.parametrize("name", MEASURES)
@given(rows=samples, seed=st.integers(0, 99))
def test_a_weight_is_a_number_of_copies(name, rows, seed):
    measure = MEASURES[name]
    p, y = np.array([(s + 5) / 10 for s, _ in rows]), np.array([p for _, p in rows])
    weight = np.random.default_rng(seed).integers(0, 4, (3, len(rows))).astype(float)
    weight[:, 0] += 1  # never an empty resample
    expected = [measure(np.repeat(p, w.astype(int)), np.repeat(y, w.astype(int))) for w in weight]
    np.testing.assert_allclose(measure(p, y, weight), expected, atol=1e-12)


def test_equal_mass_bins_of_copies():
    """Rows of distinct probability and whole bins of copies: no row straddles two bins."""
    rng = np.random.default_rng(0)
    p, y = rng.random(60), rng.random(60) < 0.5
    weight = np.full((2, 60), 2.0)
    once = expected_calibration_error(p, y, num_bins=10)
    np.testing.assert_allclose(expected_calibration_error(p, y, weight, num_bins=10), [once, once])


def test_one_class_has_no_auroc():
    assert math.isnan(auroc(np.arange(3.0), np.ones(3, bool)))
    assert math.isnan(average_precision(np.arange(3.0), np.zeros(3, bool)))
    assert math.isnan(auroc(np.empty(0), np.empty(0, bool)))


def test_calibration_measures_by_hand():
    p, y = np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, True, True, True])
    assert brier(p, y) == pytest.approx((0.04 + 0.64 + 0.04 + 0.04) / 4)
    assert expected_calibration_error(p, y, num_bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)


def test_pairwise_accuracy_by_hand():
    assert pairwise_accuracy(np.array([2.0, -1.0, 0.0, 0.5])) == pytest.approx(2.5 / 4)
