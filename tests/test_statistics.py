"""Statistics of arrays against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from h2e._statistics import correlate, log_normalize, morans_i, unit_deviations


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


def test_morans_i_is_its_formula_over_a_graph_with_rows_of_sum_one(rng):
    weights = rng.random((30, 30)) * (rng.random((30, 30)) < 0.2)
    weights[4] = 0
    values = rng.normal(size=(30, 700))
    values[:, 3] = 0.1
    total = weights.sum(axis=1, keepdims=True)
    scaled = weights / np.where(total > 0, total, 1)
    z = values - values.mean(axis=0)
    expected = 30 / scaled.sum() * np.einsum("ig,ij,jg->g", z, scaled, z) / (z**2).sum(axis=0)
    expected[3] = 0
    np.testing.assert_allclose(morans_i(values, sparse.csr_matrix(weights)), expected, atol=1e-12)
    np.testing.assert_allclose(morans_i(sparse.csr_array(values), sparse.csr_array(weights)), expected, atol=1e-12)


def test_without_neighbours_morans_i_is_zero(rng):
    assert (morans_i(rng.random((5, 2)), sparse.csr_array((5, 5))) == 0).all()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_log_normalization_is_scanpys_and_leaves_counts_as_they_were(kind, rng):
    import anndata as ad
    import scanpy as sc

    counts = rng.poisson(0.7, (20, 6)).astype(np.float32)
    counts[3] = 0
    before, given = counts.copy(), kind(counts)
    adata = ad.AnnData(counts.copy())
    with pytest.warns(UserWarning, match="zero counts"):
        sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = log_normalize(given)
    found = found.toarray() if sparse.issparse(found) else found
    np.testing.assert_allclose(found, adata.X, rtol=1e-6)
    np.testing.assert_array_equal(given.toarray() if sparse.issparse(given) else given, before)


def test_totals_over_more_genes_set_the_depth(rng):
    counts = rng.poisson(3.0, (20, 6))
    whole = log_normalize(counts, target_sum=100)
    np.testing.assert_allclose(log_normalize(counts[:, :2], totals=counts.sum(axis=1), target_sum=100), whole[:, :2])
