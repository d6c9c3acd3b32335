"""Intervals and tests of shares agree with SciPy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from csrm.rates import difference_p_value, holm, wilson_interval

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_interval_is_wilsons(rate):
    k, n = rate
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    low, high = wilson_interval(k, n)
    assert low <= k / n <= high
    assert low < high


def test_without_trials_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert difference_p_value((0, 0), (1, 2)) == 1.0


@given(counts, counts)
def test_difference_is_the_pooled_z_test(first, second):
    (k, n), (j, m) = first, second
    if 0 < k + j < n + m:
        expected = chi2_contingency([[k, n - k], [j, m - j]], correction=False).pvalue
        assert difference_p_value(first, second) == pytest.approx(expected, abs=1e-9)
    else:
        assert difference_p_value(first, second) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1)))
def test_holm_never_makes_surer_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert sorted(adjusted) == [adjusted[index] for index in order]
