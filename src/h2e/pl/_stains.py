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
from h2e.pl._axes import in_rows, make_axes

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
    """Show each slide before and after stain normalization, with the colours of its stains.

    The swatches are haematoxylin and eosin at an optical density of 1: above, those of the slide; below,
    those of the reference. Only a coarse level of each image is read.

    Parameters
    ----------
    sdata
        Slides that :func:`h2e.pp.normalize_stains` has normalized.
    image_key
        Image or images to show, or a mapping from region to image; by default all that were normalized.
    long_side
        Pixels along the longer side of a picture, at least.
    ax
        Two rows of Axes, one column for each image; by default a new figure.

    Returns
    -------
    Axes, 2 × images.

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
    >>> h2e.pl.stains(sdata).shape
    (2, 4)
    """
    pairs = normalized_pairs(sdata, image_key)
    n = len(pairs)
    axes = make_axes(ax, in_rows([n, n]), "images before, then after", figsize=(2.6 * n, 5.6)).reshape(2, n)
    for (before, after), column in zip(pairs, axes.T, strict=True):
        facts = get_provenance(sdata, _keys.STAINS)[after]
        column[0].set_title(before)
        for axis, key, which in zip(column, (before, after), ("slide", "reference"), strict=True):
            image = open_image(sdata, key)
            picture, _ = read_coarse(image, max(image.shape) / long_side)
            axis.imshow(picture, interpolation="antialiased", origin="upper")
            axis.set(xticks=[], yticks=[], ylabel="")
            _swatches(axis, facts[which])
    axes[0, 0].set_ylabel("before")
    axes[1, 0].set_ylabel("after")
    return axes


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
