"""Spots of a map as discs of their real size, and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from h2e.pl._discs import add_discs
from h2e.pl._maps import Map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Colormap

MISSING = "0.65"
"""Gray of spots without a value."""

LINE = 40
"""Letters of a title that fit above a map; longer ones are written smaller."""

Limits = tuple[float, float]


def limits_of(values: Sequence[np.ndarray]) -> Limits:
    """From the lower of the first percentiles to the higher of the 99th; a single value stands in the middle."""
    finite = [some[np.isfinite(some)] for some in values]
    ends = np.array([np.percentile(some, (1, 99)) for some in finite if len(some)] or [(0.0, 1.0)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_dots(axis: Axes, one: Map, limits: Limits | None, cmap: str | Colormap, size: float) -> EllipseCollection:
    """Draw the spots without a value in gray, then all spots with their values; one artist each, however many."""
    from matplotlib import colormaps

    cmap = colormaps.get_cmap(cmap)
    missing = ~np.isfinite(one.values)
    shape = {"diameter": 2 * one.slide.radius_px * size, "angle": one.slide.angle_deg}
    add_discs(axis, one.slide.xy[missing], facecolors=MISSING, **shape)
    dots = add_discs(axis, one.slide.xy, **shape)
    # gray, not transparent: where all spots are equally opaque, a PDF holds their outline once, not once for each
    dots.set_cmap(cmap.with_extremes(bad=MISSING))
    dots.set_array(np.ma.masked_invalid(one.values))
    dots.set_clim(limits or limits_of([one.values]))
    if one.alpha is not None:
        dots.set_alpha(one.alpha)
    axis.set_title(one.title, fontsize="medium" if max(map(len, one.title.split("\n"))) <= LINE else "small")
    return dots


def draw_colorbars(
    dots: Sequence[EllipseCollection], axes: Sequence[Axes], maps: Sequence[Map], *, share: bool
) -> None:
    """Draw a colour bar for the maps that share their colours, or one for each."""
    every = list(zip(dots, axes, maps, strict=True))
    for some in [every] if share else [[one] for one in every]:
        values = np.concatenate([one.values[np.isfinite(one.values)] for _, _, one in some])
        low, high = some[0][0].get_clim()
        ends = ((values < low).any(), (values > high).any())
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(ends, "neither")
        axes_of = [axis for _, axis, _ in some]
        bar = axes_of[0].figure.colorbar(
            _opaque(some[0][0]), ax=axes_of, extend=extend, shrink=0.7, aspect=18, pad=0.02
        )
        bar.set_label(maps[0].unit, fontsize="small")
        bar.outline.set_visible(False)


def _opaque(dots: EllipseCollection) -> object:
    """The colours of the spots without their opacity."""
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(dots.norm, dots.cmap)
