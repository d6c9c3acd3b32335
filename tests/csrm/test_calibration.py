"""Calibration: order kept, parameters recovered, NaN passed on."""

import numpy as np
import pytest

from csrm.calibration import Calibration, fit, sigmoid


def test_fit_recovers_what_made_the_labels():
    rng = np.random.default_rng(0)
    reward = rng.normal(0, 3, 40_000).astype(np.float32)
    complies = rng.random(40_000) < sigmoid(0.6 * reward + 0.8)
    fitted = fit(reward, complies)
    assert fitted.scale == pytest.approx(0.6, abs=0.03)
    assert fitted.bias == pytest.approx(0.8, abs=0.05)


def test_separable_cells_do_not_run_away():
    reward = np.linspace(-1, 1, 100).astype(np.float32)
    fitted = fit(reward, reward > 0)
    assert 0 < fitted.scale < 1e4
    assert np.isfinite(fitted.bias)


def test_p_safe_keeps_order_shape_and_nan():
    reward = np.array([[-200.0, 0.0], [np.nan, 200.0]], np.float32)
    p_safe = Calibration(scale=2.0, bias=0.0).p_safe(reward)
    assert p_safe.dtype == np.float32
    np.testing.assert_array_equal(p_safe, np.array([[0.0, 0.5], [np.nan, 1.0]], np.float32))


def test_refusals():
    with pytest.raises(ValueError, match="scale > 0"):
        Calibration(scale=0.0)
    with pytest.raises(ValueError, match="both complying and violating"):
        fit(np.zeros(3, np.float32), np.ones(3, bool))


def test_fingerprint_follows_parameters():
    assert Calibration().fingerprint == Calibration(scale=1.0, bias=0.0).fingerprint
    assert Calibration().fingerprint != Calibration(bias=0.1).fingerprint
