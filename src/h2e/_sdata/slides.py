"""Slides: which image the spots lie on, where, and how large a pixel is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.pairing import paired_image, to_pixels
from h2e._sdata.scale import check_sizes, positive, size_of
from h2e._sdata.table import centres_of, get_table, labels_of, region_keys, shapes_of
from h2e._slide.image import Image
from h2e._slide.lattice import PITCH_UM, lattice, pitch_of
from h2e._slide.slide import Slide

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

log = logging.getLogger(__name__)

SPACED = 0.4
"""Spots of Visium and Spatial Transcriptomics have a radius of fewer pitches; bins that were read as circles touch, at 0.5."""


def find_slides(
    sdata: SpatialData,
    *,
    table_key: str = _keys.TABLE,
    image_key: str | Mapping[str, str] | None = None,
    library_key: str | None = None,
    group_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    normalized: bool = False,
    sized: bool = True,
) -> list[Slide]:
    """Every slide that the table annotates, sorted by name; with ``normalized``, on its normalized image if there is one.

    Without ``sized`` the size of a pixel may stay unknown.
    """
    table = get_table(sdata, table_key)
    region_key, _ = region_keys(table)
    library = labels_of(table, library_key or region_key)
    check_sizes(um_per_px, {*library, *sdata.images})
    groups = library if group_key is None else labels_of(table, group_key)
    regions = table.obs[region_key].astype(str).to_numpy()
    slides = []
    for name in sorted(set(library)):
        rows = np.flatnonzero(library == name)
        group = _the_one(groups[rows], f"slide {name!r} lies in several groups of obs[{group_key!r}]")
        region = _the_one(regions[rows], f"slide {name!r} of obs[{library_key!r}] lies on several regions")
        key = paired_image(sdata, region, image_key)
        image = open_image(sdata, key)
        if normalized and _keys.normalized(key) in sdata.images:
            image = open_image(sdata, _keys.normalized(key))
        given = size_of(um_per_px, name, key)
        shapes, to_px = shapes_of(sdata, region), to_pixels(sdata, region, key)
        slides.append(_place(name, group, region, image, rows, table, shapes, to_px, given, sized=sized))
    return slides


def image_sizes(
    sdata: SpatialData,
    keys: Sequence[str],
    um_per_px: float | Mapping[str, float] | None,
    *,
    table_key: str,
    image_key: str | Mapping[str, str] | None = None,
    library_key: str | None = None,
) -> dict[str, float | None]:
    """Size of a pixel of images in µm, ``None`` where neither the user nor spots tell it: no spots are needed for this."""
    slides: list[Slide] = []
    check_sizes(um_per_px, {*sdata.images, *_libraries(sdata, table_key, library_key)})
    options = {"table_key": table_key, "library_key": library_key, "um_per_px": um_per_px, "sized": False}
    choices = [image_key, None] if image_key is not None else [None]
    for choice in choices if table_key in sdata.tables else []:  # one image may lie under one of the regions only
        try:
            slides = find_slides(sdata, image_key=choice, **options)
        except (KeyError, ValueError) as error:  # what is wrong with the spots is told by who needs them
            log.info("the size of a pixel is not known from the spots: %s", error)
        else:
            break
    known = {slide.image.key: slide.um_per_px for slide in slides}
    return {key: known.get(key, size_of(um_per_px, key)) for key in keys}


def _place(
    name: str,
    group: str,
    region: str,
    image: Image,
    rows: np.ndarray,
    table: AnnData,
    shapes: GeoDataFrame,
    to_px: np.ndarray,
    um_per_px: float | None,
    *,
    sized: bool,
) -> Slide:
    """Put the spots of some rows of the table on their image."""
    pixels, index = centres_of(shapes, region, table.obs[region_keys(table)[1]].to_numpy()[rows], to_px)
    _check_inside(pixels[index], image, name)
    obs = table.obs.iloc[rows]
    (spacing, kind), pitch = pitch_of(lattice(pixels), pixels[index], obs)
    factor = float(np.sqrt(abs(np.linalg.det(to_px[:2, :2]))))  # pixels per unit of the shapes
    radius_px = _radius(shapes) * factor
    if um_per_px is None and _keys.UM_PER_PX in obs and obs[_keys.UM_PER_PX].notna().any():
        um_per_px = float(obs[_keys.UM_PER_PX].median()) / factor
    elif um_per_px is None and "radius" in shapes and radius_px < SPACED * spacing:
        log.info(
            "slide %r: %s lattice, pitch taken to be %g µm; pass um_per_px if it is not", name, kind, PITCH_UM[kind]
        )
        um_per_px = PITCH_UM[kind] / pitch
    elif um_per_px is None and sized:
        msg = f"the shapes of slide {name!r} are no spots with gaps between them, so their pitch is that of no technology that h2e knows (bins?); pass um_per_px, the size of a pixel of image {image.key!r}."
        raise ValueError(msg)
    if um_per_px is not None:
        um_per_px = positive(um_per_px, f"um_per_px of slide {name!r}")
    return Slide(name, group, region, image, pixels[index], rows, radius_px, spacing, um_per_px)


def _radius(shapes: GeoDataFrame) -> float:
    """Radius of a spot; of a bin, that of the circle of equal area."""
    if "radius" in shapes:
        return float(np.median(shapes["radius"]))
    return float(np.sqrt(np.median(shapes.area) / np.pi))


def _check_inside(xy: np.ndarray, image: Image, name: str) -> None:
    """Refuse spots whose centre is not on the image."""
    height, width = image.shape
    outside = ~((xy >= 0) & (xy <= (width, height))).all(axis=1)
    if outside.any():
        (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
        msg = (
            f"{outside.sum()} of {len(xy)} spots of slide {name!r} lie outside of image {image.key!r} ({width} × {height} px): "
            f"x from {x0:.0f} to {x1:.0f}, y from {y0:.0f} to {y1:.0f}. Check the transformations, or drop these spots from the table."
        )
        raise ValueError(msg)


def _libraries(sdata: SpatialData, table_key: str, library_key: str | None) -> set[str]:
    """Names of the slides of a table, if there is one."""
    if table_key not in sdata.tables:
        return set()
    table = sdata.tables[table_key]
    return set(labels_of(table, library_key or region_keys(table)[0]))


def _the_one(values: np.ndarray, complaint: str) -> str:
    """The value that all have in common."""
    found = sorted(set(values))
    if len(found) != 1:
        msg = f"{complaint}: {found}; a slide has one."
        raise ValueError(msg)
    return found[0]
