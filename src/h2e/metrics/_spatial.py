"""How smooth the prediction is on the tissue, beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._checks import check_finite, check_pair, is_constant, matrix, ratio

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def moran_gap(prediction: ArrayLike, truth: ArrayLike, xy: ArrayLike, *, n_neighbors: int = 6) -> np.ndarray:
    """Moran's I of the prediction minus that of the truth, per target.

    Above 0 the map is smoother than the tissue: accuracy may come from averaging over neighbours.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.
    xy
        Coordinates of the spots, in any unit.
    n_neighbors
        Nearest spots that count as neighbours, and those that are as far as the last of them.

    Returns
    -------
    One value per target; a constant prediction has an I of 0; NaN where the truth is constant.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> xy = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    >>> h2e.metrics.moran_gap([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0], xy, n_neighbors=1)
    array([1.6])
    """
    prediction, truth = check_pair(prediction, truth)
    return morans_i(prediction, xy, n_neighbors) - np.where(
        is_constant(truth), np.nan, morans_i(truth, xy, n_neighbors)
    )


def morans_i(values: np.ndarray, xy: ArrayLike, n_neighbors: int) -> np.ndarray:
    """Moran's I of each target over nearest neighbours of equal weight; 0 for a constant.

    Spots as far as the last of the nearest are neighbours too, so that the order of the spots does not matter on a lattice.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    values, xy = matrix(values, "values"), check_xy(xy, len(values))
    tree = KDTree(xy)
    reach = tree.query(xy, [min(n_neighbors, len(xy) - 1) + 1])[0][:, 0]  # the nearest is the spot itself
    near = tree.query_ball_point(xy, reach * (1 + 1e-6))
    row, column = np.repeat(np.arange(len(xy)), [len(some) for some in near]), np.concatenate(near).astype(int)
    other = row != column
    weight = 1 / np.bincount(row[other], minlength=len(xy))[row[other]]
    z = values - values.mean(axis=0)
    lag = csr_array((weight, (row[other], column[other])), shape=(len(xy), len(xy))) @ z
    return ratio((z * lag).sum(axis=0), (z**2).sum(axis=0), ~is_constant(values), otherwise=0.0)


def check_xy(xy: ArrayLike, n: int) -> np.ndarray:
    """Coordinates as float64 (spots, 2)."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.shape != (n, 2):
        msg = f"xy has shape {xy.shape}; pass the coordinates of the {n} spots, ({n}, 2)."
        raise ValueError(msg)
    check_finite(xy, "xy")
    return xy
