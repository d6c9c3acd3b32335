"""Intervals: as wide as theory says, wider where rows come in clusters, and the same from the same seed."""

import numpy as np
import pytest

from csrm.evaluation.bootstrap import cluster_numbers, estimate, resamples
from csrm.evaluation.metrics import auroc, weighted_mean
from csrm.evaluation.smooth_ece import smooth_ece


def interval(values, clusters, **options):
    found = estimate({"mean": lambda w: weighted_mean(values, w)}, clusters, **options)
    return found["mean"], found["mean_95"]


def test_the_interval_of_a_mean_is_as_theory_says():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    mean, (low, high) = interval(values, np.arange(400), num_resamples=4_000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == (pytest.approx(mean - half, rel=0.05), pytest.approx(mean + half, rel=0.05))


def test_rows_of_a_cluster_stand_or_fall_together():
    """Ten copies of every row tell no more than one."""
    values = np.random.default_rng(1).normal(0.0, 1.0, 100)
    _, single = interval(values, np.arange(100), num_resamples=2_000)
    _, copied = interval(np.repeat(values, 10), np.repeat(np.arange(100), 10), num_resamples=2_000)
    _, ignored = interval(np.repeat(values, 10), np.arange(1000), num_resamples=2_000)
    assert np.ptp(copied) == pytest.approx(np.ptp(single), rel=0.1)
    assert np.ptp(ignored) < np.ptp(single) / 2


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(50.0)
    assert interval(values, np.arange(50), seed=3) == interval(values, np.arange(50), seed=3)
    assert interval(values, np.arange(50), seed=3) != interval(values, np.arange(50), seed=4)


def test_resamples_draw_as_many_clusters_as_there_are():
    clusters = cluster_numbers(["a", "b", "a", "c"])
    assert clusters.tolist() == [0, 1, 0, 2]
    weights = np.concatenate(list(resamples(clusters, 20, seed=0)))
    assert weights.shape == (20, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_a_figure_that_does_not_exist_has_no_interval():
    everyone = np.ones(5, bool)
    found = estimate({"auroc": lambda w: auroc(np.arange(5.0), everyone, w)}, np.arange(5), num_resamples=10)
    assert np.isnan(found["auroc"])
    assert np.isnan(found["auroc_95"]).all()


def test_the_interval_of_a_calibration_error_holds_the_figure():
    """A resample of a calibrated model is less calibrated than the model: plain percentiles would all lie above."""
    rng = np.random.default_rng(0)
    p = rng.random(3_000)
    y = rng.random(3_000) < p
    found = estimate({"smece": lambda w: smooth_ece(p, y, w)}, np.arange(3_000), num_resamples=200)
    low, high = found["smece_95"]
    assert 0 <= low < found["smece"] < high
