"""Maps of all slides beside each other, which is how a cohort is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from h2e._slide.lattice import lattice
from h2e.pl._discs import add_discs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection

LETTERS = 60
"""In a line under a map."""

GAP = 3.0
"""Pitches between two slides."""


def side_by_side(xy: np.ndarray, slides: np.ndarray) -> tuple[np.ndarray, list[str], list[float]]:
    """Positions in pitches with the slides in a row; the slides' names, and where the middle of each is."""
    placed, names, middle, left = np.empty_like(xy), np.unique(slides).tolist(), [], 0.0
    for name in names:
        rows = slides == name
        pitch = lattice(xy[rows])[0] if len(np.unique(xy[rows], axis=0)) > 1 else 1.0
        unit = xy[rows] / pitch
        placed[rows] = unit - unit.min(axis=0) + (left, 0)
        width = float(np.ptp(unit[:, 0]))
        middle.append(left + width / 2)
        left += width + GAP
    return placed, names, middle


def name_slides(ax: Axes, middle: list[float], names: list[str]) -> None:
    """Write the names of the slides under a map, slanted where they would run into each other."""
    if sum(map(len, names)) > LETTERS:
        ax.set_xticks(middle, names, rotation=30, ha="right", rotation_mode="anchor", fontsize="small")
    else:
        ax.set_xticks(middle, names)


def draw_map(ax: Axes, xy: np.ndarray, values: np.ndarray, title: str) -> EllipseCollection:
    """Draw spots as discs of one pitch at positions in pitches, one artist for all; y points down, NaN is gray."""
    from matplotlib import colormaps

    discs = add_discs(ax, xy, 0.95, rasterized=True)
    discs.set_cmap(colormaps["viridis"].with_extremes(bad="0.85"))
    discs.set_array(np.ma.masked_invalid(values))
    ax.set(xlim=(-1, xy[:, 0].max() + 1), ylim=(xy[:, 1].max() + 1, -1), aspect="equal", yticks=[])
    ax.set_title(title)
    ax.grid(visible=False)
    ax.figure.colorbar(discs, ax=ax, shrink=0.8)
    return discs
