"""Look at slides: the tissue mask and which spots are on it, the stains before and after normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.masks import with_tissue
from h2e._sdata.normalized import normalized_pairs
from h2e._sdata.provenance import get_provenance
from h2e._sdata.slides import open_by_image, require_inside
from h2e._slide.image import read_coarse
from h2e._slide.slide import Slide
from h2e.pl._canvas import Box, draw_picture, in_rows, make_axes, read_box
from h2e.pl._dots import add_discs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

OUTLINE, VALID, INVALID = "#00a03c", "#1030d0", "#e01b1b"

FADED = 0.5
"""Opacity of the image: on it no stain is as dark as these."""


def tissue(
    sdata: SpatialData,
    *,
    image_key: str | Sequence[str] | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    tissue_mask_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show each slide with the outline of its tissue, its valid and invalid spots, and how far spots were moved.

    Valid spots (blue) have tissue in their own subtile, invalid ones (red) have none. The arrow goes from where the
    middle of the spots was recorded to where :func:`h2e.pp.realign_spots` put it. Coordinates are pixels of the image.

    Parameters
    ----------
    sdata
        Slides.
    image_key
        Image or images to show, or a mapping from region to image; by default all that h2e works on.
    table_key
        Table of the spots.
    tissue_mask_key
        Tissue mask. By default that of :func:`h2e.pp.detect_tissue`; without one it is computed.
    ax
        Axes to draw on, one for each image; by default a new figure.

    Returns
    -------
    Axes, one for each image.

    Raises
    ------
    KeyError
        An image or a mask is not there.
    ValueError
        Images cannot be paired with regions, or ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e.datasets, h2e.pl
    >>> (axes,) = h2e.pl.tissue(h2e.datasets.toy_cohort(), image_key="toy_A1_image")
    >>> axes.get_title()
    'toy_A1: 60 spots, 1 invalid'
    """
    slides = open_by_image(sdata, image_key, _keys.Keys(table_key, tissue_mask_key=tissue_mask_key))
    slides = {key: with_tissue(sdata, require_inside(on_image), tissue_mask_key) for key, on_image in slides.items()}
    moved = get_provenance(sdata.tables[table_key], _keys.REALIGN) if table_key in sdata.tables else {}
    columns = min(max(3, int(np.ceil(np.sqrt(len(slides))))), len(slides))
    rows = [min(columns, len(slides) - start) for start in range(0, len(slides), columns)]
    axes = make_axes(ax, in_rows(rows), "images", figsize=np.array([columns, len(rows)]) * min(5, 13 / columns))
    for (key, on_image), axis in zip(slides.items(), axes, strict=True):
        _draw_slide(axis, on_image[0])
        spotted = [slide for slide in on_image if slide.region is not None]
        n_invalid = 0
        for slide in spotted:
            valid = slide.valid_spots()
            for spots, colour in ((valid, VALID), (~valid, INVALID)):
                style: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.0}
                add_discs(axis, slide.xy[spots], 2 * slide.radius_px, **style)
            _draw_shift(axis, slide, moved.get(slide.region or ""))
            n_invalid += int((~valid).sum())
        name = key if len(spotted) > 1 else on_image[0].name
        axis.set_title(f"{name}: {sum(map(len, spotted))} spots, {n_invalid} invalid" if spotted else name)
    return axes


def _draw_slide(axis: Axes, slide: Slide) -> None:
    """Draw a thumbnail and the outline of the tissue."""
    image = slide.image
    picture, size = read_coarse(image, max(1.0, 2.0 ** round(np.log2(max(image.shape) / 1024))))
    height, width = picture.shape[:2]
    draw_picture(axis, picture, (0, 0, width * size, height * size), alpha=FADED)
    if slide.tissue is not None and slide.tissue[0].any():
        mask, scale = slide.tissue
        y, x = ((np.arange(-1, n + 1) + 0.5) * scale for n in mask.shape)
        # A rim of background closes the outline where the tissue leaves the image.
        axis.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[OUTLINE], linewidths=1.0)
    axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), aspect="equal", xticks=[], yticks=[])


def _draw_shift(axis: Axes, slide: Slide, realign: Mapping[str, Any] | None) -> None:
    """Draw how the middle of the spots was moved."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import withStroke

    if realign is None or not realign["moved"]:
        return
    to = slide.xy.mean(axis=0)
    shift = np.array([realign["shift_x_px"], realign["shift_y_px"]])
    arrow = FancyArrowPatch(to - shift, to, arrowstyle="-|>", mutation_scale=12, shrinkA=0, shrinkB=0, color="black")
    arrow.set(zorder=4, path_effects=[withStroke(linewidth=3, foreground="white")])
    axis.add_patch(arrow)
    # Beyond the point of the arrow; y points down.
    x, y = np.sign(shift)
    style: dict[str, Any] = {"textcoords": "offset fontsize", "color": "black", "zorder": 4}
    style |= {"ha": "left" if x > 0 else "right", "va": "top" if y > 0 else "bottom"}
    text = axis.annotate(f"{realign['shift']:.2f} spacings", to, xytext=(0.5 * x, -0.5 * y), **style)
    text.set_path_effects([withStroke(linewidth=3, foreground="white")])


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
