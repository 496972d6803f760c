"""Agreement beyond correlation: detection, shared information, structural similarity, shape, smoothness."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from h2e._statistics import is_constant, morans_i

from ._checks import check_non_negative, check_pair, check_whole, generator, positions, ratio
from ._correlation import ranks


def auroc_detect(prediction: ArrayLike, counts: ArrayLike) -> np.ndarray:
    """Area under the ROC curve of the prediction for "at least one count", per target.

    Parameters
    ----------
    prediction, counts
        Predicted values and raw counts of the same spots, spots × targets; finite, the counts not negative.

    Returns
    -------
    One value per target: 0.5 for a constant prediction, NaN where the target is detected in all spots or in none.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or counts are negative.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.auroc_detect([0.1, 0.2, 0.9, 0.3], [0, 0, 5, 1])
    array([1.])
    """
    prediction, counts = check_pair(prediction, counts)
    check_non_negative(counts, "counts")
    detected = counts > 0
    n, positive = len(counts), detected.sum(axis=0)
    wins = (ranks(prediction) * detected).sum(axis=0) - positive * (positive + 1) / 2
    pairs = positive * (n - positive)
    return ratio(wins, pairs, pairs > 0, otherwise=np.nan)


def nmi(prediction: ArrayLike, truth: ArrayLike, *, n_permutations: int = 20, seed: int = 0) -> np.ndarray:
    """Normalized mutual information of each target over spots, minus its mean over permutations of the spots.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.
    n_permutations
        Number of permutations whose mean is subtracted.
    seed
        Seed of the permutations.

    Returns
    -------
    One value per target: 0 for a constant prediction, NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> x = np.arange(100.0)
    >>> h2e.metrics.nmi(x, x).round(1)  # 1 minus the chance value of 10 × 10 bins
    array([0.8])
    """
    prediction, truth = check_pair(prediction, truth)
    check_whole(n_permutations, "n_permutations")
    rng = generator(seed)
    n_bins = max(10, int(np.cbrt(len(truth)) + 1e-9))
    a, b = _bins(prediction, n_bins), _bins(truth, n_bins)
    entropy = np.sqrt(_entropy(a, n_bins) * _entropy(b, n_bins))
    chance = [_mutual_information(a[rng.permutation(len(a))], b, n_bins) for _ in range(n_permutations)]
    gain = _mutual_information(a, b, n_bins) - np.mean(chance, axis=0)
    return np.where(is_constant(truth), np.nan, ratio(gain, entropy, entropy > 0, otherwise=0.0))


def ssim_global(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """One structural similarity over all spots of each target (not windowed), each map scaled to its own maximum.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite, the truth not negative.

    Returns
    -------
    One value per target; NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or the truth is negative.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.ssim_global([0.0, 1.0, 2.0], [0.0, 5.0, 10.0])  # the unit does not matter
    array([1.])
    """
    prediction, truth = check_pair(prediction, truth)
    check_non_negative(truth, "truth")
    a, b = _levels(np.clip(prediction, 0, None)), _levels(truth)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    cov = ((a - mean_a) * (b - mean_b)).mean(axis=0)
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (a.var(axis=0) + b.var(axis=0) + c2)
    return np.where(is_constant(truth), np.nan, value)


def js(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Jensen-Shannon divergence (base 2) of each target's distribution over spots; 0 identical, 1 disjoint.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite, the truth not negative.

    Returns
    -------
    One value per target; NaN where the truth is 0 everywhere.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or the truth is negative.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.js([1.0, 0.0], [0.0, 3.0])
    array([1.])
    >>> h2e.metrics.js([1.0, 2.0], [10.0, 20.0])
    array([0.])
    """
    from scipy.special import rel_entr

    prediction, truth = check_pair(prediction, truth)
    check_non_negative(truth, "truth")
    a, total = np.clip(prediction, 0, None), truth.sum(axis=0)
    a = np.where(a.sum(axis=0) > 0, a, 1.0)
    a, b = a / a.sum(axis=0), truth / np.where(total > 0, total, 1.0)
    middle = (a + b) / 2
    value = (rel_entr(a, middle) + rel_entr(b, middle)).sum(axis=0) / (2 * np.log(2))
    return np.where(total > 0, np.clip(value, 0.0, 1.0), np.nan)


def moran_gap(prediction: ArrayLike, truth: ArrayLike, xy: ArrayLike, *, n_neighbors: int = 6) -> np.ndarray:
    """Moran's I of the prediction minus that of the truth, per target: above 0 the map is smoother than the tissue.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.
    xy
        Coordinates of the spots, in any unit.
    n_neighbors
        Nearest spots that count as neighbours, and those that are as far as the last of them.

    Returns
    -------
    One value per target: minus the truth's for a constant prediction, whose I is 0; NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or ``n_neighbors`` is not a whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> xy = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    >>> h2e.metrics.moran_gap([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0], xy, n_neighbors=1)
    array([1.6])
    """
    check_whole(n_neighbors, "n_neighbors")
    neighbours = _nearest(positions(xy, truth), n_neighbors)
    prediction, truth = check_pair(prediction, truth)
    return morans_i(prediction, neighbours) - np.where(is_constant(truth), np.nan, morans_i(truth, neighbours))


def _levels(values: np.ndarray) -> np.ndarray:
    """Scale each target to its maximum and round to 256 levels."""
    top = values.max(axis=0)
    return np.round(255 * values / np.where(top > 0, top, 1.0))


def _bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin of equal frequency of each value within its target; equal values share a bin."""
    return ((ranks(values) - 0.5) / len(values) * n_bins).astype(np.int64)


def _mutual_information(a: np.ndarray, b: np.ndarray, n_bins: int) -> np.ndarray:
    """Mutual information of the bins of each target, in nats: H(a) + H(b) − H(a, b)."""
    return _entropy(a, n_bins) + _entropy(b, n_bins) - _entropy(a * n_bins + b, n_bins**2)


def _entropy(code: np.ndarray, n_codes: int) -> np.ndarray:
    """Entropy of the codes of each target, in nats."""
    n, n_targets = code.shape
    share = np.bincount((code + n_codes * np.arange(n_targets)).ravel(), minlength=n_codes * n_targets) / n
    return -(share * np.log(np.where(share > 0, share, 1.0))).reshape(n_targets, n_codes).sum(axis=1)


def _nearest(xy: np.ndarray, n_neighbors: int) -> sparse.csr_array:
    """Graph of the nearest spots of each, with all that are as far as the last: their order does not matter."""
    from scipy.spatial import KDTree

    tree = KDTree(xy)
    # The nearest of all is the spot itself.
    reach = tree.query(xy, [min(n_neighbors, len(xy) - 1) + 1])[0][:, 0]
    near = tree.query_ball_point(xy, reach * (1 + 1e-6))
    row, column = np.repeat(np.arange(len(xy)), [len(rows) for rows in near]), np.concatenate(near).astype(int)
    graph = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(xy), len(xy)))
    graph.setdiag(0)
    return graph
