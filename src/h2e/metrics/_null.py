"""Is one correlation more than two smooth maps meeting by chance?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from h2e._statistics import correlate, is_constant
from h2e._warnings import refuse, refuse_if

from ._checks import align, check_whole, generator, positions
from ._correlation import ranks

MIN_SPOTS = 20
"""Spots below which a map says too little about its covariance."""

SHAPES = {"gauss": lambda d, length: np.exp(-((d / (2 * length)) ** 2)), "exp": lambda d, length: np.exp(-d / length)}
"""Covariance over distance: white noise smoothed by a Gaussian of this width, or a rough field."""

LENGTHS = (1.0, 1.5, 2.4, 3.8, 6.0, 9.5)
"""Correlation lengths that are tried, in spot spacings."""

NUGGETS = np.array([1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.6, 2.0, 6.0])
"""Variances of the noise of a single spot that are tried, beside 1 for the smooth part.

Predictions may be free of it: with 1e-4 as the smallest, noise-free maps were taken for less smooth than they are."""


def spatial_pvalue(
    prediction: ArrayLike,
    truth: ArrayLike,
    xy: ArrayLike,
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    n_draws: int = 4999,
    max_spots: int = 800,
    seed: int = 0,
) -> pd.DataFrame:
    """Two-sided p-value of each target's correlation under a null that keeps spatial autocorrelation.

    Each map is written in the eigenvectors of a spatial covariance, fitted to it by maximum likelihood, where the
    coefficients of a smooth random map are uncorrelated, and the signs of the products of coefficients are drawn at
    random (Moran spectral randomization). It is fitted to the prediction and to the truth, and the larger p-value
    counts. :doc:`/metrics` says why, and how often it is wrong.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of one slide, spots × targets; finite. A DataFrame names the targets.
    xy
        Coordinates of the spots, in any unit.
    method
        Which correlation.
    n_draws
        Number of random maps; the smallest p-value is ``1 / (n_draws + 1)``. Targets share the draws, so that few draws
        are off for all targets alike.
    max_spots
        A slide with more spots is thinned at random to so many, at least 20, and scored on these.
    seed
        Seed of the draws and of the thinning.

    Returns
    -------
    A DataFrame with a row per target: ``target``, ``n_spots``, ``r``, ``p``, and ``q``, the p-value after
    Benjamini-Hochberg over the targets. All NaN where the truth is constant; ``p = 1`` where the prediction is.

    Raises
    ------
    ValueError
        There are fewer than 20 spots, most share their coordinates, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> xy = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    >>> truth = np.sin(xy[:, 0]) + np.cos(xy[:, 1])
    >>> h2e.metrics.spatial_pvalue(2 * truth + 1, truth, xy)[["n_spots", "r", "p"]].round(3)
       n_spots    r    p
    0      144  1.0  0.0
    """
    refuse_if(method not in ("pearson", "spearman"), f"method must be 'pearson' or 'spearman', got method={method!r}.")
    check_whole(n_draws, "n_draws")
    check_whole(max_spots, "max_spots", least=MIN_SPOTS)
    rng = generator(seed)
    xy = positions(xy, truth)
    prediction, truth, names = align(prediction, truth)
    refuse_if(len(truth) < MIN_SPOTS, f"a spatial null needs at least {MIN_SPOTS} spots, got {len(truth)}.")
    spacing = _spacing(xy)
    if len(truth) > max_spots:
        spacing *= np.sqrt(len(truth) / max_spots)
        kept = np.sort(rng.choice(len(truth), max_spots, replace=False))
        prediction, truth, xy = prediction[kept], truth[kept], xy[kept]
    if method == "spearman":
        prediction, truth = ranks(prediction), ranks(truth)
    tested = ~is_constant(prediction) & ~is_constant(truth)
    p = np.where(is_constant(truth), np.nan, 1.0)
    if tested.any():
        p[tested] = _sign_test(prediction[:, tested], truth[:, tested], xy / spacing, n_draws, rng)
    columns = {"r": correlate(prediction, truth), "p": p, "q": false_discovery_rate(p)}
    return pd.DataFrame({"target": names, "n_spots": len(truth)} | columns)


def false_discovery_rate(p: ArrayLike) -> np.ndarray:
    """Benjamini-Hochberg adjustment of p-values; NaN stays NaN and does not count as a test.

    Parameters
    ----------
    p
        P-values.

    Returns
    -------
    Adjusted p-values, in the same order.

    Raises
    ------
    ValueError
        A p-value is outside of 0 to 1.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.false_discovery_rate([0.01, 0.04, float("nan")])
    array([0.02, 0.04,  nan])
    """
    from scipy.stats import false_discovery_control

    q = np.array(p, dtype=np.float64)
    tested = ~np.isnan(q)
    if not ((q[tested] >= 0) & (q[tested] <= 1)).all():
        refuse(f"p must be between 0 and 1, or NaN, got values from {q[tested].min():g} to {q[tested].max():g}.")
    if tested.any():
        q[tested] = false_discovery_control(q[tested])
    return q


def _sign_test(x: np.ndarray, y: np.ndarray, xy: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """P-values of the covariance of columns of ``x`` and ``y``, by random signs in the basis that fits each best."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    # Draws are shared by the targets: p-values of the same maps are the same, whatever else is tested.
    signs = rng.choice(np.array([-1.0, 1.0]), (n_draws, len(x) - 1))
    best = [np.full(x.shape[1], -np.inf) for _ in range(2)]
    terms = [np.empty((len(x) - 1, x.shape[1])) for _ in range(2)]
    for values, vectors in _spectra(xy):
        a, b = vectors.T @ x, vectors.T @ y
        for side, coefficients in enumerate((a, b)):
            fit = _log_likelihood(coefficients, values)
            better = fit > best[side]
            best[side][better] = fit[better]
            terms[side][:, better] = a[:, better] * b[:, better]
    return np.maximum(*(_exceed(signs, term) for term in terms))


def _exceed(signs: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Share of sums with random signs that are at least as far from 0 as the sum itself, which counts as a draw."""
    # Equal up to rounding is equal.
    observed = np.abs(terms.sum(axis=0)) - 1e-9 * np.abs(terms).sum(axis=0)
    reached = np.empty(terms.shape[1])
    # Draws × targets would not fit for a whole transcriptome.
    for start in range(0, len(reached), 512):
        part = slice(start, start + 512)
        reached[part] = (np.abs(signs @ terms[:, part]) >= observed[part]).sum(axis=0)
    return (1 + reached) / (1 + len(signs))


def _log_likelihood(coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Gaussian log-likelihood of each column with these eigenvalues, over the best nugget; scale profiled out."""
    # Nuggets × directions.
    variances = values + NUGGETS[:, None]
    fit = np.log(variances).sum(axis=1)[:, None] + len(values) * np.log((1 / variances) @ coefficients**2)
    return -fit.min(axis=0) / 2


def _spectra(xy: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Eigenvalues and eigenvectors of each candidate covariance, centred as the maps are, without the constant."""
    from scipy.spatial.distance import cdist

    for covariance in _covariances(cdist(xy, xy)):
        centred = covariance - covariance.mean(axis=0)
        centred -= centred.mean(axis=1)[:, None]
        # The constant would hide among the other directions of (almost) no variance: give it an eigenvalue below all.
        values, vectors = np.linalg.eigh(centred - 1 / len(xy))
        yield np.clip(values[1:], 0, None), vectors[:, 1:]


def _covariances(distance: np.ndarray) -> Iterator[np.ndarray]:
    """Candidates: one range, or a short one on top of a long one (trends across the slide)."""
    for shape, length in product(SHAPES.values(), LENGTHS):
        yield shape(distance, length)
    yield SHAPES["gauss"](distance, 15.0)
    for shape, length, share, far in product(SHAPES.values(), (1.5, 3.8), (0.5, 2.0, 8.0), (6.0, 15.0)):
        yield (shape(distance, length) + share * SHAPES["gauss"](distance, far)) / (1 + share)


def _spacing(xy: np.ndarray) -> float:
    """Median distance to the nearest other spot."""
    from scipy.spatial import cKDTree

    spacing = float(np.median(cKDTree(xy).query(xy, 2)[0][:, 1]))
    refuse_if(spacing == 0, "xy must be the positions of one slide, got spots most of which share their coordinates.")
    return spacing
