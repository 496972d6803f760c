"""How well could any prediction correlate with counts this shallow?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from h2e._statistics import correlate, log_normalize

from ._checks import check_between, check_whole, generator, whole_counts
from ._depth import common_depth


def reliability(
    counts: ArrayLike,
    *,
    totals: ArrayLike | None = None,
    equal_depth: bool = True,
    target_sum: float = 1e4,
    n_draws: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Share of each target's variance over the spots of a slide that is not counting noise.

    The molecules of a spot are split at random into two halves, the halves are log-normalized, and their Pearson
    correlation ``r`` is stepped up to the full depth by ``2r / (1 + |r|)`` (Spearman and Brown). Spots are thinned to one
    depth before, as by :func:`pearson_equal_depth`: halves of deep spots agree also where all spots have the same
    share of a target, since logarithms of many counts vary less.

    Parameters
    ----------
    counts
        Raw counts of one slide, spots × targets, dense or sparse; whole numbers.
    totals
        Counts of each spot over *all* genes; default: over the targets.
    equal_depth
        Whether spots are thinned to one depth; if not, differences in depth count as reliable.
    target_sum
        Depth that spots are scaled to before the logarithm.
    n_draws
        Number of random halvings that are averaged.
    seed
        Seed of the halvings.

    Returns
    -------
    One value per target, at most 1; NaN where the counts are constant over spots. Of targets that are nothing but noise
    it is below 0 as often as above, so that the mean over targets is right.

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
    counts, totals = whole_counts(counts, totals)
    rng = generator(seed)
    deep, depth = common_depth(totals) if equal_depth else (slice(None), None)
    scores = []
    for _ in range(n_draws):
        halves = _halves(counts[deep], totals[deep], depth, rng)
        first, second = (log_normalize(part, totals=n, target_sum=target_sum) for part, n in halves)
        # A half without molecules of a target agrees with nothing.
        scores.append(np.nan_to_num(correlate(first, second), nan=0.0))
    r = np.mean(scores, axis=0)
    return np.where(np.ptp(counts, axis=0) > 0, 2 * r / (1 + np.abs(r)), np.nan)


def ceiling(
    counts: ArrayLike,
    *,
    totals: ArrayLike | None = None,
    equal_depth: bool = True,
    target_sum: float = 1e4,
    n_draws: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Highest Pearson correlation that a perfect prediction can reach with counts this shallow: ``√reliability``, with its sign.

    Compare it with :func:`pearson_equal_depth`; with :func:`pearson` that of ``equal_depth=False``.

    Parameters
    ----------
    counts, totals, equal_depth, target_sum, n_draws, seed
        As in :func:`reliability`.

    Returns
    -------
    One value per target, at most 1; NaN where the counts are constant over spots, below 0 by chance as the reliability.

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
    of_targets = reliability(
        counts, totals=totals, equal_depth=equal_depth, target_sum=target_sum, n_draws=n_draws, seed=seed
    )
    return np.sign(of_targets) * np.sqrt(np.abs(of_targets))


def _halves(
    counts: np.ndarray, totals: np.ndarray, depth: int | None, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two halves of the molecules of each spot, of all of them or of so many, each with its totals."""
    if depth is None:
        half = rng.binomial(counts, 0.5)
        of_half = half.sum(axis=1) + rng.binomial(totals - counts.sum(axis=1), 0.5)
    else:
        counts = rng.hypergeometric(counts, totals[:, None] - counts, depth)
        totals, of_half = np.full(len(counts), depth), np.full(len(counts), depth // 2)
        half = rng.hypergeometric(counts, depth - counts, depth // 2)
    return [(half, of_half), (counts - half, totals - of_half)]
