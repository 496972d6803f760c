"""Features by the mean and the standard deviation of the training spots, clipped.

A slide of another stain or with another background must not drive a model to values that it never saw.
"""

from __future__ import annotations

import numpy as np

CLIP = 4.0
"""Standard deviations beyond which a feature says no more."""


COLUMNS = 512
"""Features whose standard deviations are computed at a time."""


def mean_and_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; 1 where it is constant."""
    # The deviations are in memory in double precision, so of many columns some at a time.
    parts = [x[:, start : start + COLUMNS] for start in range(0, x.shape[1], COLUMNS)] or [x]
    center = x.mean(0, dtype=np.float64)
    scale = np.concatenate([part.std(0, dtype=np.float64) for part in parts])
    return center, np.where(scale > 1e-6 * (1 + np.abs(center)), scale, 1.0)


def standardize(x: np.ndarray, center: np.ndarray, scale: np.ndarray, *, clip: float = CLIP) -> np.ndarray:
    """Center, scale and clip."""
    if x.ndim != 2 or x.shape[1] != len(center):
        msg = f"the model was trained on {len(center)} features per spot, got an array of shape {x.shape}."
        raise ValueError(msg)
    z = x - center
    z /= scale
    return np.clip(z, -clip, clip, out=z)
