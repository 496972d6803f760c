"""Spots as discs or squares and their colours, one artist however many; on one slide, or on slides in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._slide.lattice import lattice
from h2e.pl._maps import Map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Colormap

MISSING = "#87d7ff"
"""Colour of spots without a value, which neither a pale tissue nor the default colours have."""

TOUCHING = 0.97
"""Diameter of a disc, in pitches, by default: neighbours nearly touch."""

LINE = 40
"""Letters of a title that fit above a map; longer ones are written smaller."""

SQUARE = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]

LETTERS = 60
"""In a line under a map."""

GAP = 3.0
"""Pitches between two slides."""

Limits = tuple[float, float]


def add_discs(
    ax: Axes, xy: np.ndarray, diameter: float, *, angle: float | None = None, **style: Any
) -> EllipseCollection:
    """Draw discs in the unit of the data; with an angle in degrees, turned squares of the same area."""
    from matplotlib.collections import EllipseCollection
    from matplotlib.path import Path

    width = diameter if angle is None else diameter * np.sqrt(np.pi) / 2
    style = {"linewidths": 0, "offsets": xy, "offset_transform": ax.transData} | style
    discs = EllipseCollection([width], [width], [angle or 0], units="xy", **style)
    if angle is not None:
        discs.set_paths([Path(SQUARE, closed=True)])
        # Else the slide shines through between neighbours.
        discs.set_antialiased(False)
    ax.add_collection(discs, autolim=False)
    return discs


def limits_of(values: Sequence[np.ndarray]) -> Limits:
    """From the lower of the first percentiles to the higher of the 99th; a single value stands in the middle."""
    finite = [one[np.isfinite(one)] for one in values]
    ends = np.array([np.percentile(one, (1, 99)) for one in finite if len(one)] or [(0.0, 1.0)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_dots(
    axis: Axes, one: Map, limits: Limits | None, cmap: str | Colormap, size: float | None
) -> EllipseCollection:
    """Draw the spots without a value, then all spots with their values; one artist each, however many."""
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    missing, angle = ~np.isfinite(one.values), one.slide.angle_deg
    as_is = size is not None or angle is not None
    diameter = 2 * one.slide.radius_px * (size or 1) if as_is else TOUCHING * one.slide.spacing_px
    add_discs(axis, one.slide.xy[missing], diameter, angle=angle, facecolors=MISSING)
    dots = add_discs(axis, one.slide.xy, diameter, angle=angle)
    # A colour, not transparent: where all spots are equally opaque, a PDF holds their outline once, not once for each.
    dots.set_cmap(colormaps.get_cmap(cmap).with_extremes(bad=MISSING))
    dots.set_array(np.ma.masked_invalid(one.values))
    dots.set_clim(limits or limits_of([one.values]))
    if one.alpha is not None:
        dots.set_alpha(one.alpha.tolist())
    for place, draw_line in zip(one.seam, (axis.axvline, axis.axhline), strict=False):
        line = draw_line(place, color="black", linewidth=1, linestyle=(0, (4, 2)), zorder=3)
        line.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axis.set_title(one.title, fontsize="medium" if max(map(len, one.title.split("\n"))) <= LINE else "small")
    return dots


def draw_colorbar(dots: EllipseCollection, axes: Sequence[Axes], maps: Sequence[Map], label: str) -> None:
    """Draw one colour bar for maps that share their colours."""
    from matplotlib.cm import ScalarMappable

    values = np.concatenate([one.values[np.isfinite(one.values)] for one in maps])
    low, high = dots.get_clim()
    ends = (bool((values < low).any()), bool((values > high).any()))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(ends, "neither")
    # The colours of the spots without their opacity.
    colours = ScalarMappable(dots.norm, dots.cmap)
    bar = axes[0].figure.colorbar(colours, ax=axes, extend=extend, shrink=0.7, aspect=18, pad=0.02)
    bar.set_label(label, fontsize="small")
    bar.outline.set_visible(False)


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
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor", "fontsize": "small"}
    ax.set_xticks(middle, names, **(slanted if sum(map(len, names)) > LETTERS else {}))


def draw_map(ax: Axes, xy: np.ndarray, values: np.ndarray, title: str, unit: str) -> EllipseCollection:
    """Draw spots as discs of one pitch at positions in pitches, one artist for all; y points down, NaN is gray."""
    from matplotlib import colormaps

    discs = add_discs(ax, xy, 0.95, rasterized=True)
    discs.set_cmap(colormaps["viridis"].with_extremes(bad="0.85"))
    discs.set_array(np.ma.masked_invalid(values))
    ax.set(xlim=(-1, xy[:, 0].max() + 1), ylim=(xy[:, 1].max() + 1, -1), aspect="equal", yticks=[])
    ax.set_title(title)
    ax.grid(visible=False)
    # As tall as the map, which may be lower than its place.
    bar = ax.figure.colorbar(discs, cax=ax.inset_axes((1.01, 0, 0.015, 1)))
    bar.ax.set_title(unit, fontsize="small", loc="right")
    return discs
