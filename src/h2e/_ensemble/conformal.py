"""How wide intervals must be, from held-out errors: split-conformal prediction in which every group weighs the same."""

from __future__ import annotations

import numpy as np


def half_widths(residuals: np.ndarray, groups: np.ndarray, *, level: float) -> np.ndarray:
    """Quantile of the absolute residuals (n, targets), every group weighing the same, (targets,).

    The quantile is ``level`` times the (n + 1) / n of split-conformal prediction; where that is more than 1, the width
    is the largest residual.

    Examples
    --------
    >>> half_widths(np.arange(-50.0, 50.0)[:, None], np.repeat("A", 100), level=0.8)
    array([40.])
    """
    _, code, size = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = min(level * (1 + 1 / len(residuals)), 1.0) - 1e-12
    return np.quantile(np.abs(residuals), wanted, axis=0, weights=1 / size[code], method="inverted_cdf")
