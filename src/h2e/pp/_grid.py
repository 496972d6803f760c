"""Spots for slides that have none: a hexagonal grid over the tissue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.masks import tissue_of
from h2e._sdata.pairing import image_of_grid, paired_image, source_images
from h2e._sdata.provenance import get_provenance, set_provenance
from h2e._sdata.scale import check_sizes, positive, size_of
from h2e._sdata.table import check_sdata, region_keys, regions_of
from h2e._slide.lattice import hexagonal_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

log = logging.getLogger(__name__)

DIAMETER_FRAC = 0.55
"""Diameter of a spot in spacings, as in Visium (55 µm, every 100 µm)."""


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
    check_sdata(sdata)
    if key_added is not None and image_key is None:
        msg = "key_added names the spots of one image; say of which with image_key."
        raise ValueError(msg)
    table = sdata.tables.get(table_key)
    keys = [image_key] if image_key is not None else _without_spots(sdata, table_key)
    check_sizes(um_per_px, set(sdata.images))
    um = [size_of(um_per_px, key) for key in keys]
    for key, size in zip(keys, um, strict=True):
        _check(key, spacing_um, size)
    names = [key_added or f"{key}_spots" for key in keys]
    _check_table(table, table_key)
    for name in names:
        _check_free(sdata, table, name, overwrite=overwrite)
    grids = [_grid(sdata, key, tissue_mask_key, spacing_um, size) for key, size in zip(keys, um, strict=True)]
    circles = []
    for key, name, size, (xy, array) in zip(keys, names, um, grids, strict=True):
        circles.append(_circles(sdata, key, xy, DIAMETER_FRAC / 2 * spacing_um / size))
        table = _add_rows(table, name, array, size)
        set_provenance(
            table, _keys.PARAMS, name, {"function": "make_spots", "image": key, "spacing_um": float(spacing_um)}
        )
    for name, shapes in zip(names, circles, strict=True):
        _replace(sdata.shapes, name, shapes)
        log.info("wrote shapes[%r]: %d spots every %g µm; tables[%r]", name, len(shapes), spacing_um, table_key)
    _replace(sdata.tables, table_key, table)


def _check(image_key: str, spacing_um: float, um_per_px: float | None) -> None:
    """Refuse a grid of unknown size."""
    for name, value in (("spacing_um", spacing_um), ("um_per_px", um_per_px)):
        if value is None:
            msg = f"{name} is None for image {image_key!r}; a grid over an image needs {name}: an image does not say how large its pixels are."
            raise ValueError(msg)
        positive(value, f"{name} for image {image_key!r}")


def _without_spots(sdata: SpatialData, table_key: str) -> list[str]:
    """Images that no spots lie on but those that h2e made."""
    annotating = [key for key, one in sdata.tables.items() if "spatialdata_attrs" in one.uns]
    regions = {region for key in annotating for region in regions_of(sdata, key) if region in sdata.shapes}
    paired = {paired_image(sdata, region) for region in regions if image_of_grid(sdata, region) is None}
    keys = [key for key in source_images(sdata, table_key=table_key) if key not in paired]
    if not keys:
        msg = f"each image already has spots; sdata.images has {sorted(sdata.images)}. Pass image_key to lay a grid over one of them."
        raise ValueError(msg)
    return keys


def _is_ours(table: AnnData | None, name: str) -> bool:
    """Whether h2e made the spots of a region."""
    made = {} if table is None else get_provenance(table, _keys.PARAMS).get(name, {})
    return made.get("function") == "make_spots"


def _check_table(table: AnnData | None, table_key: str) -> None:
    """Refuse to add spots without expression to a table with expression."""
    if table is not None and table.n_vars:
        msg = f"sdata.tables[{table_key!r}] holds {table.n_vars} measured genes, which the spots of a grid do not have; pass another table_key, such as 'grid'."
        raise ValueError(msg)


def _check_free(sdata: SpatialData, table: AnnData | None, name: str, *, overwrite: bool) -> None:
    """Refuse a name under which there is something that h2e did not make."""
    taken = next((k for k in ("images", "labels", "points", "shapes", "tables") if name in getattr(sdata, k)), None)
    if taken is None or (taken == "shapes" and (overwrite or _is_ours(table, name))):
        return
    msg = f"sdata.{taken}[{name!r}] is there already and was not made by h2e; pass overwrite=True (shapes only), or image_key and key_added."
    raise ValueError(msg)


def _grid(
    sdata: SpatialData, key: str, tissue_mask_key: str | None, spacing_um: float, um_per_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """The points of a grid that are on tissue; whether a point is kept does not depend on the spacing."""
    image = open_image(sdata, key)
    mask, scale = tissue_of(sdata, image, tissue_mask_key, um_per_px)
    xy, array = hexagonal_grid(image.shape, spacing_um / um_per_px)
    at = (xy / scale).astype(int)
    inside = (at < mask.shape[::-1]).all(axis=1)
    on = np.zeros(len(xy), bool)
    on[inside] = mask[at[inside, 1], at[inside, 0]]
    if not on.any():
        msg = f"no point of a grid of {spacing_um:g} µm ({spacing_um / um_per_px:.0f} px) lies on the tissue of image {key!r}, of which {100 * mask.mean():.1f} % is tissue. Check the mask, um_per_px and spacing_um."
        raise ValueError(msg)
    return xy[on], array[on]


def _circles(sdata: SpatialData, image_key: str, xy: np.ndarray, radius: float) -> GeoDataFrame:
    """Circles in pixels of an image, where the image is."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    placed = dict(get_transformation(sdata.images[image_key], get_all=True))
    return ShapesModel.parse(xy, geometry=0, radius=radius, transformations=placed)


def _replace(elements: MutableMapping, name: str, new: object) -> None:
    """Put an element in the place of one that may be there (assignment alone would warn)."""
    if name in elements:
        del elements[name]
    elements[name] = new


def _add_rows(table: AnnData | None, region: str, array: np.ndarray, um_per_px: float) -> AnnData:
    """Add a region's spots to a table without genes; rows of that region are replaced."""
    import anndata as ad
    import pandas as pd
    from spatialdata.models import TableModel

    region_key, instance_key = ("region", "instance_id") if table is None else region_keys(table)
    obs = pd.DataFrame({region_key: region, instance_key: np.arange(len(array))})
    obs.index = [f"{region}_{i}" for i in range(len(array))]
    obs[_keys.UM_PER_PX], obs["array_row"], obs["array_col"] = um_per_px, array[:, 1], array[:, 0]
    rows = ad.AnnData(np.zeros((len(array), 0), np.float32), obs=obs)
    if table is not None:
        kept = table[table.obs[region_key].astype(str) != region]
        if kept.n_obs:
            rows = ad.concat([kept.copy(), rows], join="outer")
        rows.uns = {key: value for key, value in table.uns.items() if key != "spatialdata_attrs"}
    rows.obs[region_key] = rows.obs[region_key].astype(str).astype("category")
    regions = list(rows.obs[region_key].cat.categories)
    return TableModel.parse(rows, region=regions, region_key=region_key, instance_key=instance_key)
