"""How much of a square is tissue."""

from __future__ import annotations

import numpy as np


def fraction_at(mask: np.ndarray, scale: float, xy: np.ndarray, side_px: float) -> np.ndarray:
    """Share of tissue in the square of ``side_px`` around each position, ``float32``; beside the image there is none.

    ``xy`` and ``side_px`` are in pixels of level 0, ``scale`` of which make a pixel of the mask. Exact for any
    position: the integral of a mask is bilinear inside each of its pixels.

    Examples
    --------
    >>> mask = np.array([[True, False], [True, False]])
    >>> fraction_at(mask, 10.0, np.array([[10.0, 10.0], [5.0, 5.0], [0.0, 10.0]]), 10.0)
    array([0.5, 1. , 0.5], dtype=float32)
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=float).cumsum(axis=1)
    half = side_px / 2

    def up_to(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Tissue above and left of a point."""
        x, y = np.clip(x / scale, 0, mask.shape[1]), np.clip(y / scale, 0, mask.shape[0])
        i, j = np.minimum(x.astype(int), mask.shape[1] - 1), np.minimum(y.astype(int), mask.shape[0] - 1)
        u, v = x - i, y - j
        top = integral[j, i] * (1 - u) + integral[j, i + 1] * u
        bottom = integral[j + 1, i] * (1 - u) + integral[j + 1, i + 1] * u
        return top * (1 - v) + bottom * v

    x0, x1, y0, y1 = xy[:, 0] - half, xy[:, 0] + half, xy[:, 1] - half, xy[:, 1] + half
    tissue = up_to(x1, y1) - up_to(x0, y1) - up_to(x1, y0) + up_to(x0, y0)
    share = np.clip(tissue * (scale / side_px) ** 2, 0, 1)
    # Rounding of the sums must not make a spot valid.
    return np.where(share < 1e-6, 0, share).astype(np.float32)
