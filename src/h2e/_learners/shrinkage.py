"""How far predictions are drawn towards the training mean: as far as those of left-out groups ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

N_FOLDS = 6
"""At most so many inner folds; beyond, groups are merged."""

N_BLOCKS = 4
"""Of a single group, which has no other to be left out, so many blocks of rows are: they tell signal from noise."""

MARGIN = 3.0
"""So many times what least squares on inner folds ask for is kept: their models saw fewer groups, and an average of
several learners varies less than each of them. Measured: less costs skill on real slides."""

N_ERRORS = 2
"""Standard errors by which predictions must be better than chance, about those of a pair of columns for each target."""


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
    >>> shrinkage(np.array([30.0, 10.0]), np.array([40.0, 60.0])), shrinkage(np.array([5.0]), np.array([9.0]))
    (0.6, 0.0)
    """
    total = float(np.sum(squares))
    sure = float(np.sum(products)) - N_ERRORS * total**0.5
    return min(max(MARGIN * sure / total, 0.0), 1.0) if total > 0 else 1.0
