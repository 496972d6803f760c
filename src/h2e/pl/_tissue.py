"""Look at the tissue mask, and at which spots are on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image, systems_of
from h2e._sdata.masks import tissue_of
from h2e._sdata.pairing import image_of_grid, is_same_scene, source_images
from h2e._sdata.provenance import get_provenance
from h2e._sdata.slides import find_slides
from h2e._sdata.table import in_tissue, regions_of, shapes_of
from h2e._slide.fraction import fraction_at
from h2e._slide.image import read_coarse
from h2e.pl._axes import given_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from spatialdata import SpatialData

    from h2e._slide.slide import Slide

COLUMNS = 6
"""Images in a row."""

OUTLINE, VALID, INVALID = "#00a03c", "#1f4fd8", "#e01b1b"


def tissue(
    sdata: SpatialData,
    *,
    image_key: str | Sequence[str] | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    tissue_mask_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> np.ndarray[tuple[int], np.dtype[Axes]]:
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
    >>> axes.get_title().startswith("toy_A1_image: 60 spots")
    True
    """
    paired = image_key if isinstance(image_key, Mapping) else None
    asked = [image_key] if isinstance(image_key, str) else list(paired.values() if paired else image_key or [])
    keys = list(dict.fromkeys(asked)) or source_images(sdata, table_key=table_key)
    paired = paired or (_pairs(sdata, keys, table_key) if asked else None)
    there = table_key in sdata.tables
    slides = find_slides(sdata, table_key=table_key, image_key=paired, sized=False) if there else []
    moved = get_provenance(sdata.tables[table_key], _keys.REALIGN) if slides else {}
    said = in_tissue(sdata.tables[table_key]) if slides else None
    axes = _axes(ax, len(keys))
    for key, axis in zip(keys, axes, strict=True):
        here = [slide for slide in slides if slide.image.key == key]
        mask, scale = _draw_slide(axis, sdata, key, tissue_mask_key, here)
        n_invalid = 0
        for slide in here:
            valid = (fraction_at(mask, scale, slide.xy, slide.spacing_px) > 0) & said[slide.rows]
            _draw_spots(axis, slide, valid, VALID)
            _draw_spots(axis, slide, ~valid, INVALID)
            _draw_shift(axis, slide, moved.get(slide.region))
            n_invalid += int((~valid).sum())
        axis.set_title(f"{key}: {sum(map(len, here))} spots, {n_invalid} invalid" if here else key)
    return axes


def _pairs(sdata: SpatialData, asked: list[str], table_key: str) -> dict[str, str]:
    """Each region with the first of the images asked for that it lies on; of others, any image will do."""
    pairs = {}
    for region in regions_of(sdata, table_key):
        grid, systems = image_of_grid(sdata, region), set(systems_of(shapes_of(sdata, region)))
        on = [key for key in asked if key in sdata.images and (grid is None or is_same_scene(sdata, key, grid))]
        others = [grid] if grid is not None else list(sdata.images)
        for key in (*on, *others):
            if region not in pairs and systems & set(systems_of(sdata.images[key])):
                pairs[region] = key
    return pairs


def _axes(ax: Axes | Sequence[Axes] | None, n: int) -> np.ndarray:
    """As many axes as there are images: those given, or those of a new figure."""
    if ax is not None:
        return given_axes(ax, n, "images")
    import matplotlib.pyplot as plt

    rows, columns = -(-n // COLUMNS), min(n, COLUMNS)
    axes = plt.subplots(rows, columns, figsize=(5 * columns, 5 * rows), squeeze=False, layout="constrained")[1].ravel()
    for unused in axes[n:]:
        unused.remove()
    return axes[:n]


def _draw_slide(
    axis: Axes, sdata: SpatialData, key: str, tissue_mask_key: str | None, slides: list[Slide]
) -> tuple[np.ndarray, float]:
    """Draw a thumbnail and the outline of the tissue; returns the mask and its scale."""
    image = open_image(sdata, key)
    um_per_px = slides[0].um_per_px if slides else None
    mask, scale = tissue_of(sdata, image, tissue_mask_key, um_per_px)
    picture, size = read_coarse(image, max(1.0, 2.0 ** round(np.log2(max(image.shape) / 1024))))
    height, width = picture.shape[:2]
    axis.imshow(picture, extent=(0, width * size, height * size, 0), interpolation="antialiased", origin="upper")
    y, x = ((np.arange(-1, n + 1) + 0.5) * scale for n in mask.shape)
    if mask.any():  # a rim of background closes the outline where the tissue leaves the image
        axis.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[OUTLINE], linewidths=1.0)
    axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0), aspect="equal", xticks=[], yticks=[])
    return mask, scale


def _draw_spots(axis: Axes, slide: Slide, rows: np.ndarray, colour: str) -> EllipseCollection:
    """Draw spots as circles of their real size, one artist for all."""
    from matplotlib.collections import EllipseCollection

    size = np.full(int(rows.sum()), 2 * slide.radius_px)
    spots = EllipseCollection(
        size, size, np.zeros(len(size)), units="xy", offsets=slide.xy[rows], offset_transform=axis.transData,
        facecolors="none", edgecolors=colour, linewidths=0.8, rasterized=True,
    )  # fmt: skip
    axis.add_collection(spots, autolim=False)
    return spots


def _draw_shift(axis: Axes, slide: Slide, realign: dict | None) -> None:
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
    text = axis.annotate(
        f"{realign['shift']:.2f} spacings", to, xytext=(6, 6), textcoords="offset points", color="black", zorder=4
    )
    text.set_path_effects([withStroke(linewidth=3, foreground="white")])
