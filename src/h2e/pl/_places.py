"""Where the spots of a map are, how large, on which image: of a SpatialData, or of a table alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.expression import positions_of, slide_labels
from h2e._sdata.keys import Keys
from h2e._sdata.scale import check_sizes, given_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._slide.image import Image
from h2e._slide.lattice import lattice

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from h2e._slide.slide import Slide

log = logging.getLogger(__name__)

RADIUS = 0.45
"""Of a spot whose size is not known, in pitches."""

PICTURES = {"hires": "tissue_hires_scalef", "lowres": "tissue_lowres_scalef"}
"""Images in ``uns["spatial"]``, finest first, and the factor that leads from ``obsm["spatial"]`` to their pixels."""


@dataclass(frozen=True, eq=False)
class Place:
    """The spots of a slide."""

    name: str
    rows: np.ndarray  # (n,) in the table
    xy: np.ndarray  # (n, 2), in pixels of the image or the unit of obsm["spatial"]
    radius: float  # of a square bin, that of the circle of its area
    pitch: float
    um_per_unit: float | None
    image: Image | None
    angle: float | None = None  # by which a square bin is turned, in degrees; of round spots None


def places_of(
    sdata: SpatialData,
    *,
    table_key: str,
    image_key: str | Mapping[str, str] | None,
    library_key: str | None,
    um_per_px: float | Mapping[str, float] | None,
) -> list[Place]:
    """The slides of a SpatialData, by name."""
    keys = Keys(table_key, image_key, library_key=library_key, um_per_px=um_per_px)
    return [
        Place(
            slide.name, slide.rows, slide.xy, slide.radius_px, slide.spacing_px, slide.um_per_px, slide.image,
            _angle(sdata, slide),
        )
        for slide in require_inside(open_slides(sdata, keys))
    ]  # fmt: skip


def places_of_table(
    adata: AnnData, *, library_key: str | None, um_per_px: float | Mapping[str, float] | None
) -> list[Place]:
    """The slides of a table alone, by name, with what ``uns["spatial"]`` knows of them."""
    labels = slide_labels(adata, library_key)
    check_sizes(um_per_px, set(labels))
    positions, places = positions_of(adata, labels), []
    for name in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == name)
        xy = positions[rows]
        pitch = lattice(xy)[0] if len(np.unique(xy, axis=0)) > 1 else 1.0
        facts = _facts(adata, name) if "spatial" in adata.obsm else {}
        factors = facts.get("scalefactors", {})
        um = given_size(um_per_px, name)
        um = factors.get("microns_per_pixel") if um is None else um  # of obsm["spatial"], which may not be the shapes'
        if um is None and _keys.UM_PER_PX in adata.obs and "spatial" in adata.obsm:
            um = float(adata.obs[_keys.UM_PER_PX].iloc[rows[0]])
        radius, angle = RADIUS * pitch, None
        if "bin_size_um" in factors:  # Visium HD: squares without gaps
            radius, angle = pitch / np.sqrt(np.pi), _direction(xy, pitch)
        elif "spot_diameter_fullres" in factors:
            radius = factors["spot_diameter_fullres"] / 2
        known = library_key or "spatialdata_attrs" in adata.uns  # else it is the only one there is
        places.append(Place(name if known else "", rows, xy, radius, pitch, um, _image(facts, name), angle))
    return places


def _facts(adata: AnnData, name: str) -> Mapping[str, Any]:
    """What ``uns["spatial"]`` holds of a slide; of a single one, whatever its name."""
    every = adata.uns.get("spatial", {})
    return every.get(name, next(iter(every.values())) if name == "all" and len(every) == 1 else {})


def _image(facts: Mapping[str, Any], name: str) -> Image | None:
    """The images of ``uns["spatial"]`` as a pyramid over ``obsm["spatial"]``."""
    import dask.array as da

    images, factors = facts.get("images", {}), facts.get("scalefactors", {})
    levels, scales = [], []
    for key, factor in PICTURES.items():
        if key not in images or not factors.get(factor):
            continue
        pixels = np.asarray(images[key])
        in_unit = pixels.dtype.kind == "f" and pixels.max(initial=0) <= 1  # as scanpy reads them
        if pixels.ndim != 3 or pixels.shape[-1] < 3 or not (in_unit or pixels.dtype == np.uint8):
            what = "uns['spatial'][%r]['images'][%r] is not shown: it is %s of shape %s up to %g, not (y, x, 3) of uint8 or of floats in [0, 1]"
            log.warning(what, name, key, pixels.dtype, pixels.shape, pixels.max(initial=0))
            continue
        pixels = (pixels[..., :3] * (255 if in_unit else 1)).round().astype(np.uint8)
        levels.append(da.from_array(np.moveaxis(pixels, -1, 0), chunks=-1))
        scales.append(1 / factors[factor])
    return Image(name, tuple(levels), tuple(scales)) if levels else None


def _angle(sdata: SpatialData, slide: Slide) -> float | None:
    """By how many degrees the bins of a slide are turned on the image; ``None`` of shapes that are not squares."""
    shapes = sdata.shapes[slide.region]
    if "radius" in shapes or shapes.geometry.iloc[0].geom_type != "Polygon":
        return None
    corners = np.asarray(shapes.geometry.iloc[0].exterior.coords)[:, :2] @ slide.to_px[:2, :2].T
    sides = np.diff(corners, axis=0)
    lengths = np.linalg.norm(sides, axis=1)
    right = abs(sides[0] @ sides[1]) < 0.02 * lengths[0] * lengths[1]
    if len(sides) != 4 or np.ptp(lengths) > 0.02 * lengths[0] or not right:
        return None
    return _turn(sides[0])


def _direction(xy: np.ndarray, pitch: float) -> float:
    """By how many degrees the rows of a square lattice are turned."""
    from scipy.spatial import KDTree

    distance, nearest = KDTree(xy).query(xy[:100], k=2)
    links = (xy[nearest[:, 1]] - xy[:100])[np.abs(distance[:, 1] / pitch - 1) < 0.1]
    return float(np.median([_turn(link) for link in links])) if len(links) else 0.0


def _turn(side: np.ndarray) -> float:
    """Of the four directions of a square's sides, the one between -45 and 45 degrees."""
    return float((np.degrees(np.arctan2(side[1], side[0])) + 45) % 90 - 45)
