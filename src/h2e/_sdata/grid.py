"""Grids of spots over the tissue of slides that have none, as shapes and rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.images import systems_of
from h2e._sdata.masks import with_tissue
from h2e._sdata.pairing import find_pairing
from h2e._sdata.provenance import check_free, get_provenance, set_provenance
from h2e._sdata.regions import DIAMETER_FRAC
from h2e._sdata.scale import check_sizes, positive, require_size
from h2e._sdata.slides import open_bare_images
from h2e._sdata.table import angle_of, check_sdata, is_derived, region_keys
from h2e._slide.lattice import hexagonal_grid
from h2e._slide.slide import Slide
from h2e._warnings import log, refuse, warn

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

MANY = 20
"""Polygons from which on they are most likely cells or bins; outlines of regions are fewer."""


def lay_grids(
    sdata: SpatialData, keys: _keys.Keys, *, spacing_um: float, key_added: str | None, overwrite: bool
) -> None:
    """Add shapes and rows of the table for each image that no spots lie on, or for the one that ``image_key`` names."""
    check_sdata(sdata)
    if key_added is not None and keys.image_key is None:
        refuse(f"image_key must name one image where key_added names its spots, got None and {key_added!r}.")
    check_sizes(keys.um_per_px, set(sdata.images))
    positive(spacing_um, "spacing_um")
    table = sdata.tables.get(keys.table_key)
    slides = open_bare_images(sdata, keys)
    if table is not None and table.n_vars:
        msg = f"sdata.tables[{keys.table_key!r}] holds {table.n_vars} measured genes, which the spots of a grid do "
        refuse(msg + "not have; pass another table_key, such as 'grid'.")
    names = [key_added or f"{slide.image.key}_spots" for slide in require_size(slides)]
    made = {} if table is None else get_provenance(table, _keys.PARAMS)
    for name in names:
        ours = made.get(name, {}).get("function") == "make_spots"
        check_free(sdata, "shapes", name, ours=ours, overwrite=overwrite, hint="image_key and key_added")
    slides = with_tissue(sdata, slides, keys.tissue_mask_key)
    grids = [_points_on_tissue(slide, spacing_um) for slide in slides]
    circles = []
    for slide, name, (xy, array) in zip(slides, names, grids, strict=True):
        key, size = slide.image.key, slide.require_size()
        circles.append(_circles(sdata, key, xy, DIAMETER_FRAC / 2 * spacing_um / size, spacing_um))
        about = {_keys.UM_PER_PX: size, "array_row": array[:, 1], "array_col": array[:, 0]}
        table = _add_rows(table, name, np.arange(len(array)), **about)
        facts = {"function": "make_spots", "image": key, "spacing_um": float(spacing_um)}
        set_provenance(table, _keys.PARAMS, name, facts)
    for name, shapes in zip(names, circles, strict=True):
        # Assignment alone would warn of what is replaced.
        sdata.shapes.pop(name, None)
        sdata.shapes[name] = shapes
        log.info("wrote shapes[%r]: %d spots every %g µm; tables[%r]", name, len(shapes), spacing_um, keys.table_key)
    sdata.tables.pop(keys.table_key, None)
    sdata.tables[keys.table_key] = table


def adopt_spots(sdata: SpatialData, keys: _keys.Keys) -> bool:
    """Make a table of the spots that lie on images without a table; whether images are left that have none.

    Spots are circles or squares that no tool derived: neither a grid of quality control or of tiles nor one of h2e's.
    """
    pairing, image_key = find_pairing(sdata), keys.image_key
    spots: dict[str, list[str]] = {}
    for name, shapes in sdata.shapes.items():
        images = pairing.in_systems(systems_of(shapes))
        if is_derived(name, shapes) or not images or not (image_key is None or image_key in images):
            continue
        if "radius" not in shapes and angle_of(shapes, np.eye(3)) is None:
            if len(shapes) >= MANY:
                warn(f"the {len(shapes)} polygons of shapes[{name!r}] are not predicted: no table annotates them.")
        else:
            spots.setdefault(pairing.image_of(name, image_key), []).append(name)
    for image, names in spots.items():
        if len(names) > 1:
            msg = f"sdata.shapes has several sets of spots on image {image!r}, {names}, and no table says which "
            msg += "is meant; make one (spatialdata.models.TableModel.parse), or lay a grid with h2e.pp.make_spots."
            raise ValueError(msg)
    table, every = None, [name for (name,) in spots.values()]
    for name in every:
        table = _add_rows(table, name, sdata.shapes[name].index.to_numpy())
        log.info("the %d spots of shapes[%r] are taken: tables[%r]", len(sdata.shapes[name]), name, keys.table_key)
    if table is not None:
        sdata.tables[keys.table_key] = table
    return bool(pairing.images_without_spots(every)) if image_key is None else not spots


def _points_on_tissue(slide: Slide, spacing_um: float) -> tuple[np.ndarray, np.ndarray]:
    """The points of a grid that are on tissue; whether a point is kept does not depend on the spacing."""
    (mask, scale), spacing_px = slide.require_tissue(), spacing_um / slide.require_size()
    xy, array = hexagonal_grid(slide.image.shape, spacing_px)
    at = (xy / scale).astype(int)
    inside = (at < mask.shape[::-1]).all(axis=1)
    on_tissue = np.zeros(len(xy), bool)
    on_tissue[inside] = mask[at[inside, 1], at[inside, 0]]
    if not on_tissue.any():
        msg = f"no point of a grid of {spacing_um:g} µm ({spacing_px:.0f} px) lies on the tissue of image "
        refuse(msg + f"{slide.image.key!r}, {100 * mask.mean():.1f} % of it; check the mask, um_per_px and spacing_um.")
    return xy[on_tissue], array[on_tissue]


def _circles(sdata: SpatialData, image_key: str, xy: np.ndarray, radius: float, spacing_um: float) -> GeoDataFrame:
    """Circles in pixels of an image, where the image is; they know their spacing, whatever becomes of the table."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    placed = dict(get_transformation(sdata.images[image_key], get_all=True))
    circles = ShapesModel.parse(xy, geometry=0, radius=radius, transformations=placed)
    circles[_keys.SPACING_UM] = float(spacing_um)
    return circles


def _add_rows(table: AnnData | None, region: str, instances: np.ndarray, **columns: Any) -> AnnData:
    """Add a region's spots to a table without genes; rows of that region are replaced."""
    import anndata as ad
    import pandas as pd
    from spatialdata.models import TableModel

    region_key, instance_key = ("region", "instance_id") if table is None else region_keys(table)
    obs = pd.DataFrame({region_key: region, instance_key: instances, **columns})
    obs.index = [f"{region}_{instance}" for instance in instances]
    rows = ad.AnnData(np.zeros((len(obs), 0), np.float32), obs=obs)
    if table is not None:
        kept = table[table.obs[region_key].astype(str) != region]
        if kept.n_obs:
            rows = ad.concat([kept.copy(), rows], join="outer")
        rows.uns = {key: value for key, value in table.uns.items() if key != "spatialdata_attrs"}
    rows.obs[region_key] = rows.obs[region_key].astype(str).astype("category")
    regions = list(rows.obs[region_key].cat.categories)
    return TableModel.parse(rows, region=regions, region_key=region_key, instance_key=instance_key)
