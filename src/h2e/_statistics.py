"""Statistics of arrays that several packages share: Pearson, Moran's I, log-normalization, means of slides."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

import numpy as np
from scipy import sparse

Matrix: TypeAlias = np.ndarray | sparse.sparray | sparse.spmatrix
"""Spots × genes, dense or sparse."""

ROUNDING = 1e-6
"""Values that differ by less than this share of the largest magnitude are one value written with rounding errors."""


def is_sparse(values: Matrix) -> TypeGuard[sparse.sparray]:
    """Whether the matrix is sparse, in words that type checkers follow."""
    return sparse.issparse(values)


def is_constant(values: np.ndarray) -> np.ndarray:
    """Whether each column of (…, n, columns) holds one value up to rounding, relative to its magnitude.

    Examples
    --------
    >>> is_constant(np.array([[1.0, 0.1], [2.0, 0.1 + 1e-9]]))
    array([False,  True])
    """
    return np.ptp(values, axis=-2) <= ROUNDING * np.abs(values).max(axis=-2)


def unit_deviations(values: np.ndarray) -> np.ndarray:
    """Deviations of each column of (…, n, columns) from its mean, scaled to length 1; 0 where the column is constant.

    Examples
    --------
    >>> unit_deviations(np.array([[1.0, 7.0], [3.0, 7.0]])).round(2)
    array([[-0.71,  0.  ],
           [ 0.71,  0.  ]])
    """
    values = np.asarray(values, np.float64)
    # Values are scaled first, so that tiny or huge units neither underflow nor overflow in the squares.
    top = np.abs(values).max(axis=-2, keepdims=True)
    scaled = values / np.where(top > 0, top, 1.0)
    deviation = scaled - scaled.mean(axis=-2, keepdims=True)
    length = np.sqrt((deviation**2).sum(axis=-2, keepdims=True))
    return np.divide(deviation, length, out=np.zeros_like(deviation), where=~is_constant(scaled)[..., None, :])


def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column of (…, n, columns); 0 where ``a`` is constant, NaN where ``b`` is.

    A constant prediction says nothing, which is a score; a constant truth leaves nothing to score.

    Examples
    --------
    >>> a, b = np.array([[1.0, 5.0, 2.0], [2.0, 5.0, 3.0]]), np.array([[0.0, 1.0, 4.0], [9.0, 3.0, 4.0]])
    >>> correlate(a, b)
    array([ 1.,  0., nan])
    """
    r = (unit_deviations(a) * unit_deviations(b)).sum(axis=-2)
    return np.where(is_constant(b), np.nan, np.clip(r, -1.0, 1.0))


def morans_i(values: Matrix, neighbours: sparse.sparray | sparse.spmatrix) -> np.ndarray:
    """Moran's I of each column over a graph of neighbours, whose rows are scaled to sum 1; 0 where it is constant.

    Examples
    --------
    >>> morans_i(np.array([[0.0, 7.0], [1.0, 7.0]]), sparse.csr_array([[0, 1], [1, 0]]))
    array([-1.,  0.])
    """
    weights = sparse.csr_array(neighbours, dtype=np.float64)
    total = weights.sum(axis=1)
    weights = sparse.diags_array(1 / np.where(total > 0, total, 1.0)) @ weights
    columns, parts = values if isinstance(values, np.ndarray) else sparse.csc_array(values), []
    # A whole transcriptome would not fit as a dense array.
    for start in range(0, columns.shape[1], 512):
        part = columns[:, start : start + 512]
        z = unit_deviations(part if isinstance(part, np.ndarray) else part.toarray())
        parts.append((z * (weights @ z)).sum(axis=0))
    return np.concatenate(parts) * len(total) / max((total > 0).sum(), 1)


def log_normalize(counts: Matrix, *, totals: np.ndarray | None = None, target_sum: float = 1e4) -> Matrix:
    """Take ``log1p`` of counts per ``target_sum``; spots without counts stay 0; sparse stays sparse (CSR); ``float64``.

    ``totals`` are the counts of each spot over all genes, by default over those given.

    Examples
    --------
    >>> log_normalize(np.array([[1, 3], [0, 0]]), target_sum=4).round(2)
    array([[0.69, 1.39],
           [0.  , 0.  ]])
    """
    totals = np.asarray(counts.sum(axis=1) if totals is None else totals, dtype=np.float64).reshape(-1, 1)
    scale = np.divide(target_sum, totals, out=np.zeros_like(totals), where=totals > 0)
    if isinstance(counts, np.ndarray):
        return np.log1p(counts * scale)
    # A copy: the input is not touched.
    result = counts.tocsr().astype(np.float64)
    result.data = np.log1p(result.data * np.repeat(scale.ravel(), np.diff(result.indptr)))
    return result


def group_mean(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean over groups of the mean of their spots, per target.

    Examples
    --------
    >>> group_mean(np.array([[1.0], [3.0], [5.0]]), np.array(list("AAB")))
    array([3.5])
    """
    return np.mean([y[groups == name].mean(axis=0, dtype=np.float64) for name in np.unique(groups)], axis=0)


def half_widths(residuals: np.ndarray, groups: np.ndarray, *, level: float) -> np.ndarray:
    """Half widths of intervals for a new group, from residuals (n, targets) of groups that were left out.

    Each group has the width that holds ``level`` of its own residuals; of these widths the ``level`` quantile is taken,
    with the (k + 1) / k of split-conformal prediction for k groups. So at least ``level`` of the values are inside in at
    least ``level`` of new groups, if groups are alike; with fewer than ``level / (1 - level)`` of them the quantile is
    the largest width, and nothing is guaranteed. Values within groups are the two layers of Dunn, Wasserman and Ramdas
    (2023).

    Examples
    --------
    >>> half_widths(np.arange(-50.0, 50.0)[:, None], np.repeat("A", 100), level=0.8)
    array([40.])
    """

    def quantile(values: np.ndarray) -> np.ndarray:
        wanted = min(level * (1 + 1 / len(values)), 1.0) - 1e-12
        return np.quantile(values, wanted, axis=0, method="inverted_cdf")

    return quantile(np.stack([quantile(np.abs(residuals[groups == name])) for name in np.unique(groups)]))


def center_by_slide(values: np.ndarray, slides: np.ndarray) -> np.ndarray:
    """Subtract from (…, n, targets) the mean of each slide; ``float64``.

    Examples
    --------
    >>> center_by_slide(np.array([[1.0], [3.0], [8.0]]), np.array(list("AAB"))).ravel()
    array([-1.,  1.,  0.])
    """
    out = np.array(values, np.float64)
    for slide in np.unique(slides):
        rows = slides == slide
        out[..., rows, :] -= out[..., rows, :].mean(axis=-2, keepdims=True)
    return out
