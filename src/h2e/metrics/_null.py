"""Is one correlation more than two smooth maps meeting by chance?"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._checks import align, is_constant
from ._correlation import pearson
from ._spatial import check_xy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

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
    method: str = "pearson",
    n_draws: int = 4999,
    max_spots: int = 800,
    seed: int = 0,
) -> pd.DataFrame:
    """Two-sided p-value of each target's correlation under a null that keeps spatial autocorrelation.

    Neighbouring spots are no independent observations: the usual test calls 25 to 88 % of independent smooth maps
    significant at 5 %. Here each map is written in the eigenvectors of a spatial covariance, where the
    coefficients of a smooth random map are uncorrelated, and the signs of the products of coefficients are drawn at
    random (Moran spectral randomization). The covariance is fitted to the map by maximum likelihood over
    short, long and mixed ranges and single-spot noise: the eigenvectors of a plain neighbour graph
    leave false positives of up to 51 %. It is fitted to the prediction and to the truth, and the larger p-value counts.

    ``benchmarks/spatial_null.py`` measures the false-positive rate on ten real layouts: 3 to 6.3 %. It is the null of
    *stationary* random maps (a trend across the slide included), of one slide: it says nothing about other donors.

    Parameters
    ----------
    prediction
        Predicted values of one slide, spots × targets; finite. A DataFrame names the targets.
    truth
        Measured values of the same spots and targets.
    xy
        Coordinates of the spots, in any unit.
    method
        ``"pearson"`` or ``"spearman"``.
    n_draws
        Number of random maps; the smallest p-value is ``1 / (n_draws + 1)``. Targets share the draws, so that few draws
        are off for all targets alike.
    max_spots
        A slide with more spots is thinned at random to so many, and ``r`` and ``p`` are those of the spots kept.
    seed
        Seed of the draws and of the thinning.

    Returns
    -------
    A DataFrame with a row per target: ``target``, ``n_spots``, ``r``, ``p``, and ``q``, the p-value after
    Benjamini-Hochberg over the targets. All NaN where the truth is constant; ``p = 1`` where the prediction is.

    Raises
    ------
    ValueError
        The method is unknown, there are fewer than 20 spots, or most share their coordinates.

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
    prediction, truth, names = align(prediction, truth)
    xy = check_xy(xy, len(truth))
    _check_settings(method, len(truth))
    rng = np.random.default_rng(seed)
    spacing = _spacing(xy)
    if len(truth) > max_spots:
        spacing *= np.sqrt(len(truth) / max_spots)
        kept = np.sort(rng.choice(len(truth), max_spots, replace=False))
        prediction, truth, xy = prediction[kept], truth[kept], xy[kept]
    flat = is_constant(prediction), is_constant(truth)
    if method == "spearman":
        prediction, truth = (pd.DataFrame(values).rank().to_numpy() for values in (prediction, truth))
    p = np.where(flat[1], np.nan, 1.0)
    tested = ~flat[0] & ~flat[1]
    if tested.any():
        p[tested] = _sign_test(prediction[:, tested], truth[:, tested], xy / spacing, n_draws, rng)
    r = np.where(flat[1], np.nan, np.where(flat[0], 0.0, pearson(prediction, truth)))
    return pd.DataFrame({"target": names, "n_spots": len(truth), "r": r, "p": p, "q": false_discovery_rate(p)})


def false_discovery_rate(p: ArrayLike) -> np.ndarray:
    """Benjamini-Hochberg adjustment of p-values; NaN stays NaN and does not count as a test.

    Parameters
    ----------
    p
        P-values.

    Returns
    -------
    Adjusted p-values, in the same order.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.false_discovery_rate([0.01, 0.04, float("nan")])
    array([0.02, 0.04,  nan])
    """
    from scipy.stats import false_discovery_control

    p = np.asarray(p, dtype=np.float64)
    q = p.copy()
    if np.isfinite(p).any():
        q[np.isfinite(p)] = false_discovery_control(p[np.isfinite(p)])
    return q


def _sign_test(x: np.ndarray, y: np.ndarray, xy: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """P-values of the covariance of columns of ``x`` and ``y``, by random signs in the basis that fits each best."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    # draws are shared by the targets: p-values of the same maps are the same, whatever else is tested
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
    observed = np.abs(terms.sum(axis=0)) - 1e-9 * np.abs(terms).sum(axis=0)  # equal up to rounding is equal
    reached = np.empty(terms.shape[1])
    for start in range(0, len(reached), 512):  # draws × targets would not fit for a whole transcriptome
        part = slice(start, start + 512)
        reached[part] = (np.abs(signs @ terms[:, part]) >= observed[part]).sum(axis=0)
    return (1 + reached) / (1 + len(signs))


def _log_likelihood(coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Gaussian log-likelihood of each column with these eigenvalues, over the best nugget; scale profiled out."""
    variances = values + NUGGETS[:, None]  # (nuggets, n - 1)
    fit = np.log(variances).sum(axis=1)[:, None] + len(values) * np.log((1 / variances) @ coefficients**2)
    return -fit.min(axis=0) / 2


def _spectra(xy: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Eigenvalues and eigenvectors of each candidate covariance, centred as the maps are, without the constant."""
    from scipy.spatial.distance import cdist

    for covariance in _covariances(cdist(xy, xy)):
        centred = covariance - covariance.mean(axis=0)
        centred -= centred.mean(axis=1)[:, None]
        # the constant would hide among the other directions of (almost) no variance: give it an eigenvalue below all
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
    if spacing == 0:
        msg = "most spots share their coordinates with another one; pass the spots of one slide."
        raise ValueError(msg)
    return spacing


def _check_settings(method: str, n: int) -> None:
    """Refuse unknown methods and slides too small for a spatial null."""
    if method not in {"pearson", "spearman"}:
        msg = f"method={method!r} is not known; use 'pearson' or 'spearman'."
        raise ValueError(msg)
    if n < 20:
        msg = f"a spatial null needs at least 20 spots, there are {n}."
        raise ValueError(msg)
