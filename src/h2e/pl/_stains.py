"""Slides before and after stain normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.normalized import normalized_pairs
from h2e._sdata.provenance import get_provenance
from h2e._slide.image import read_coarse
from h2e.pl._canvas import Box, draw_picture, in_rows, make_axes, read_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


def stains(
    sdata: SpatialData,
    *,
    image_key: str | Sequence[str] | Mapping[str, str] | None = None,
    long_side: int = 600,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show each slide before and after stain normalization, a part of it enlarged, with the colours of its stains.

    The part, framed on the slide, is the one with the most colour. The swatches are haematoxylin and eosin at an
    optical density of 1: before, those of the slide; after, those of the reference. Only a coarse level of each image
    and this part are read.

    Parameters
    ----------
    sdata
        Slides that :func:`h2e.pp.normalize_stains` has normalized.
    image_key
        Image or images to show, or a mapping from region to image; by default all that were normalized.
    long_side
        Pixels along the longer side of a picture, at least.
    ax
        Four rows of Axes, one column for each image; by default a new figure.

    Returns
    -------
    Axes, 4 × images: before and after, then the part before and after.

    Raises
    ------
    KeyError
        An image was not normalized by h2e.
    ValueError
        ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize_stains(sdata)
    >>> axes = h2e.pl.stains(sdata, image_key=["toy_A1_image", "toy_B1_image"])
    """
    from matplotlib.patches import Rectangle

    pairs = normalized_pairs(sdata, image_key)
    n = len(pairs)
    axes = make_axes(ax, in_rows([n] * 4), "images, then parts of them", figsize=(2.6 * n, 10.6)).reshape(4, n)
    for (before, after), column in zip(pairs, axes.T, strict=True):
        facts, box = get_provenance(sdata, _keys.STAINS)[after], None
        column[0].set_title(before, fontsize="small")
        for row, key, which in zip((0, 1), (before, after), ("slide", "reference"), strict=True):
            image = open_image(sdata, key)
            picture, size = read_coarse(image, max(image.shape) / long_side)
            box = box or _most_coloured(picture, size, min(long_side / 2, min(image.shape) / 3))
            draw_picture(column[row], picture, (0, 0, picture.shape[1] * size, picture.shape[0] * size), alpha=1)
            column[row].add_patch(Rectangle(box[:2], *np.subtract(box[2:], box[:2]), fill=False, edgecolor="black"))
            draw_picture(column[row + 2], *read_box(image, box, 1.0), alpha=1)
            _swatches(column[row], facts[which])
    for of_row, label in zip(axes, ("before", "after", "before, enlarged", "after, enlarged"), strict=True):
        for axis in of_row:
            axis.set(xticks=[], yticks=[], ylabel=label if axis is of_row[0] else "")
    return axes


def _most_coloured(picture: np.ndarray, size: float, side: float) -> Box:
    """The square of a picture, in pixels of level 0, that has the most colour: neither glass nor black."""
    from scipy.ndimage import uniform_filter

    colour = uniform_filter(np.ptp(picture.astype(float), axis=2), max(round(side / size), 1), mode="constant")
    y, x = (np.array(np.unravel_index(colour.argmax(), colour.shape)) + 0.5) * size
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _swatches(axis: Axes, facts: Mapping | None) -> None:
    """Two small squares in the lower left corner: haematoxylin and eosin, or the mean colour of tissue."""
    from matplotlib.patches import Rectangle

    for i, colour in enumerate([] if facts is None else _colours(facts)):
        place = (0.02 + 0.09 * i, 0.02)
        style = {"transform": axis.transAxes, "facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
        axis.add_patch(Rectangle(place, 0.08, 0.08, **style))


def _colours(facts: Mapping) -> np.ndarray:
    """Colours in 0–1 of what is stored on the stains of a slide."""
    if "stains" in facts:
        density = np.array(facts["stains"])
        return np.clip((facts["background"] * np.exp(-density) - 1) / 255, 0, 1)
    from h2e._stains.spaces import to_rgb

    return to_rgb(np.array([facts["mean"]]), facts["space"]) / 255
