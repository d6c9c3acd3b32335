"""Calibration: order kept, parameters recovered, few labels shrunk to the common line and many not."""

import numpy as np
import pytest

from csrm.calibration import Calibration, Prior, fit, fit_configurations, sigmoid


def cells(num_cells, scale, bias, seed=0):
    rng = np.random.default_rng(seed)
    reward = rng.normal(0, 3, num_cells).astype(np.float32)
    return reward, rng.random(num_cells) < sigmoid(scale * reward + bias)


def test_fit_recovers_what_made_the_labels():
    fitted = fit(*cells(40_000, scale=0.6, bias=0.8))
    assert fitted.scale == pytest.approx(0.6, abs=0.03)
    assert fitted.bias == pytest.approx(0.8, abs=0.05)


def test_separable_cells_do_not_run_away():
    reward = np.linspace(-1, 1, 100).astype(np.float32)
    fitted = fit(reward, reward > 0)
    assert 0 < fitted.scale < 1e4
    assert np.isfinite(fitted.bias)


def fit_with_stranger(num_strange, prior=None, seed=2):
    """20,000 common cells on one line (scale 1, bias 0), and `num_strange` of a configuration on (0.5, -1.5)."""
    parts = [cells(20_000, 1.0, 0.0, seed=1), cells(num_strange, 0.5, -1.5, seed)]
    reward, complies = (np.concatenate(part) for part in zip(*parts, strict=True))
    return fit_configurations(reward, complies, [None] * 20_000 + ["strange"] * num_strange, prior=prior), parts[1]


def test_many_labels_reach_their_own_optimum():
    calibration, (reward, complies) = fit_with_stranger(8_000)
    own, alone = calibration.of("strange"), fit(reward, complies)
    assert own.scale == pytest.approx(alone.scale, rel=0.02)
    assert own.bias == pytest.approx(alone.bias, abs=0.03)


def test_few_labels_stay_near_the_common_line():
    """Of the way from the common bias to the true one: more the more labels there are, with 40 of them a part."""
    way = []
    for num_strange in (40, 400, 8_000):
        fits = [fit_with_stranger(num_strange, Prior(log_scale_sd=0.2, bias_sd=0.2), seed)[0] for seed in range(2, 10)]
        way.append(np.mean([(fit.bias - fit.of("strange").bias) / (fit.bias + 1.5) for fit in fits]))
    assert way[0] < 0.4 < way[1] < way[2]
    assert way[2] == pytest.approx(1.0, abs=0.05)


def test_the_prior_is_what_it_says():
    """An own line minimises −log likelihood plus the squared distance in standard deviations, by brute force."""
    prior = Prior(log_scale_sd=0.3, bias_sd=0.5)
    calibration, (reward, complies) = fit_with_stranger(60, prior)
    own = calibration.of("strange")

    def loss(log_scale, bias):
        likelihood = np.logaddexp(0, -np.where(complies, 1, -1) * (np.exp(log_scale) * reward + bias)).sum()
        distance = ((log_scale - np.log(calibration.scale)) / 0.3) ** 2 + ((bias - calibration.bias) / 0.5) ** 2
        return likelihood + distance / 2

    at = loss(np.log(own.scale), own.bias)
    for step in (1e-3, 0.1, 1.0):
        for turn in np.linspace(0, 2 * np.pi, 16):
            assert at < loss(np.log(own.scale) + step * np.cos(turn), own.bias + step * np.sin(turn))


def test_too_few_labels_or_one_class_get_no_line_of_their_own():
    reward, complies = cells(200, 1.0, 0.0)
    order = np.argsort(complies, kind="stable")
    reward, complies = reward[order], complies[order]
    keys = ["one_class"] * 50 + [None] * 80 + ["few"] * 0 + ["enough"] * 70
    assert not complies[:50].any()
    keys[48:60] = ["few"] * 12
    complies[50:55] = True
    complies[190:] = False
    assert set(fit_configurations(reward, complies, keys).configurations) == {"enough"}


def test_p_safe_keeps_order_shape_and_nan():
    reward = np.array([[-200.0, 0.0], [np.nan, 200.0]], np.float32)
    p_safe = Calibration(scale=2.0, bias=0.0).p_safe(reward)
    assert p_safe.dtype == np.float32
    np.testing.assert_array_equal(p_safe, np.array([[0.0, 0.5], [np.nan, 1.0]], np.float32))


def test_a_column_goes_through_its_own_line():
    calibration = Calibration(scale=2.0, bias=1.0, configurations={"b": Calibration(scale=0.5, bias=-3.0)})
    reward = np.array([[1.0, 1.0, 1.0]], np.float32)
    expected = sigmoid(np.array([[3.0, -2.5, 3.0]])).astype(np.float32)
    np.testing.assert_array_equal(calibration.p_safe(reward, ["a", "b", "c"]), expected)
    np.testing.assert_array_equal(calibration.p_safe(reward), sigmoid(np.full((1, 3), 3.0)).astype(np.float32))


def test_refusals():
    with pytest.raises(ValueError, match="scale > 0"):
        Calibration(scale=0.0)
    with pytest.raises(ValueError, match="holds no further configurations"):
        Calibration(configurations={"a": Calibration(configurations={"b": Calibration()})})
    with pytest.raises(ValueError, match="both complying and violating"):
        fit(np.zeros(3, np.float32), np.ones(3, bool))


def test_json_round_trip_and_its_earlier_form():
    whole = Calibration(scale=0.5, bias=0.25, configurations={"f": Calibration(scale=2.0, bias=-1.0)})
    assert Calibration.from_json(whole.to_json()) == whole
    assert Calibration.from_json({"scale": 0.5, "bias": 0.25}) == Calibration(scale=0.5, bias=0.25)
    assert Calibration(scale=0.5, bias=0.25).to_json() == {"scale": 0.5, "bias": 0.25}


def test_fingerprint_follows_every_parameter():
    own = {"a": Calibration(scale=2.0)}
    fingerprints = [
        Calibration().fingerprint,
        Calibration(bias=0.1).fingerprint,
        Calibration(configurations=own).fingerprint,
        Calibration(configurations={"b": own["a"]}).fingerprint,
        Calibration(configurations={"a": Calibration(scale=2.0, bias=0.1)}).fingerprint,
    ]
    assert len(set(fingerprints)) == 5
    assert Calibration().fingerprint == Calibration(scale=1.0, bias=0.0).fingerprint
    assert Calibration(configurations=own).of("elsewhere").fingerprint == Calibration().fingerprint
