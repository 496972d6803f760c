"""Open the slides of a SpatialData, once a call: pair regions with images, place spots, find the size of a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata.images import open_image, systems_of
from h2e._sdata.keys import Keys
from h2e._sdata.pairing import find_pairing, to_pixels
from h2e._sdata.regions import Opener, Region
from h2e._sdata.scale import check_sizes
from h2e._sdata.table import check_sdata, get_table, labels_of, region_keys, shapes_of
from h2e._slide.slide import Slide, by_image
from h2e._warnings import log, refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def open_slides(sdata: SpatialData, keys: Keys, *, bare: bool = False) -> list[Slide]:
    """Every slide that the table annotates, sorted by name; with ``bare`` also the images that no spots lie on.

    Spots may lie beside their image, and the size of a pixel may be unknown: see ``require_inside`` and
    ``require_size``.
    """
    check_sdata(sdata)
    table = None if bare and not len(sdata.tables) else get_table(sdata, keys.table_key)
    return _open(sdata, keys, table, bare=bare)


def open_images(sdata: SpatialData, keys: Keys) -> dict[str, Slide]:
    """For each image to work on a slide that lies on it, by the image's name: one image if ``image_key`` is a name.

    What is wrong with the spots does not matter here: it is told by who needs them.
    """
    check_sdata(sdata)
    if isinstance(keys.image_key, str):
        return by_image(open_on_image(sdata, keys.image_key, keys))
    slides = _open(sdata, keys, sdata.tables.get(keys.table_key), bare=True, lenient=True)
    refuse_if(not slides, f"sdata must have an image to work on; sdata.images has {sorted(sdata.images)}.")
    return by_image(slides)


def open_on_image(sdata: SpatialData, image_key: str, keys: Keys) -> list[Slide]:
    """The slides on one image: those that lie there by themselves, or else can, or a slide without spots."""
    check_sdata(sdata)
    image = open_image(sdata, image_key)
    _check_sizes(sdata, keys)
    for by_itself in (True, False) if keys.table_key in sdata.tables else ():
        try:
            choice = None if by_itself else _all_that_can(sdata, image_key, keys)
            slides = open_slides(sdata, replace(keys, image_key=choice))
        except (KeyError, ValueError) as error:
            log.info("image %r is taken without spots: %s", image_key, error)
            continue
        if on_image := [slide for slide in slides if slide.image.key == image_key]:
            return on_image
    return [Opener(sdata, keys, find_pairing(sdata), {image_key: image}).without_spots(image_key)]


def _all_that_can(sdata: SpatialData, image_key: str, keys: Keys) -> dict[str, str]:
    """An image for each region: this one where they share a coordinate system, else that on which it lies."""
    pairing, table = find_pairing(sdata), get_table(sdata, keys.table_key)
    systems = set(systems_of(sdata.images[image_key]))
    return {
        region: image_key if systems & set(systems_of(shapes_of(sdata, region))) else pairing.image_of(region)
        for region in sorted(set(labels_of(table, region_keys(table)[0])))
    }


def open_by_image(
    sdata: SpatialData, image_key: str | Sequence[str] | Mapping[str, str] | None, keys: Keys
) -> dict[str, list[Slide]]:
    """For each image of ``image_key``, or of all, the slides on it, at least one; it may map regions to images."""
    if isinstance(image_key, Mapping) or image_key is None:
        opened = open_slides(sdata, replace(keys, image_key=image_key), bare=image_key is None)
        names = dict.fromkeys(by_image(opened) if image_key is None else image_key.values())
    else:
        names = dict.fromkeys([image_key] if isinstance(image_key, str) else image_key)
        opened = [slide for key in names for slide in open_on_image(sdata, key, keys)]
    return {key: [slide for slide in opened if slide.image.key == key] for key in names}


def open_bare_images(sdata: SpatialData, keys: Keys) -> list[Slide]:
    """The image that ``image_key`` names, or every image that no spots lie on but those that h2e laid as a grid."""
    pairing = find_pairing(sdata)
    opener = Opener(sdata, keys, pairing, {})
    if isinstance(keys.image_key, str):
        return [opener.without_spots(keys.image_key)]
    annotating = [table for table in sdata.tables.values() if "spatialdata_attrs" in table.uns]
    regions = {region for table in annotating for region in labels_of(table, region_keys(table)[0])}
    measured = sorted(region for region in regions if region in sdata.shapes and region not in pairing.grids)
    slides = _images_without_spots(opener, measured)
    refuse_if(not slides, f"each image already has spots; pass image_key, one of {sorted(sdata.images)}.")
    return slides


def require_inside(slides: Sequence[Slide]) -> list[Slide]:
    """The same slides, if all spots are on their images but those that are said to lie beside the tissue."""
    for slide in slides:
        height, width = slide.image.shape
        outside = ~((slide.xy >= 0) & (slide.xy <= (width, height))).all(axis=1) & slide.in_tissue
        if outside.any():
            (x0, y0), (x1, y1) = slide.xy.min(axis=0), slide.xy.max(axis=0)
            msg = f"{outside.sum()} of {len(slide)} spots of slide {slide.name!r} lie outside of image "
            msg += f"{slide.image.key!r} ({width} × {height} px): x from {x0:.0f} to {x1:.0f}, y from {y0:.0f} to "
            refuse(msg + f"{y1:.0f}. Check the transformations, or drop these spots from the table.")
    return list(slides)


def _open(sdata: SpatialData, keys: Keys, table: AnnData | None, *, bare: bool, lenient: bool = False) -> list[Slide]:
    """Open all slides; where a region is placed leniently and cannot be, its image is a slide without spots."""
    labels = _check_sizes(sdata, keys)
    opener = Opener(sdata, keys, find_pairing(sdata), {})
    slides = [] if table is None else _with_spots(opener, table, labels, lenient=lenient)
    if not bare:
        return slides
    regions = [] if table is None else sorted(set(labels_of(table, region_keys(table)[0])))
    return slides + _images_without_spots(opener, regions, needed=not slides)


def _images_without_spots(opener: Opener, regions: Sequence[str], *, needed: bool = True) -> list[Slide]:
    """Slides of the images that no region lies on.

    An image that no spots need may be anything, such as fluorescence, and is left out; not so where there is no other.
    """
    slides, unusable = [], []
    for key in opener.pairing.images_without_spots(regions):
        try:
            slides.append(opener.without_spots(key))
        except ValueError as error:
            unusable.append(error)
    if unusable and needed and not slides:
        raise unusable[0]
    for reason in unusable:
        log.warning("an image without spots is left out: %s", reason)
    return slides


def _check_sizes(sdata: SpatialData, keys: Keys) -> np.ndarray:
    """Refuse sizes of pixels of what is not there; gives the slide of each row of the table."""
    table = sdata.tables.get(keys.table_key)
    labels = np.empty(0, object) if table is None else labels_of(table, keys.library_key or region_keys(table)[0])
    check_sizes(keys.um_per_px, {*labels, *sdata.images})
    return labels


def _with_spots(opener: Opener, table: AnnData, labels: np.ndarray, *, lenient: bool) -> list[Slide]:
    """The slides of a table; each region is paired, placed and measured once, whatever the number of its slides."""
    keys = opener.keys
    regions = labels_of(table, region_keys(table)[0])
    groups = labels if keys.group_key is None else labels_of(table, keys.group_key)
    placed: dict[str, Region] = {}
    slides = []
    for name in sorted(set(labels)):
        rows = np.flatnonzero(labels == name)
        group = _the_one(groups[rows], f"slide {name!r} lies in several groups of obs[{keys.group_key!r}]")
        region = _the_one(regions[rows], f"slide {name!r} of obs[{keys.library_key!r}] lies on several regions")
        if region not in placed:
            image = opener.image(opener.pairing.image_of(region, keys.image_key))
            placed[region] = Region(opener, region, image, to_pixels(opener.sdata, region, image.key))
        try:
            slides.append(placed[region].slide(name, group, table, rows))
        except (KeyError, ValueError) as error:
            if not lenient:
                raise
            log.info("the size of a pixel is not known from the spots: %s", error)
            slides.append(opener.without_spots(placed[region].image.key))
    return slides


def _the_one(values: np.ndarray, complaint: str) -> str:
    """The value that all have in common."""
    distinct = sorted(set(values))
    if len(distinct) != 1:
        msg = (
            f"{complaint}: {distinct}; a slide has one. Pass as library_key a column that tells the slides apart: that "
        )
        refuse(msg + "of group_key, where several donors lie on one image, or one of region and donor.")
    return distinct[0]
