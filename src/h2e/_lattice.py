"""The lattice on which spots lie: its pitch and its kind, from positions that may be jittered or incomplete."""

from __future__ import annotations

import numpy as np

PITCH_UM = {"hexagonal": 100.0, "square": 200.0}
"""Pitch of the technology in µm: Visium (hexagonal), Spatial Transcriptomics version 1 (square)."""


def lattice(xy: np.ndarray, array_xy: np.ndarray | None = None) -> tuple[float, str]:
    """Pitch of the spots, in the unit of ``xy``, and ``"hexagonal"`` or ``"square"``.

    Jitter makes the distance to the *nearest* neighbour too small. Where the array coordinates are known, the spots
    are put back on their lattice first; else the pitch is the median length of all links that are within a quarter
    of it, which jitter shortens as often as it lengthens.

    Examples
    --------
    >>> square = np.stack(np.meshgrid(np.arange(9), np.arange(7)), axis=-1).reshape(-1, 2)
    >>> lattice(10.0 * square, square)
    (10.0, 'square')
    """
    if len(xy) < 2:
        msg = f"a spot spacing needs at least 2 spots, there are {len(xy)}; pass um_per_px."
        raise ValueError(msg)
    if array_xy is not None and np.linalg.matrix_rank(array_xy - array_xy.mean(axis=0)) == 2:
        design = np.column_stack([array_xy, np.ones(len(array_xy))])
        xy = design @ np.linalg.lstsq(design, xy, rcond=None)[0]
    lengths = _neighbour_distances(xy)
    pitch = float(np.median(lengths[:, 0]))
    for _ in range(20):
        links = np.abs(lengths - pitch) < pitch / 4
        new = float(np.median(lengths[links]))
        if np.isclose(new, pitch, rtol=1e-9):
            break
        pitch = new
    inner = np.sort(links.sum(axis=1))[len(links) // 2 :]  # spots at the rim have fewer neighbours
    return round(pitch, 9), "hexagonal" if np.median(inner) > 4.5 else "square"


def _neighbour_distances(xy: np.ndarray, k: int = 6) -> np.ndarray:
    """Distances to the ``k`` nearest other spots, nearest first; positions that coincide are one."""
    from scipy.spatial import KDTree

    xy = np.unique(xy, axis=0)
    return KDTree(xy).query(xy, k=range(2, min(k + 1, len(xy)) + 1))[0]
