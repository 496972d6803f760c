"""How much of a correlation is the depth of the spots: against counts of one depth, and against counts without biology."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from h2e._statistics import correlate, is_constant, log_normalize, unit_deviations
from h2e._warnings import refuse

from ._checks import check_pair, check_whole, generator, whole_counts

SHALLOW = 0.1
"""Share of a slide's spots with counts that are too shallow; the others are thinned to the shallowest among them."""


def pearson_equal_depth(
    prediction: ArrayLike, counts: ArrayLike, *, totals: ArrayLike | None = None, n_draws: int = 10, seed: int = 0
) -> np.ndarray:
    """Pearson correlation of each target with counts that are thinned to one depth over the spots of a slide.

    A deep spot has fewer zeros, and its logarithms vary less, so that whatever follows the depth of the spots, such as
    the density of cells, correlates with many genes at once. Here as many molecules are drawn of every spot, without
    replacement, as the spot at the tenth percentile of the totals has; what lies below is left out. Thinned counts are
    noisier: compare with :func:`ceiling` at equal depth.

    Parameters
    ----------
    prediction
        Predicted values of the spots of one slide, spots × targets; finite.
    counts
        Raw counts of the same spots and targets; whole numbers.
    totals
        Counts of each spot over *all* genes; default: over the targets.
    n_draws
        Number of random thinnings, over which the correlation is averaged.
    seed
        Seed of the thinnings.

    Returns
    -------
    One value per target: 0 for a constant prediction, NaN where every thinning is constant or nothing was counted.

    Raises
    ------
    ValueError
        Counts are not whole numbers, totals are less than their sum, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> rng = np.random.default_rng(0)
    >>> totals = rng.integers(500, 5000, 400)
    >>> counts = rng.poisson(totals[:, None] * 0.001)  # the same share of every spot
    >>> of_depth = np.log(totals)[:, None]
    >>> h2e.metrics.pearson_equal_depth(of_depth, counts, totals=totals).round(1) + 0
    array([0.])
    """
    return mean_correlation(prediction, at_equal_depth(counts, totals, n_draws=n_draws, seed=seed))


def pearson_no_biology(
    prediction: ArrayLike, counts: ArrayLike, *, totals: ArrayLike | None = None, n_draws: int = 20, seed: int = 0
) -> np.ndarray:
    """Pearson correlation of each target with counts that hold no biology, only the depth of the spots.

    Every spot has its real total, of which each target has the same share everywhere; counts are drawn from a Poisson
    distribution and log-normalized like real ones. A prediction that knows the tissue should score about 0.

    Parameters
    ----------
    prediction, counts, totals
        As in :func:`pearson_equal_depth`.
    n_draws
        Number of draws, over which the correlation is averaged.
    seed
        Seed of the draws.

    Returns
    -------
    One value per target: 0 for a constant prediction, NaN where a target has no counts.

    Raises
    ------
    ValueError
        As :func:`pearson_equal_depth`.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> totals = np.random.default_rng(0).integers(500, 5000, 400)
    >>> of_depth = np.log(totals)[:, None]
    >>> float(h2e.metrics.pearson_no_biology(of_depth, totals[:, None] // 1000, totals=totals)[0].round(1))
    0.3
    """
    return mean_correlation(prediction, without_biology(counts, totals, n_draws=n_draws, seed=seed))


def pearson_beyond_depth(prediction: ArrayLike, truth: ArrayLike, totals: ArrayLike) -> np.ndarray:
    """Pearson correlation of each target after the logarithm of the totals is regressed out of both.

    A lower bound of what a prediction knows, since totals are partly biology: tissue with more cells has more RNA.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the spots of one slide, spots × targets; finite.
    totals
        Counts of each spot over all genes.

    Returns
    -------
    One value per target: 0 for a prediction that follows the depth alone, NaN for such a truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite or negative.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> totals, pattern = np.array([10, 100, 1000, 10000]), np.array([1.0, -1.0, -1.0, 1.0])
    >>> depth = np.log1p(totals)
    >>> h2e.metrics.pearson_beyond_depth(depth + pattern, 5 * depth + pattern, totals).round(3)
    array([1.])
    """
    prediction, truth = check_pair(prediction, truth)
    of_spots = np.ravel(np.asarray(totals, dtype=np.float64))
    if of_spots.shape != (len(truth),) or not (of_spots >= 0).all() or not np.isfinite(of_spots).all():
        refuse(f"totals must be {len(truth)} numbers of at least 0, one per spot, got shape {np.shape(totals)}.")
    depth = unit_deviations(np.log1p(of_spots)[:, None])
    return correlate(*(_rest(values, depth) for values in (prediction, truth)))


def at_equal_depth(counts: ArrayLike, totals: ArrayLike | None, *, n_draws: int = 10, seed: int = 0) -> np.ndarray:
    """Mean direction of the thinned targets, spots × targets; rows of NaN are too shallow. See `mean_correlation`."""
    check_whole(n_draws, "n_draws")
    counts, totals = whole_counts(counts, totals)
    rng, deep, depth = generator(seed), *common_depth(totals)
    of_deep, rest = counts[deep], (totals[deep, None] - counts[deep])
    draws = (rng.hypergeometric(of_deep, rest, depth) for _ in range(n_draws))
    out = np.full(counts.shape, np.nan)
    out[deep] = _mean_direction([log_normalize(drawn, totals=np.full(len(drawn), depth)) for drawn in draws])
    return out


def without_biology(counts: ArrayLike, totals: ArrayLike | None, *, n_draws: int = 20, seed: int = 0) -> np.ndarray:
    """Mean direction of targets that are drawn at constant shares, spots × targets. See `mean_correlation`."""
    check_whole(n_draws, "n_draws")
    counts, totals = whole_counts(counts, totals)
    rng, rate = generator(seed), np.outer(totals, counts.sum(axis=0) / max(totals.sum(), 1))
    return _mean_direction([log_normalize(rng.poisson(rate), totals=totals) for _ in range(n_draws)])


def mean_correlation(prediction: ArrayLike, direction: np.ndarray) -> np.ndarray:
    """Mean correlation of a prediction with several truths, which is linear in their directions; one value per target."""
    drawn = np.isfinite(direction).any(axis=1)
    predicted = check_pair(prediction, np.nan_to_num(direction))[0][drawn]
    if not drawn.any():
        return np.full(direction.shape[1], np.nan)
    return (unit_deviations(predicted) * direction[drawn]).sum(axis=0)


def common_depth(totals: np.ndarray) -> tuple[np.ndarray, int]:
    """Which spots are deep enough, and the depth that they are thinned to; 0 where nothing was counted."""
    depth = int(np.quantile(totals[totals > 0], SHALLOW, method="higher")) if totals.any() else 0
    return totals >= depth, depth


def _mean_direction(draws: list[np.ndarray]) -> np.ndarray:
    """Mean over draws of the unit deviations of each target, over those in which it varies; NaN if it never does."""
    varies = np.sum([~is_constant(drawn) for drawn in draws], axis=0)
    total = np.sum([unit_deviations(drawn) for drawn in draws], axis=0)
    return np.divide(total, varies, out=np.full(total.shape, np.nan), where=varies > 0)


def _rest(values: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """What the direction does not explain of deviations from the mean; 0 where that is nothing but rounding."""
    deviations = unit_deviations(values)
    rest = deviations - direction * (direction * deviations).sum(axis=0)
    return np.where(np.linalg.norm(rest, axis=0) > 1e-6, rest, 0.0)
