"""Tables, the shapes that their rows are about, and the images that these lie on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e import _keys
from h2e._images import affine_of, open_image, same_scene, systems_of

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData


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


def source_images(
    sdata: SpatialData, *, table_key: str = _keys.TABLE, image_key: str | Mapping[str, str] | None = None
) -> list[str]:
    """Images that h2e works on: one for each region of the table, and those that no region lies on; never derived ones."""
    check_sdata(sdata)
    if isinstance(image_key, str):
        open_image(sdata, image_key)
        return [image_key]
    paired = [paired_image(sdata, region, image_key) for region in _regions(sdata, table_key)]
    found = sorted({*paired, *images_without_spots(sdata, table_key=table_key)})
    if not found:
        msg = f"there is no image to work on: sdata.images has {sorted(sdata.images)}."
        raise ValueError(msg)
    return found


def images_without_spots(sdata: SpatialData, *, table_key: str = _keys.TABLE) -> list[str]:
    """Images, the finest of each scene, that share no coordinate system with a region of the table."""
    taken = {system for region in _regions(sdata, table_key) for system in systems_of(shapes_of(sdata, region))}
    free = [key for key in _candidates(sdata) if not taken & set(systems_of(sdata.images[key]))]
    return [key for key in free if not any(same_scene(sdata, finer, key) for finer in free if finer != key)]


def paired_image(sdata: SpatialData, region: str, image_key: str | Mapping[str, str] | None = None) -> str:
    """The image that a region lies on: the finest of those that show the same scene in a shared coordinate system."""
    systems = set(systems_of(shapes_of(sdata, region)))
    if image_key is not None:
        key = image_key if isinstance(image_key, str) else image_key.get(region)
        if key is None:
            msg = f"image_key names no image for region {region!r}; it has {sorted(image_key)}."
            raise ValueError(msg)
        open_image(sdata, key)
        if not systems & set(systems_of(sdata.images[key])):
            msg = f"image {key!r} shares no coordinate system with region {region!r}: {systems_of(sdata.images[key])} and {sorted(systems)}. Set one with spatialdata.transformations.set_transformation."
            raise ValueError(msg)
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


def to_pixels(sdata: SpatialData, region: str, image_key: str) -> np.ndarray:
    """Affine matrix from the coordinates of the shapes to pixels of level 0 of the image."""
    shapes, image = shapes_of(sdata, region), sdata.images[image_key]
    system = next(s for s in systems_of(shapes) if s in systems_of(image))
    return np.linalg.solve(affine_of(image, system), affine_of(shapes, system))


def _candidates(sdata: SpatialData) -> list[str]:
    """Images that were not derived by h2e or squidpy from another one."""
    derived = {_keys.normalized(key) for key in sdata.images} | set(sdata.attrs.get("h2e", {}).get("stains", {}))
    return sorted(key for key in sdata.images if key not in derived)


def _regions(sdata: SpatialData, table_key: str) -> list[str]:
    """Names of the shapes that a table annotates; none without a table."""
    if table_key not in sdata.tables:
        return []
    table = sdata.tables[table_key]
    return sorted(set(table.obs[region_keys(table)[0]].astype(str)))


def shapes_of(sdata: SpatialData, region: str) -> GeoDataFrame:
    """The shapes that the table calls ``region``."""
    if region not in sdata.shapes:
        msg = f"the table annotates region {region!r}, which is not in sdata.shapes; it has {sorted(sdata.shapes)}."
        raise KeyError(msg)
    return sdata.shapes[region]
