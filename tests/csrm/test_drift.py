"""The population stability index, against its formula and against chance."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from csrm.drift import stability_by_chance, stability_index


def histogram(values, num_bins=1000):
    return np.bincount(np.minimum((np.asarray(values) * num_bins).astype(int), num_bins - 1), minlength=num_bins)


def test_index_by_hand():
    """Twenty values to a decile; the rows of the last have moved to the first."""
    values = np.arange(200) / 200
    baseline = histogram(values)
    counts = histogram(np.where(values >= 0.9, values - 0.9, values))
    p = [(count + 0.5) / 205 for count in (40, 20, 20, 20, 20, 20, 20, 20, 20, 0)]
    q = [20.5 / 205] * 10
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert stability_index(counts, baseline) == pytest.approx(expected)


def test_the_same_scores_do_not_drift():
    scores = histogram(np.random.default_rng(0).beta(5, 1, 300))
    assert stability_index(scores, scores) == 0.0
    assert stability_index(4 * scores, scores) == pytest.approx(0.0, abs=1e-3)


def test_an_empty_histogram_says_nothing():
    some, none = histogram([0.5]), np.zeros(1000, int)
    assert stability_index(some, none) is None
    assert stability_index(none, some) is None


def test_one_spike_makes_one_bin_and_what_leaves_it_is_seen():
    spike = histogram(np.full(100, 0.9995))
    assert stability_index(spike, spike) == 0.0
    assert stability_index(histogram(np.full(100, 0.1)), spike) > 1


def test_a_shift_is_larger_than_chance_and_grows():
    rng = np.random.default_rng(1)
    baseline = histogram(rng.beta(8, 2, 5000))
    found = [stability_index(histogram(rng.beta(a, 2, 5000)), baseline) for a in (8, 6, 4)]
    assert found[0] < stability_by_chance(baseline, baseline) < found[1] < found[2]


def test_chance_is_exceeded_as_often_as_it_says():
    rng = np.random.default_rng(2)
    pairs = [(histogram(rng.random(400)), histogram(rng.random(900))) for _ in range(2000)]
    exceeded = [stability_index(*pair) > stability_by_chance(*pair) for pair in pairs]
    assert 0.03 < np.mean(exceeded) < 0.07


def test_chance_is_the_chi_square_quantile():
    ten, two = histogram(np.repeat(np.arange(10) / 10, 30)), histogram(np.repeat([0.0, 0.5], 150))
    counts = histogram(np.full(100, 0.3))
    assert stability_by_chance(counts, ten) == pytest.approx((1 / 100 + 1 / 300) * chi2.ppf(0.95, 19), rel=2e-3)
    assert stability_by_chance(counts, two) == pytest.approx((1 / 100 + 1 / 300) * chi2.ppf(0.95, 3), rel=2e-2)
    assert stability_by_chance(0 * counts, ten) == 0.0
