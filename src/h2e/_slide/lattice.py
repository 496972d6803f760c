"""The lattice on which spots lie: its pitch and its kind, from positions that may be jittered or incomplete."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from h2e._warnings import refuse_if

VISIUM_UM, VISIUM_RADIUS = 100.0, (0.25, 0.35)
"""Pitch of Visium in µm, and the radius of its spots in pitches: they are 55 µm wide, and Space Ranger says 65."""

MISFIT = 0.2
"""Median distance in pitches from where the array puts the spots, from which on it is not theirs."""


def lattice(xy: np.ndarray) -> tuple[float, str]:
    """Pitch of the spots, in the unit of ``xy``, and ``"hexagonal"`` or ``"square"``.

    Jitter makes the distance to the *nearest* neighbour too small. The pitch is therefore the median length of all
    links that are within a quarter of it, which jitter shortens as often as it lengthens.

    Examples
    --------
    >>> lattice(10.0 * np.stack(np.meshgrid(np.arange(9), np.arange(7)), axis=-1).reshape(-1, 2))
    (10.0, 'square')
    """
    xy = np.unique(xy, axis=0)
    refuse_if(len(xy) < 2, f"a spot spacing needs at least 2 spots in different places, got {len(xy)}.")
    tree = KDTree(xy)
    # The six nearest others; the first pitch is one of their distances, so that at least one link is near it.
    lengths = tree.query(xy, k=range(2, min(7, len(xy)) + 1))[0]
    pitch = float(np.sort(lengths[:, 0])[(len(xy) - 1) // 2])
    for _ in range(20):
        pitch = float(np.median(lengths[np.abs(lengths - pitch) < pitch / 4]))
    # The next neighbours are √3 or √2 pitches away.
    sample = xy[:: max(1, len(xy) // 2000)]
    farther = tree.query(sample, k=range(2, min(20, len(xy)) + 1))[0] / pitch
    hexagonal, square = (((farther > low) & (farther < high)).sum() for low, high in ((1.6, 1.87), (1.28, 1.55)))
    return round(pitch, 9), "hexagonal" if hexagonal > square else "square"


def lattice_of_array(xy: np.ndarray, array: np.ndarray) -> tuple[float, str] | None:
    """The same from the array coordinates (column, row) of the spots; ``None`` if they lie on one line, or elsewhere.

    An affine map from array to position is fitted, so jitter averages out; where it misses most spots, the coordinates
    are of something else. Where only every second place of the array is used (Visium, Spatial Transcriptomics 2k), the
    neighbours are the diagonal ones. Spots without coordinates (NaN) are left out.

    Examples
    --------
    >>> array = np.array([[0, 0], [1, 0], [0, 1], [5, 3]])
    >>> lattice_of_array(10.0 * array, array)
    (10.0, 'square')
    """
    known = np.isfinite(array).all(axis=1)
    xy, design = xy[known], np.column_stack([array[known], np.ones(known.sum())])
    if np.linalg.matrix_rank(design) < 3:
        return None
    steps = np.linalg.lstsq(design, xy, rcond=None)[0]
    alternating = len(np.unique(array[known].sum(axis=1) % 2)) == 1
    near = np.linalg.norm(np.array([[1, 1], [1, -1]] if alternating else [[1, 0], [0, 1]]) @ steps[:2], axis=1).mean()
    if np.median(np.linalg.norm(xy - design @ steps, axis=1)) > MISFIT * near:
        return None
    along_row = np.linalg.norm(2 * steps[0])
    hexagonal = alternating and abs(along_row - near) < 0.15 * near
    pitch = (along_row + 2 * near) / 3 if hexagonal else near
    return round(float(pitch), 9), "hexagonal" if hexagonal else "square"


def pitch_of(whole: float, xy: np.ndarray, array: np.ndarray | None) -> tuple[float, float]:
    """Pitch from the array coordinates or from the lattice of all shapes, and the pitch that tells the scale.

    Either can be too large only: a few spots of an array may by chance share a parity, and scattered spots lack their
    neighbours. So the smaller holds where they disagree. A subset of the spots must not change the scale, which is
    that of all shapes unless these are scattered, too.
    """
    of_array = None if array is None else lattice_of_array(xy, array)
    if of_array is None or of_array[0] > 1.2 * whole:
        return whole, whole
    return of_array[0], of_array[0] if of_array[0] < 0.8 * whole else whole


def is_visium(xy: np.ndarray, array: np.ndarray | None, radius: float) -> bool:
    """Whether spots lie as those of Visium do: regular, hexagonal, and of its radius.

    A regular lattice has no two spots between 1.2 and 1.6 pitches apart, cells at irregular places have many. Of
    scattered spots the array coordinates tell it.

    Examples
    --------
    >>> xy, _ = hexagonal_grid((90, 90), 10.0)
    >>> is_visium(xy, None, 2.75), is_visium(xy, None, 5.0)
    (True, False)
    """
    if array is not None:
        pitch, kind = lattice_of_array(xy, array) or (np.inf, "")
        regular = kind == "hexagonal"
    else:
        pitch, kind = lattice(xy)
        tree = KDTree(xy)
        # Each pair counts twice, each spot as its own neighbour.
        same, near, wide = tree.count_neighbors(tree, pitch * np.array([0.0, 1.2, 1.6]))
        regular = kind == "hexagonal" and wide - near < 0.05 * (near - same) and near - same > 2 * len(xy)
    return regular and VISIUM_RADIUS[0] < radius / pitch < VISIUM_RADIUS[1]


def hexagonal_grid(shape: tuple[int, int], spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (x, y) of a hexagonal grid on an image, and their array coordinates (column, row).

    The grid goes through the centre of the image, so that one of half the spacing has all of its points, exactly.

    Examples
    --------
    >>> xy, array = hexagonal_grid((20, 40), 20.0)
    >>> xy[:, 0], array[:, 0]
    (array([ 0., 20., 40.]), array([-2,  0,  2]))
    """
    height, width = shape
    rise = np.sqrt(3) / 2 * spacing
    n_row, n_column = int(height / 2 / rise), int(width / spacing)
    row, column = np.meshgrid(np.arange(-n_row, n_row + 1), np.arange(-n_column, n_column + 1), indexing="ij")
    hexagonal = (row + column) % 2 == 0
    array = np.column_stack([column[hexagonal], row[hexagonal]])
    return array * [spacing / 2, rise] + [width / 2, height / 2], array
