"""Statistics of arrays against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from h2e._statistics import correlate, unit_deviations


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_correlations_of_columns_equal_scipys_in_every_leading_dimension(rng):
    a, b = rng.normal(size=(2, 40, 3)), rng.gamma(1.0, size=(40, 3))
    expected = [[stats.pearsonr(a[i, :, j], b[:, j])[0] for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(correlate(a, b), expected)


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1e12, 1e300])
def test_correlations_do_not_depend_on_the_units(unit, rng):
    a, b = rng.normal(size=(2, 30, 4))
    np.testing.assert_allclose(correlate(unit * a, b), correlate(a, b))
    np.testing.assert_allclose(correlate(a, unit * b), correlate(a, b))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-300, 1e300])
def test_a_constant_first_scores_zero_and_a_constant_second_is_missing_whatever_their_rounding(value, rng):
    varying = rng.normal(size=(50, 4))
    constant = np.full((50, 4), value) * (1 + 1e-7 * rng.uniform(-1, 1, (50, 4)))
    assert (correlate(constant, varying) == 0).all()
    assert np.isnan(correlate(varying, constant)).all()
    assert np.isnan(correlate(constant, constant)).all()


def test_products_of_unit_deviations_are_the_correlation_matrix(rng):
    values = rng.normal(size=(60, 5)) + 100
    z = unit_deviations(values)
    np.testing.assert_allclose(z.T @ z, np.corrcoef(values, rowvar=False))
