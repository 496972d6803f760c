"""How smooth the prediction is on the tissue, beside the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from h2e._statistics import is_constant, morans_i

from ._checks import check_pair, check_whole, positions


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


def _nearest(xy: np.ndarray, n_neighbors: int) -> csr_array:
    """Which spots are the nearest to each, with all that are as far as the last: their order does not matter."""
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    tree = KDTree(xy)
    # The nearest of all is the spot itself.
    reach = tree.query(xy, [min(n_neighbors, len(xy) - 1) + 1])[0][:, 0]
    near = tree.query_ball_point(xy, reach * (1 + 1e-6))
    row, column = np.repeat(np.arange(len(xy)), [len(rows) for rows in near]), np.concatenate(near).astype(int)
    graph = csr_array((np.ones(len(row)), (row, column)), shape=(len(xy), len(xy)))
    graph.setdiag(0)
    return graph
