"""How well could any prediction correlate with counts this shallow?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from h2e._statistics import correlate, log_normalize

from ._checks import check_between, check_non_negative, check_whole, generator, matrix


def reliability(
    counts: ArrayLike, *, totals: ArrayLike | None = None, target_sum: float = 1e4, n_draws: int = 10, seed: int = 0
) -> np.ndarray:
    """Share of each target's variance over the spots of a slide that is not counting noise.

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
        Counts are not whole numbers, totals are less than their sum, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> rng = np.random.default_rng(0)
    >>> rate = np.stack([np.geomspace(1, 100, 300), np.geomspace(0.01, 1, 300)], axis=1)
    >>> h2e.metrics.reliability(rng.poisson(rate), totals=np.full(300, 5000)).round(1)
    array([0.9, 0.4])
    """
    check_between(target_sum, "target_sum", high=np.inf)
    check_whole(n_draws, "n_draws")
    counts, totals = _whole_counts(counts, totals)
    rng = generator(seed)
    scores = []
    for _ in range(n_draws):
        half = rng.binomial(counts, 0.5)
        half_totals = half.sum(axis=1) + rng.binomial(totals - counts.sum(axis=1), 0.5)
        first = log_normalize(half, totals=half_totals, target_sum=target_sum)
        second = log_normalize(counts - half, totals=totals - half_totals, target_sum=target_sum)
        # A half without molecules of a target agrees with nothing.
        scores.append(np.nan_to_num(correlate(first, second), nan=0.0))
    r = np.clip(np.mean(scores, axis=0), 0, 1)
    return np.where(np.ptp(counts, axis=0) > 0, 2 * r / (1 + r), np.nan)


def ceiling(
    counts: ArrayLike, *, totals: ArrayLike | None = None, target_sum: float = 1e4, n_draws: int = 10, seed: int = 0
) -> np.ndarray:
    """Highest Pearson correlation that a perfect prediction can reach with counts this shallow: ``√reliability``.

    Parameters
    ----------
    counts, totals, target_sum, n_draws, seed
        As in :func:`reliability`.

    Returns
    -------
    One value per target, 0 to 1; NaN where the counts are constant over spots.

    Raises
    ------
    ValueError
        As in :func:`reliability`.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> counts = np.random.default_rng(0).poisson(3.0, (500, 1))  # nothing but noise
    >>> bool(h2e.metrics.ceiling(counts, totals=np.full(500, 5000))[0] < 0.3)
    True
    """
    return np.sqrt(reliability(counts, totals=totals, target_sum=target_sum, n_draws=n_draws, seed=seed))


def _whole_counts(counts: ArrayLike, totals: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Bring counts and totals into whole numbers; refuse what cannot be counts, and totals that do not hold them."""
    counts = matrix(counts, "counts")
    check_non_negative(counts, "counts")
    if (counts != np.round(counts)).any():
        msg = "counts must be whole numbers, got values with a fraction; pass raw counts, not normalized values."
        raise ValueError(msg)
    least = counts.sum(axis=1)
    totals = least if totals is None else np.ravel(totals).astype(np.float64)
    whole = np.isfinite(totals).all() and (totals == np.round(totals)).all()
    if totals.shape != least.shape or not whole or (totals < least).any():
        msg = f"totals must be {len(counts)} whole numbers, each at least the sum of the targets' counts of its spot."
        raise ValueError(msg)
    return counts.astype(np.int64), totals.astype(np.int64)
