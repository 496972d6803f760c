"""Spots as discs of their real size, or squares, on Axes: one artist however many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection

SQUARE = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]


def add_discs(
    ax: Axes, xy: np.ndarray, diameter: float, *, angle: float | None = None, **style: Any
) -> EllipseCollection:
    """Draw discs in the unit of the data; if they have an angle, squares of the same area, turned by so many degrees."""
    from matplotlib.collections import EllipseCollection
    from matplotlib.path import Path

    width = diameter if angle is None else diameter * np.sqrt(np.pi) / 2
    style = {"linewidths": 0} | style
    discs = EllipseCollection(
        [width], [width], [angle or 0], units="xy", offsets=xy, offset_transform=ax.transData, **style
    )
    if angle is not None:
        discs.set_paths([Path(SQUARE, closed=True)])
        # Else the slide shines through between neighbours.
        discs.set_antialiased(False)
    ax.add_collection(discs, autolim=False)
    return discs
