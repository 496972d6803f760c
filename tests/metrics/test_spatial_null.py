"""P-values of one correlation between smooth maps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from h2e import metrics


@pytest.fixture(scope="module")
def xy():
    """A ragged piece of a jittered lattice, in pixels."""
    grid = np.stack(np.meshgrid(np.arange(16.0), np.arange(18.0)), axis=-1).reshape(-1, 2)
    inside = np.hypot(*(grid - [7, 9]).T) + 2 * np.sin(grid[:, 0]) < 9
    return 290 * (grid[inside] + np.random.default_rng(0).normal(0, 0.05, (inside.sum(), 2)))


@pytest.fixture(scope="module")
def smooth(xy):
    """Two sets of 300 independent maps, smooth over three spots."""
    values, vectors = np.linalg.eigh(np.exp(-(cdist(xy, xy) ** 2) / (4 * (3 * 290) ** 2)))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    rng = np.random.default_rng(1)
    return root @ rng.normal(size=(len(xy), 300)), root @ rng.normal(size=(len(xy), 300))


def test_independent_smooth_maps_are_rarely_significant(smooth, xy):
    x, y = smooth
    naive = np.array([stats.pearsonr(x[:, j], y[:, j]).pvalue for j in range(300)])
    assert (naive < 0.05).mean() > 0.5
    for method in ("pearson", "spearman"):
        p = metrics.spatial_pvalue(x, y, xy, method=method, n_draws=999)["p"]
        assert (p <= 0.05).mean() < 0.09  # 0.05 and three standard errors
        assert 0.35 < (p <= 0.5).mean() < 0.6


def test_a_real_correlation_is_found(smooth, xy):
    x, y = smooth
    noise = np.random.default_rng(2).normal(size=x.shape)
    result = metrics.spatial_pvalue(x, x + 0.2 * y + 0.5 * noise, xy)
    assert (result["p"] <= 0.05).mean() > 0.9
    assert (result["q"] >= result["p"]).all()


def test_r_is_the_correlation_and_q_scipys_adjustment(smooth, xy):
    x, y = (pd.DataFrame(z[:, :20]).add_prefix("g") for z in smooth)
    y["g3"], x["g5"] = 1.0, 0.1
    result = metrics.spatial_pvalue(x, y, xy, method="spearman").set_index("target")
    assert list(result.index) == list(y.columns)
    np.testing.assert_allclose(result["r"], metrics.spearman(x, y))
    assert result.loc["g3", ["r", "p", "q"]].isna().all()  # no truth
    assert result.loc["g5", ["r", "p"]].tolist() == [0, 1]  # nothing said
    tested = result["p"].notna()
    np.testing.assert_allclose(result.loc[tested, "q"], stats.false_discovery_control(result.loc[tested, "p"]))


def test_unit_origin_sign_and_the_other_targets_do_not_matter(smooth, xy):
    x, y = (z[:, :6] for z in smooth)
    p = metrics.spatial_pvalue(x, y, xy)["p"]
    np.testing.assert_allclose(metrics.spatial_pvalue(x, y, xy / 1e3 + 5)["p"], p)
    np.testing.assert_allclose(metrics.spatial_pvalue(7 - 3 * x, y, xy)["p"], p)
    np.testing.assert_allclose(metrics.spatial_pvalue(x[:, 2:4], y[:, 2:4], xy)["p"], p[2:4])


def test_a_large_slide_is_thinned_and_keeps_its_range(smooth, xy):
    x, y = smooth
    result = metrics.spatial_pvalue(x, y, xy, max_spots=120, n_draws=999)
    assert (result["n_spots"] == 120).all()
    assert (result["p"] <= 0.05).mean() < 0.09
    pd.testing.assert_frame_equal(result, metrics.spatial_pvalue(x, y, xy, max_spots=120, n_draws=999))


def test_what_cannot_be_tested_is_refused(smooth, xy):
    x, y = (z[:, :1] for z in smooth)
    with pytest.raises(ValueError, match="at least 20 spots, got 10"):
        metrics.spatial_pvalue(x[:10], y[:10], xy[:10])
    with pytest.raises(ValueError, match="method='kendall'"):
        metrics.spatial_pvalue(x, y, xy, method="kendall")
    with pytest.raises(ValueError, match="share their coordinates"):
        metrics.spatial_pvalue(x, y, np.ones_like(xy))
    with pytest.raises(ValueError, match="xy must have shape"):
        metrics.spatial_pvalue(x, y, xy[:-1])


def test_the_basis_is_the_most_likely_one_of_each_map_and_the_larger_p_value_counts(xy):
    from scipy.linalg import helmert
    from scipy.spatial import cKDTree

    from h2e.metrics import _null

    rng = np.random.default_rng(5)
    near = xy[np.argsort(np.hypot(*(xy - xy.mean(axis=0)).T))[:60]]  # a small disc: 59 contrasts
    distance = cdist(near, near) / np.median(cKDTree(near).query(near, 2)[0][:, 1])
    contrasts = helmert(60)
    x = np.linalg.cholesky(np.exp(-((distance / 4) ** 2)) + 1e-3 * np.eye(60)) @ rng.normal(size=60)
    y = 0.5 * x + np.linalg.cholesky(np.exp(-distance)) @ rng.normal(size=60)
    covariances = [contrasts @ k @ contrasts.T for k in _null._covariances(distance)]
    p = []
    for values in (contrasts @ x, contrasts @ y):
        fits = []
        for k in covariances:
            noisy = [k + nugget * np.eye(59) for nugget in _null.NUGGETS]
            fits.append(max(-np.linalg.slogdet(c)[1] - 59 * np.log(values @ np.linalg.solve(c, values)) for c in noisy))
        basis = np.linalg.eigh(covariances[int(np.argmax(fits))])[1]
        terms = (basis.T @ contrasts @ x) * (basis.T @ contrasts @ y)
        draws = np.abs(rng.choice([-1.0, 1.0], (20_000, 59)) @ terms)
        p.append((draws >= abs(terms.sum())).mean())
    assert abs(p[0] - p[1]) > 0.03  # the two bases disagree here, so that it matters
    assert metrics.spatial_pvalue(x, y, near, n_draws=19_999)["p"][0] == pytest.approx(max(p), abs=0.015)


def test_ranges_stay_those_of_the_whole_layout_when_a_slide_is_thinned(smooth, xy, monkeypatch):
    seen = []
    where = metrics.spatial_pvalue.__globals__  # also where the doctests have imported the module once more
    monkeypatch.setitem(where, "_sign_test", lambda x, y, at, n_draws, rng: seen.append(at) or np.ones(x.shape[1]))
    for kept in (len(xy), len(xy) // 2):
        metrics.spatial_pvalue(smooth[0], smooth[1], xy, max_spots=kept)
    density = [len(at) / np.prod(np.ptp(at, axis=0)) for at in seen]  # spots per squared unit of length
    np.testing.assert_allclose(density[1], density[0], rtol=0.15)
