"""What varies within slides: a slide's level is not what a map shows."""

from __future__ import annotations

import numpy as np


def center_by_slide(values: np.ndarray, slides: np.ndarray) -> np.ndarray:
    """What is left of (…, n, targets) after the mean of each slide is taken off, ``float64``.

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
