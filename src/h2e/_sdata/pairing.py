"""Tables, the shapes that their rows are about, and the images that these lie on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import affine_to_image, open_image, same_scene, systems_of
from h2e._sdata.provenance import get_provenance
from h2e._sdata.table import check_sdata, regions_of, shapes_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


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
    beside = [
        key for key in _candidates(sdata) if not any(is_same_scene(sdata, key, image) for image in grids.values())
    ]
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
        if grid is not None and not is_same_scene(sdata, key, grid):
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
        made = get_provenance(table, _keys.PARAMS).get(region, {})
        if made.get("function") == "make_spots" and made["image"] in sdata.images:
            return made["image"]
    return None


def is_same_scene(sdata: SpatialData, one: str, other: str) -> bool:
    """Whether two images are the same, or the same scene at two resolutions."""
    return one == other or same_scene(sdata, one, other) or same_scene(sdata, other, one)


def to_pixels(sdata: SpatialData, region: str, image_key: str) -> np.ndarray:
    """Affine matrix from the coordinates of the shapes to pixels of level 0 of the image."""
    return affine_to_image(sdata, image_key, shapes_of(sdata, region), f"region {region!r}")


def _candidates(sdata: SpatialData) -> list[str]:
    """Images that were not derived by h2e or squidpy from another one."""
    derived = {_keys.normalized(key) for key in sdata.images} | set(get_provenance(sdata, _keys.STAINS))
    mark = _keys.normalized("")
    derived |= {key for key in sdata.images if key.replace(f"{mark}-", "-") in set(sdata.images) - {key}}  # joined
    return sorted(key for key in sdata.images if key not in derived)
