"""Statistics of arrays that several packages share: what is constant, what varies within slides, Pearson's correlation."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6
"""Values that differ by less than this share of the largest magnitude are one value written with rounding errors."""


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
