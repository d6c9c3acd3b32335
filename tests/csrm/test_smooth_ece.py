"""smECE against its definition summed term by term, against the authors' package, and against known truths."""

import warnings

import numpy as np
import pytest

from csrm.evaluation.smooth_ece import reliability_curve, smooth_ece, smooth_ece_at


def reflected_gaussian(t, centre, bandwidth):
    """Density at t of a Gaussian around `centre`, folded back into [0, 1] at both ends."""
    images = [sign * centre + 2 * turn for turn in range(-8, 9) for sign in (1, -1)]
    return sum(np.exp(-0.5 * ((t - image) / bandwidth) ** 2) for image in images) / (bandwidth * np.sqrt(2 * np.pi))


def slow_smooth_ece_at(p, y, bandwidth, num_points=4001):
    t = np.linspace(0, 1, num_points)
    smoothed = sum(reflected_gaussian(t, f, bandwidth) * (label - f) for f, label in zip(p, y, strict=True)) / len(p)
    return np.trapezoid(np.abs(smoothed), t)


def slow_smooth_ece(p, y):
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < slow_smooth_ece_at(p, y, middle) else (low, middle)
    return slow_smooth_ece_at(p, y, (low + high) / 2)


def overconfident(num_rows, seed, slope=2.0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, num_rows)
    return 1 / (1 + np.exp(-slope * logit)), rng.random(num_rows) < 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("bandwidth", [0.02, 0.1, 0.7])
def test_at_a_bandwidth_it_is_the_definition(bandwidth):
    p, y = overconfident(60, seed=1)
    p[:3] = [0.0, 1.0, 0.5]  # at the ends all of the kernel is folded back
    assert smooth_ece_at(p, y, bandwidth) == pytest.approx(slow_smooth_ece_at(p, y, bandwidth), abs=3e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_bandwidth_is_the_fixed_point(seed):
    p, y = overconfident(40, seed)
    found = smooth_ece(p, y)
    assert found == pytest.approx(slow_smooth_ece(p, y), abs=3e-4)
    assert smooth_ece_at(p, y, found) == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize(("num_rows", "slope"), [(300, 2.0), (5_000, 2.0), (5_000, 0.3), (5_000, 1.0)])
def test_it_equals_the_authors_package(num_rows, slope):
    """Where little mass lies at 0 and 1: there theirs folds back half of what its grid's outermost cell holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        relplot = pytest.importorskip("relplot")
        p, y = overconfident(num_rows, seed=2, slope=slope)
        theirs = relplot.smECE(p, y.astype(float))
    assert smooth_ece(p, y) == pytest.approx(theirs, abs=1.5e-3)  # theirs stops at steps of 2^−10


def test_resamples_at_once_equal_one_by_one():
    p, y = overconfident(200, seed=3)
    weight = np.random.default_rng(0).integers(0, 3, (4, 200)).astype(float)
    one_by_one = [smooth_ece(np.repeat(p, w.astype(int)), np.repeat(y, w.astype(int))) for w in weight]
    np.testing.assert_allclose(smooth_ece(p, y, weight), one_by_one, atol=1e-6)


def test_known_truths():
    assert smooth_ece(np.full(10, 0.5), np.arange(10) % 2 == 0) == pytest.approx(0.0, abs=1e-4)
    # One constant prediction that is off by 0.4: no smoothing hides it.
    assert smooth_ece(np.full(1000, 0.5), np.arange(1000) < 900) == pytest.approx(0.4, abs=1e-3)
    p, y = overconfident(40_000, seed=4, slope=1.0)
    assert smooth_ece(p, y) < 0.01


def test_the_curve_of_a_calibrated_model_is_the_diagonal():
    p, y = overconfident(40_000, seed=5, slope=1.0)
    curve = reliability_curve(p, y, bandwidth=0.03)
    inside = (curve.probability > 0.1) & (curve.probability < 0.9)
    np.testing.assert_allclose(curve.frequency[inside], curve.probability[inside], atol=0.04)
    assert curve.density.mean() == pytest.approx(1.0)
