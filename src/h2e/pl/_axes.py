"""Axes to draw on: those that the user gave, or those of a new figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def given_axes(ax: Axes | Sequence[Axes], n: int, what: str) -> np.ndarray:
    """The Axes that were given, in one row, if they are as many as there is to draw."""
    given = list(ax.values()) if isinstance(ax, Mapping) else ax  # as plt.subplot_mosaic gives them
    axes = np.ravel(np.asarray(given, dtype=object))
    if len(axes) != n:
        msg = f"ax has {len(axes)} Axes, this plot draws on {n}: {what}."
        raise ValueError(msg)
    return axes


def one_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The Axes that were given, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]
