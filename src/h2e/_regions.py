"""Tables, the shapes that their rows are about, and the images that these lie on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e import _keys
from h2e._images import onto, open_image, same_scene, systems_of
from h2e._notes import noted

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


def check_sdata(sdata: object) -> None:
    """Refuse what is no SpatialData."""
    if not hasattr(sdata, "tables"):
        msg = f"this needs a SpatialData, got {type(sdata).__name__}. An AnnData with images becomes one with spatialdata_io.experimental.from_legacy_anndata; see 'Other tools' in the documentation."
        raise TypeError(msg)


def get_table(sdata: SpatialData, table_key: str = _keys.TABLE) -> AnnData:
    """The table over all slides, or an error that lists what is there."""
    check_sdata(sdata)
    if table_key not in sdata.tables:
        there = sorted(sdata.tables)
        hint = "Pass table_key, or make a table with h2e.pp.make_spots"
        if len(there) > 1:
            hint += "; tables of several slides become one with spatialdata.concatenate([...], concatenate_tables=True)"
        msg = f"{table_key!r} is not in sdata.tables; it has {there}. {hint}."
        raise KeyError(msg)
    return sdata.tables[table_key]


def region_keys(table: AnnData) -> tuple[str, str]:
    """Names of the ``obs`` columns that say which shapes element, and which of its instances, a row is about."""
    attrs = table.uns.get("spatialdata_attrs")
    if attrs is None:
        msg = "the table annotates no element: uns['spatialdata_attrs'] is missing. Make it with spatialdata.models.TableModel.parse(table, region=..., region_key=..., instance_key=...)."
        raise ValueError(msg)
    return attrs["region_key"], attrs["instance_key"]


def labels_of(table: AnnData, key: str) -> np.ndarray:
    """A column of ``obs`` as strings, one per spot, none missing."""
    if key not in table.obs:
        msg = f"{key!r} is not in table.obs; it has {list(table.obs)}."
        raise KeyError(msg)
    missing = int(table.obs[key].isna().sum())
    if missing:
        msg = f"table.obs[{key!r}] is missing for {missing} of {table.n_obs} spots; fill it, or drop these spots."
        raise ValueError(msg)
    return table.obs[key].astype(str).to_numpy(dtype=object)


def in_tissue(table: AnnData) -> np.ndarray:
    """Rows that are not said to lie beside the tissue, as Space Ranger says with ``obs["in_tissue"] == 0``."""
    if "in_tissue" not in table.obs:
        return np.ones(table.n_obs, bool)
    return ~table.obs["in_tissue"].astype(str).isin(["0", "0.0", "False"]).to_numpy()


def source_images(
    sdata: SpatialData, *, table_key: str = _keys.TABLE, image_key: str | Mapping[str, str] | None = None
) -> list[str]:
    """Images that h2e works on: one for each region of the table, and those that no region lies on; never derived ones."""
    check_sdata(sdata)
    if isinstance(image_key, str):
        open_image(sdata, image_key)
        return [image_key]
    paired = [paired_image(sdata, region, image_key) for region in regions_of(sdata, table_key)]
    found = sorted({*paired, *images_without_spots(sdata, table_key=table_key)})
    if not found:
        for key in _candidates(sdata):
            open_image(sdata, key)  # says why an image is none to work on
        msg = f"there is no image to work on: sdata.images has {sorted(sdata.images)}."
        raise ValueError(msg)
    return found


def images_without_spots(sdata: SpatialData, *, table_key: str = _keys.TABLE) -> list[str]:
    """Images, the finest of each scene, that share no coordinate system with a region of the table."""
    regions = regions_of(sdata, table_key)
    grids = {region: image for region in regions if (image := image_of_grid(sdata, region)) is not None}
    taken = {system for region in regions if region not in grids for system in systems_of(shapes_of(sdata, region))}
    beside = [key for key in _candidates(sdata) if not any(one_scene(sdata, key, image) for image in grids.values())]
    free = [key for key in beside if not taken & set(systems_of(sdata.images[key]))]
    finest = [key for key in free if not any(same_scene(sdata, finer, key) for finer in free if finer != key)]
    return [key for key in finest if _is_rgb(sdata, key)]


def _is_rgb(sdata: SpatialData, key: str) -> bool:
    """Whether an image that no spots need can be an H&E; what is none, such as fluorescence, is left out."""
    try:
        open_image(sdata, key)
    except ValueError as error:
        log.warning("an image without spots is left out: %s", error)
        return False
    return True


def paired_image(sdata: SpatialData, region: str, image_key: str | Mapping[str, str] | None = None) -> str:
    """The image that a region lies on: the finest of those that show the same scene in a shared coordinate system."""
    systems = set(systems_of(shapes_of(sdata, region)))
    key, grid = image_key.get(region) if isinstance(image_key, Mapping) else image_key, image_of_grid(sdata, region)
    if grid is not None and key is None:
        return grid
    if image_key is not None:
        if key is None:
            msg = f"image_key names no image for region {region!r}; it has {sorted(image_key)}."
            raise ValueError(msg)
        open_image(sdata, key)
        if grid is not None and not one_scene(sdata, key, grid):
            msg = f"the spots {region!r} are a grid over image {grid!r}, not over {key!r}; lay one over that, too, with h2e.pp.make_spots(sdata, image_key={key!r}, …), and leave image_key out."
            raise ValueError(msg)
        to_pixels(sdata, region, key)
        return key
    there = [key for key in _candidates(sdata) if systems & set(systems_of(sdata.images[key]))]
    finest = [key for key in there if all(key == other or same_scene(sdata, key, other) for other in there)]
    if len(finest) != 1:
        what = (
            "no image"
            if not there
            else f"{len(there)} images {there} that do not show one scene at several resolutions"
        )
        msg = f"region {region!r} shares a coordinate system with {what}; sdata.images has {sorted(sdata.images)}. Pass image_key: a name, or a mapping from region to name."
        raise ValueError(msg)
    return finest[0]


def image_of_grid(sdata: SpatialData, region: str) -> str | None:
    """The image that h2e laid the spots of a region over, if it did."""
    for table in sdata.tables.values():
        made = noted(table, _keys.PARAMS).get(region, {})
        if made.get("function") == "make_spots" and made["image"] in sdata.images:
            return made["image"]
    return None


def one_scene(sdata: SpatialData, one: str, other: str) -> bool:
    """Whether two images are the same, or the same scene at two resolutions."""
    return one == other or same_scene(sdata, one, other) or same_scene(sdata, other, one)


def to_pixels(sdata: SpatialData, region: str, image_key: str) -> np.ndarray:
    """Affine matrix from the coordinates of the shapes to pixels of level 0 of the image."""
    return onto(sdata, image_key, shapes_of(sdata, region), f"region {region!r}")


def centres_of(
    shapes: GeoDataFrame, region: str, instances: np.ndarray, to_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all shapes of a region in pixels, (n, 2), and which of them the instances are."""
    if not shapes.index.is_unique:
        twice = shapes.index[shapes.index.duplicated()][0]
        msg = f"shapes {region!r} have several entries of one name, such as {str(twice)!r}; make their index unique."
        raise ValueError(msg)
    index = shapes.index.get_indexer(instances)
    if (index < 0).any():
        odd = (
            ""
            if instances.dtype == shapes.index.dtype
            else f" (of dtype {instances.dtype}, the shapes' index is {shapes.index.dtype})"
        )
        msg = f"{(index < 0).sum()} rows of the table name instances that shapes {region!r} does not have, such as {instances[index < 0][0]!r}{odd}."
        raise ValueError(msg)
    centres = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y])
    return centres @ to_px[:2, :2].T + to_px[:2, 2], index


def _candidates(sdata: SpatialData) -> list[str]:
    """Images that were not derived by h2e or squidpy from another one."""
    derived = {_keys.normalized(key) for key in sdata.images} | set(noted(sdata, _keys.STAINS))
    mark = _keys.normalized("")
    derived |= {key for key in sdata.images if key.replace(f"{mark}-", "-") in set(sdata.images) - {key}}  # joined
    return sorted(key for key in sdata.images if key not in derived)


def regions_of(sdata: SpatialData, table_key: str) -> list[str]:
    """Names of the shapes that a table annotates; none without a table."""
    if table_key not in sdata.tables:
        return []
    table = sdata.tables[table_key]
    return sorted(set(labels_of(table, region_keys(table)[0])))


def shapes_of(sdata: SpatialData, region: str) -> GeoDataFrame:
    """The shapes that the table calls ``region``."""
    if region not in sdata.shapes:
        msg = f"the table annotates region {region!r}, which is not in sdata.shapes; it has {sorted(sdata.shapes)}. Drop these rows of the table, or add the shapes."
        raise KeyError(msg)
    return sdata.shapes[region]
