"""How well could any prediction correlate with counts this shallow?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._checks import matrix
from ._correlation import pearson
from ._distribution import check_non_negative

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def reliability(
    counts: ArrayLike, *, totals: ArrayLike | None = None, target_sum: float = 1e4, n_draws: int = 10, seed: int = 0
) -> np.ndarray:
    """Share of each target's variance over the spots of a slide that is no counting noise.

    Every molecule goes to one of two halves by a coin, the halves are log-normalized, and their Pearson correlation
    ``r`` is stepped up to the full depth by ``2r / (1 + r)`` (Spearman and Brown).

    Parameters
    ----------
    counts
        Raw counts of one slide, spots × targets, dense or sparse; whole numbers.
    totals
        Counts of each spot over *all* genes; default: over the targets.
    target_sum
        Depth that spots are scaled to before the logarithm.
    n_draws
        Number of random halvings that are averaged.
    seed
        Seed of the halvings.

    Returns
    -------
    One value per target, 0 to 1; NaN where the counts are constant over spots.

    Raises
    ------
    ValueError
        Counts are not whole numbers, or totals are less than their sum.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> rng = np.random.default_rng(0)
    >>> rate = np.stack([np.geomspace(1, 100, 300), np.geomspace(0.01, 1, 300)], axis=1)
    >>> h2e.metrics.reliability(rng.poisson(rate), totals=np.full(300, 5000)).round(1)
    array([0.9, 0.4])
    """
    counts, totals = _check_counts(counts, totals)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(n_draws):
        half = rng.binomial(counts, 0.5)
        half_total = half.sum(axis=1) + rng.binomial(totals - counts.sum(axis=1), 0.5)
        halves = (
            _log_normalize(half, half_total, target_sum),
            _log_normalize(counts - half, totals - half_total, target_sum),
        )
        scores.append(_symmetric_pearson(*halves))
    r = np.clip(np.mean(scores, axis=0), 0, 1)
    return np.where(np.ptp(counts, axis=0) > 0, 2 * r / (1 + r), np.nan)


def ceiling(
    counts: ArrayLike, *, totals: ArrayLike | None = None, target_sum: float = 1e4, n_draws: int = 10, seed: int = 0
) -> np.ndarray:
    """Highest Pearson correlation that a perfect prediction can reach with counts this shallow: ``√reliability``.

    Parameters
    ----------
    counts
        Raw counts of one slide, spots × targets, dense or sparse; whole numbers.
    totals
        Counts of each spot over *all* genes; default: over the targets.
    target_sum
        Depth that spots are scaled to before the logarithm.
    n_draws
        Number of random halvings that are averaged.
    seed
        Seed of the halvings.

    Returns
    -------
    One value per target, 0 to 1; NaN where the counts are constant over spots.

    Raises
    ------
    ValueError
        Counts are not whole numbers, or totals are less than their sum.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> counts = np.random.default_rng(0).poisson(3.0, (500, 1))  # nothing but noise
    >>> bool(h2e.metrics.ceiling(counts, totals=np.full(500, 5000))[0] < 0.3)
    True
    """
    return np.sqrt(reliability(counts, totals=totals, target_sum=target_sum, n_draws=n_draws, seed=seed))


def _check_counts(counts: ArrayLike, totals: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Whole counts, and totals that hold them."""
    counts = matrix(counts, "counts")
    check_non_negative(counts, "counts")
    if (counts != np.round(counts)).any():
        msg = "counts are not whole numbers; pass raw counts, not normalized values."
        raise ValueError(msg)
    totals = counts.sum(axis=1) if totals is None else np.ravel(totals).astype(np.float64)
    if totals.shape != (len(counts),) or (totals != np.round(totals)).any() or (totals < counts.sum(axis=1)).any():
        msg = f"totals must be {len(counts)} whole numbers, each at least the sum of the targets' counts of its spot."
        raise ValueError(msg)
    return counts.astype(np.int64), totals.astype(np.int64)


def _log_normalize(counts: np.ndarray, totals: np.ndarray, target_sum: float) -> np.ndarray:
    """Log of one plus counts at a common depth; a spot without counts is 0."""
    return np.log1p(counts * (target_sum / np.maximum(totals, 1))[:, None])


def _symmetric_pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation, 0 where either half is constant: a half without molecules agrees with nothing."""
    return np.nan_to_num(pearson(a, b), nan=0.0)
