"""Spots for slides that have none, and misplaced spots moved back onto the tissue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import grid, masks, placement, rollback
from h2e._sdata import keys as _keys
from h2e._sdata.slides import open_slides
from h2e._sdata.table import get_table
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def make_spots(
    sdata: SpatialData,
    *,
    spacing_um: float = 100.0,
    image_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    tissue_mask_key: str | None = None,
    table_key: str = _keys.TABLE,
    key_added: str | None = None,
    overwrite: bool = False,
) -> None:
    """Lay a hexagonal grid of spots over the tissue of slides that have only an H&E.

    Its points are where the tissue is, and where they are does not depend on the spacing: a grid of half the
    spacing has all points of the coarse one, and others between them.

    Parameters
    ----------
    sdata
        Slides.
    spacing_um
        Distance of neighbouring spots, in µm.
    image_key
        Image to lay the grid over. ``None`` takes every image that no spots lie on.
    um_per_px
        Size of a pixel in µm, or a mapping from image to it: an image alone does not say how large its pixels are.
    tissue_mask_key
        Tissue mask, labels or polygons. By default that of :func:`detect_tissue`; without one it is computed, and
        not stored.
    table_key
        Table that the spots are added to, or a new one. A table with measured genes is refused, since a spot of a
        grid was not measured: give the grid a table of its own.
    key_added
        Name of the shapes; only with ``image_key``. By default ``"{image}_spots"``.
    overwrite
        Replace shapes of that name that h2e did not write.

    Returns
    -------
    ``None``. Adds, for each image:

    ``sdata.shapes["{image}_spots"]`` : circles
        0.55 spacings wide, as in Visium, in every coordinate system of the image.
    ``sdata.tables[table_key]`` : rows without genes
        ``obs`` has ``region``, ``instance_id``, ``um_per_px``, ``array_row`` and ``array_col``.

    Raises
    ------
    KeyError
        The image is not there.
    ValueError
        The size of a pixel is not given, no point lies on tissue, the key is taken, or the table holds measured
        genes.

    Examples
    --------
    >>> import h2e.datasets, h2e.pp
    >>> from spatialdata import SpatialData
    >>> cohort = h2e.datasets.toy_cohort()
    >>> sdata = SpatialData(images={"he": cohort["toy_A1_image"]})
    >>> h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25)
    >>> len(sdata["he_spots"]) == sdata["table"].n_obs
    True
    """
    keys = _keys.Keys(table_key, image_key, tissue_mask_key, um_per_px=um_per_px)
    grid.lay_grids(sdata, keys, spacing_um=spacing_um, key_added=key_added, overwrite=overwrite)


def realign_spots(
    sdata: SpatialData,
    *,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    tissue_mask_key: str | None = None,
    max_shift: float = 3.0,
    max_rotation_deg: float = 0.0,
    max_zoom: float = 0.0,
    reorient: bool = False,
    undo: bool = False,
) -> None:
    """Put the spots of each slide where the tissue is, if they are not.

    Spots outline the tissue: the best placement is that where "under spots" and "tissue" correlate best, over the
    spots and 1.5 spacings around them. A spot with less than a tenth of the median count does not count as a spot.
    Nothing is moved for less than half a spacing, nor on weak evidence: if the correlation stays under 0.65, gains
    less than 0.02, or if a placement more than a spacing away is within 0.1 of the best one (spots that cover
    the whole image, or a whole array of which the tissue is a part, carry no evidence).

    Coordinates are not touched: the correction is a transformation before those that the shapes have, in all their
    coordinate systems. ``realign_spots(sdata, undo=True)`` takes it away again. A second call starts from where
    the spots were at first.

    Parameters
    ----------
    sdata
        Slides with spots. Only spots under tissue (and few others) should be in the table.
    image_key
        Image that the spots lie on, or a mapping from region to image.
    table_key
        Table of the spots.
    tissue_mask_key
        Tissue mask. By default that of :func:`detect_tissue`; without one it is computed, and not stored.
    max_shift
        Largest shift, in spot spacings. Twice this would not be found.
    max_rotation_deg
        Largest rotation to try, in degrees; 0 tries none.
    max_zoom
        Largest stretch to try, 0.03 for 3 %; 0 tries none.
    reorient
        Turn or mirror the spots of a slide first where another of the eight orientations fits the tissue clearly better
        (rows taken for columns, an image that was scanned the other way round).
    undo
        Take away what an earlier call did, and do no more.

    Returns
    -------
    ``None``. Writes, for each region:

    ``sdata.shapes[region]`` : transformations
        The correction, if there is one.
    ``table.uns["h2e"]["realign"][region]`` : ``dict``
        ``shift_x_px``, ``shift_y_px`` (pixels of the image), ``shift`` (spacings), ``rotation_deg``, ``zoom``,
        ``score_before``, ``score``, ``gain``, ``lead`` (over the best placement elsewhere: small is ambiguous),
        ``moved`` and ``reason``; ``matrix`` is the correction in the coordinates of the shapes.

    Raises
    ------
    KeyError
        An image, a mask or the table is not there.
    ValueError
        Images cannot be paired with regions, or the table names instances that the shapes do not have.

    Examples
    --------
    >>> import h2e.datasets, h2e.pp
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.realign_spots(sdata)
    >>> [region for region, what in sdata["table"].uns["h2e"]["realign"].items() if what["moved"]]
    ['toy_A2']
    """
    table = get_table(sdata, table_key)
    limits = {"max_shift": max_shift, "max_rotation_deg": max_rotation_deg, "max_zoom": max_zoom}
    for name, value in limits.items():
        end, told = (1, ", and less than 1 (0.03 for 3 %)") if name == "max_zoom" else (np.inf, "")
        refuse_if(not 0 <= value < end, f"{name} must be 0 or more{told}, got {value!r}.")
    keys = _keys.Keys(table_key, image_key, tissue_mask_key)
    with rollback.all_or_nothing(sdata, table_key):
        rollback.remove_corrections(sdata, table)
        if undo:
            table.uns.get(_keys.PREDICTION, {}).pop(_keys.REALIGN, None)
            return
        slides = masks.with_tissue(sdata, open_slides(sdata, keys), tissue_mask_key)
        placement.move_spots(sdata, table, slides, reorient=reorient, **limits)
