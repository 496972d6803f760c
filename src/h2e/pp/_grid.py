"""Spots for slides that have none: a hexagonal grid over the tissue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from h2e._sdata import keys as _keys
from h2e._sdata.grid import lay_grids

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
    lay_grids(sdata, keys, spacing_um=spacing_um, key_added=key_added, overwrite=overwrite)
