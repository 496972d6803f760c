"""What plots are drawn on: Axes, the H&E under the spots of a map, a scale bar, an empty frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._slide.image import Image, read_coarse
from h2e._slide.slide import Slide
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import HashableList

    Mosaic = list[HashableList[Hashable]]

DPI = 200
"""Resolution that pictures are read for, at least: a figure is often saved finer than it is shown."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a slide."""


def make_axes(ax: Axes | Sequence[Axes] | None, mosaic: Mosaic, what: str, **figure: Any) -> np.ndarray:
    """The Axes that were given, or those of a new figure, in the order of the numbers of a mosaic.

    A new figure grows with its letters, so that what fits in it at 10 points does at 16.
    """
    n = len({cell for row in mosaic for cell in row} - {"."})
    if ax is None:
        import matplotlib.pyplot as plt

        figure["figsize"] = [side * plt.rcParams["font.size"] / 10 for side in figure["figsize"]]
        made = plt.subplot_mosaic(mosaic, layout="constrained", **figure)[1]
        return np.array([made[i] for i in range(n)], dtype=object)
    # plt.subplot_mosaic gives a mapping.
    axes = np.ravel(np.asarray(list(ax.values()) if isinstance(ax, Mapping) else ax, dtype=object))
    refuse_if(len(axes) != n, f"ax has {len(axes)} Axes, this plot draws on {n}: {what}.")
    return axes


def in_rows(lengths: Sequence[int]) -> Mosaic:
    """A mosaic of rows of these lengths.

    Examples
    --------
    >>> in_rows([1, 2])
    [[0, '.'], [1, 2]]
    """
    number = count()
    return [[next(number) if column < length else "." for column in range(max(lengths))] for length in lengths]


def box_of(slide: Slide) -> Box:
    """The part of a slide that is shown: its spots, and some tissue around them."""
    margin = max(1.5 * slide.spacing_px, 0.04 * float(np.ptp(slide.xy, axis=0).max()))
    (left, top), (right, bottom) = slide.xy.min(axis=0) - margin, slide.xy.max(axis=0) + margin
    return float(left), float(top), float(right), float(bottom)


def scale_that_fits(ax: Axes, box: Box) -> float:
    """Pixels of level 0 that one pixel of the Axes covers when they show a box, at the finer of screen and ``DPI``."""
    from matplotlib import rcParams

    saved = rcParams["savefig.dpi"]
    dpi = max(DPI, ax.figure.dpi, 0 if saved == "figure" else saved)
    width, height = (side / ax.figure.dpi * dpi for side in ax.get_window_extent().size)
    return max((box[2] - box[0]) / max(width, 1), (box[3] - box[1]) / max(height, 1))


def read_box(image: Image, box: Box, scale: float) -> tuple[np.ndarray, Box]:
    """The part of an image in a box from the coarsest level that is fine enough, (y, x, 3), and the part that it is."""
    level = image.level_at(scale)
    size, pixels = image.scales[level], image.levels[level]
    height, width = pixels.shape[1:]
    left, right = (int(np.clip(v, 0, width)) for v in (np.floor(box[0] / size), np.ceil(box[2] / size)))
    top, bottom = (int(np.clip(v, 0, height)) for v in (np.floor(box[1] / size), np.ceil(box[3] / size)))
    part = Image(image.key, (pixels[:, top:bottom, left:right],), (size,))
    picture, coarse = read_coarse(part, scale)
    x, y = left * size, top * size
    return picture, (x, y, x + picture.shape[1] * coarse, y + picture.shape[0] * coarse)


def draw_picture(ax: Axes, picture: np.ndarray, part: Box, *, alpha: float) -> None:
    """Draw a part of an image where it lies; it stays an image in vector graphics."""
    left, top, right, bottom = part
    style: dict[str, Any] = {"interpolation": "antialiased", "alpha": alpha, "zorder": 0, "origin": "upper"}
    ax.imshow(picture, extent=(left, right, bottom, top), **style)
    # On white a picture is faint, whatever the style.
    ax.set_facecolor("white")


def frame(ax: Axes, box: Box) -> None:
    """Show a box and nothing around it; y points down."""
    left, top, right, bottom = box
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def bar_lengths(widths_um: Sequence[float | None]) -> list[float | None]:
    """A round length up to a quarter of the width of each slide; the same for all slides of about one size.

    Examples
    --------
    >>> bar_lengths([3900, 5000, None, 100_000])
    [500.0, 500.0, None, 20000.0]
    """
    own = [None if width is None else round_length(width / 4) for width in widths_um]
    shortest = min((length for length in own if length is not None), default=0)
    return [length if length is None or length > 2.5 * shortest else shortest for length in own]


def draw_scale_bar(ax: Axes, box: Box, um: float, um_per_unit: float, xy: np.ndarray) -> None:
    """Draw a bar in the lower corner that holds fewer spots."""
    from matplotlib.patheffects import withStroke

    left, top, right, bottom = box
    length, gap = um / um_per_unit, 0.03 * (right - left)
    low = xy[xy[:, 1] > bottom - 0.15 * (bottom - top), 0]
    n_left, n_right = (low < left + length + 2 * gap).sum(), (low > right - length - 2 * gap).sum()
    start = left + gap if n_left <= n_right else right - gap - length
    style: dict[str, Any] = {"linewidth": 2.5, "solid_capstyle": "butt", "scalex": False, "scaley": False}
    (bar,) = ax.plot([start, start + length], [bottom - gap, bottom - gap], color="black", zorder=4, **style)
    bar.set_path_effects([withStroke(linewidth=4.5, foreground="white")])
    label = f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"
    place: dict[str, Any] = {"xytext": (0, 0.6), "textcoords": "offset fontsize", "ha": "center", "va": "bottom"}
    text = ax.annotate(label, (start + length / 2, bottom - gap), fontsize="small", color="black", zorder=4, **place)
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def round_length(um: float) -> float:
    """The largest of 1, 2, 5, 10, 20, … that is not longer.

    Examples
    --------
    >>> [round_length(um) for um in (1, 49, 50, 1999)]
    [1.0, 20.0, 50.0, 1000.0]
    """
    power = 10.0 ** np.floor(np.log10(um) + 1e-9)
    return float(power * max(step for step in (1, 2, 5) if step * power <= um * (1 + 1e-9)))
