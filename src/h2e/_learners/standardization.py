"""Features by the mean and the standard deviation of the training spots, clipped; and predictions shrunk to the mean.

A slide of another stain or with another background must not drive a model to values that it never saw.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from h2e._warnings import refuse

CLIP = 4.0
"""Standard deviations beyond which a feature says no more."""

BLOCK = 4096
"""Spots that are standardized at a time."""

N_FOLDS = 6
"""At most so many inner folds; beyond, groups are merged."""

N_BLOCKS = 4
"""Of a single group, which has no other to be left out, so many blocks of rows are: they tell signal from noise."""

N_ERRORS = (3, 5)
"""Standard errors by which predictions must be better than chance to count at all, and to count in full: what is found
on few groups is right more often than least squares on them say, which would cost skill on real slides."""


def mean_and_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; 1 where it is constant."""
    center = x.mean(0, dtype=np.float64)
    # In blocks, since deviations of all spots in double precision would be several times as large as the features.
    squares = sum(((x[start : start + BLOCK] - center) ** 2).sum(0) for start in range(0, len(x), BLOCK))
    scale = np.sqrt(squares / len(x))
    return center, np.where(scale > 1e-6 * (1 + np.abs(center)), scale, 1.0)


def standardize(x: np.ndarray, center: np.ndarray, scale: np.ndarray, *, clip: float = CLIP) -> np.ndarray:
    """Center, scale and clip."""
    if x.ndim != 2 or x.shape[1] != len(center):
        refuse(f"the model was trained on {len(center)} features per spot, got an array of shape {x.shape}.")
    z = x - center
    z /= scale
    return np.clip(z, -clip, clip, out=z)


LEAST = 0.05
"""The factor of what is no better than chance: too little to cost skill, and enough for a correlation to be seen."""


def inner_folds(groups: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Positions of the rows to train on, and for each group that is left out those of its rows.

    Examples
    --------
    >>> [(inner.tolist(), [rows.tolist() for rows in outer]) for inner, outer in inner_folds(np.array(list("ABB")))]
    [([0], [[1, 2]]), ([1, 2], [[0]])]
    """
    from sklearn.model_selection import GroupKFold

    if len(np.unique(groups)) == 1:
        groups = np.arange(len(groups)) * N_BLOCKS // len(groups)
    n_folds = min(N_FOLDS, len(np.unique(groups)))
    for inner, outer in GroupKFold(n_folds).split(groups, groups=groups) if n_folds > 1 else ():
        yield inner, [outer[groups[outer] == name] for name in np.unique(groups[outer])]


def shrinkage(products: np.ndarray, squares: np.ndarray) -> float:
    """Factor of at most 1 for deviations from the mean, the same for all targets, so that correlations stay.

    Parameters
    ----------
    products
        Sums of the products of predictions and truth of spots left out, both as deviations from the training mean; the
        truth of each target has unit variance.
    squares
        Sums of the squares of these predictions, which are the variances of the products if there is nothing to learn.

    Examples
    --------
    >>> [shrinkage(np.array([z * 10.0]), np.array([100.0])) for z in (1, 4, 6)]
    [0.05, 0.5, 1.0]
    """
    total, (low, high) = float(np.sum(squares)), N_ERRORS
    errors = float(np.sum(products)) / total**0.5 if total > 0 else high
    return min(max((errors - low) / (high - low), LEAST), 1.0)
