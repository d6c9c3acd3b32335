"""Measures against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from csrm.metrics import auroc, average_precision, brier, expected_calibration_error, f1

samples = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=80).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(samples)
def test_ranking_measures_equal_scikit_learn(rows):
    score, positive = np.array([s for s, _ in rows], float), np.array([p for _, p in rows])
    assert auroc(score, positive) == pytest.approx(peer.roc_auc_score(positive, score))
    assert average_precision(score, positive) == pytest.approx(peer.average_precision_score(positive, score))
    assert f1(score > 0, positive) == pytest.approx(peer.f1_score(positive, score > 0, zero_division=0))


def test_one_class_has_no_auroc():
    assert math.isnan(auroc(np.arange(3.0), np.ones(3, bool)))


def test_calibration_measures_by_hand():
    p, y = np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, True, True, True])
    assert brier(p, y) == pytest.approx((0.04 + 0.64 + 0.04 + 0.04) / 4)
    assert expected_calibration_error(p, y, num_bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
