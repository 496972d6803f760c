"""How large a pixel is, and what says so: every source is heard, and sources that contradict each other are refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.images import affine_of, systems_of
from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._warnings import refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData

GIVEN = "um_per_px="
"""What tells the size of a pixel that the caller gave."""

AGREE = 1.05
"""Ratio up to which two sources say the same."""

IN_UM = r"(^|[^a-z])(um|µm|μm|mum|microns?|micromet(er|re)s?)$"
"""Names of coordinate systems whose unit is a µm."""

BIN_UM = r"(?:^|[^0-9.])0*(\d+) ?um(?![a-z])"
"""Names of bins that say their size, such as ``square_016um``."""

NARROW_MM = 1.0
"""Longer side of an image that, as a smaller copy of another, is too narrow for a slide: a scan has 5 to 75 mm."""

Sizes = float | Mapping[str, float] | None
"""µm per pixel: one number for all, or by the name of the slide or of the image."""


class Evidence(NamedTuple):
    """A size of a pixel, and what says so."""

    um_per_px: float
    source: str


def settle(evidence: Sequence[Evidence], name: str, image: Image, *, missing: str) -> tuple[float | None, str]:
    """The size of a pixel of level 0 by its first source, which the others must agree with; else what is missing."""
    if not evidence:
        return None, missing
    first, *others = evidence
    for other in others:
        if not 1 / AGREE <= other.um_per_px / first.um_per_px <= AGREE:
            height, width = image.shape
            msg = f"the size of a pixel of slide {name!r} must be one, got {first.um_per_px:.4g} µm ({first.source}) "
            msg += f"and {other.um_per_px:.4g} µm ({other.source}) for image {image.key!r} ({width} × {height} px): "
            refuse(msg + "that of its finest level, not of a scan that it is a smaller copy of; correct what is wrong.")
    return first.um_per_px, first.source


def size_given(um_per_px: Sizes, *names: str) -> list[Evidence]:
    """What the caller gave as the size of a pixel: one number for all, or that of the first name that has one."""
    if isinstance(um_per_px, Mapping):
        um_per_px = next((um_per_px[name] for name in names if name in um_per_px), None)
    return [] if um_per_px is None else [Evidence(positive(um_per_px, f"um_per_px of slide {names[0]!r}"), GIVEN)]


def size_in_obs(obs: pd.DataFrame, name: str) -> list[Evidence]:
    """The size that the table states for the spots of a slide."""
    if _keys.UM_PER_PX not in obs or not obs[_keys.UM_PER_PX].notna().any():
        return []
    what = f"table.obs[{_keys.UM_PER_PX!r}] of slide {name!r}"
    # Read from a CSV file, they may be text or categories; mostly all are one.
    column = obs[_keys.UM_PER_PX].dropna().astype(object)
    sizes = column.map({size: positive(size, what) for size in column.unique()}).astype(float)
    refuse_if(sizes.max() > AGREE * sizes.min(), f"{what} must be one number, got {sizes.min():g} to {sizes.max():g}.")
    return [Evidence(float(sizes.median()), "table.obs")]


def size_by_affine(sdata: SpatialData, image_key: str) -> list[Evidence]:
    """The sizes by the coordinate systems that are in µm by their names."""
    image = sdata.images[image_key]
    in_um = [system for system in systems_of(image) if re.search(IN_UM, system, re.IGNORECASE)]
    for system in in_um:
        wide, narrow = np.linalg.svd(affine_of(image, system)[:2, :2], compute_uv=False)
        if wide > AGREE * narrow:
            msg = f"pixels of image {image_key!r} must be squares, got {narrow:.4g} × {wide:.4g} µm by its affine to "
            refuse(msg + f"{system!r}; correct it, or resample the image.")
    return [Evidence(_unit_of(image, system), f"affine to µm: {system!r}") for system in in_um]


def size_by_scalefactors(factors: Mapping[str, Any], diameter_px: float, factor: float) -> list[Evidence]:
    """The sizes by ``scalefactors_json.json`` of Space Ranger, as readers keep it in ``uns["spatial"]``.

    These speak of pixels of the full-resolution image; ``factor`` is pixels of this image per unit of the spots'
    coordinates. Where the diameter of a spot denies that these units are pixels of the full-resolution image, nothing
    is told.
    """
    units = {"spot_diameter_fullres": " of pixels", "microns_per_pixel": " of µm", "bin_size_um": " of µm"}
    diameter, um, side = (
        positive(factors[key], key, unit=unit) if factors.get(key) else 0.0 for key, unit in units.items()
    )
    if diameter and not 1 / AGREE <= diameter_px / (diameter * factor) <= AGREE:
        return []
    evidence = [Evidence(um / factor, "scalefactors: microns_per_pixel")] if um else []
    return evidence + ([Evidence(side / diameter_px, "scalefactors: bin_size_um")] if side else [])


def size_by_bin_name(names: Sequence[str], side_px: float) -> list[Evidence]:
    """The size by the side of bins, which their name says."""
    sizes = (re.search(BIN_UM, name, re.IGNORECASE) for name in names)
    return [Evidence(int(size[1]) / side_px, f"bins of {int(size[1])} µm by name") for size in sizes if size][:1]


def check_not_of_scan(sdata: SpatialData, image: Image, um_per_px: float) -> None:
    """Refuse the size of the scan's pixels for a thumbnail: the image would be too narrow for a slide."""
    side_mm = max(image.shape) * um_per_px / 1000
    element = sdata.images[image.key]
    unit = max(_unit_of(element, system) for system in systems_of(element))
    # An image that is scaled by the size of its own pixels lies in a system in µm.
    if side_mm >= NARROW_MM or unit < 1.5 or 1 / AGREE <= unit / um_per_px <= AGREE:
        return
    msg = f"um_per_px={um_per_px:g} would make image {image.key!r} {side_mm:.2g} mm wide: it is a smaller copy of a "
    msg += f"scan, by {unit:g} in its coordinates; pass {um_per_px * unit:.4g} if {um_per_px:g} is that of the scan."
    raise ValueError(msg)


def _unit_of(image: object, system: str) -> float:
    """Units of a coordinate system per pixel of an image."""
    return float(np.sqrt(abs(np.linalg.det(affine_of(image, system)[:2, :2]))))


def require_size(slides: Sequence[Slide]) -> list[Slide]:
    """The same slides, if the size of a pixel is known of all."""
    for slide in slides:
        slide.require_size()
    return list(slides)


def positive(value: Any, what: str, *, unit: str = " of µm") -> float:
    """A positive number, which may be text, or an error that says what is none."""
    try:
        number = float(value) if np.ndim(value) == 0 and not isinstance(value, bool | np.bool_) else np.nan
    except (TypeError, ValueError):
        number = np.nan
    refuse_if(not (np.isfinite(number) and number > 0), f"{what} must be a positive number{unit}, got {value!r}.")
    return number


def check_sizes(um_per_px: Sizes, names: Collection[str]) -> None:
    """Refuse sizes that are not positive, and those of slides or images that are not there."""
    if um_per_px is None:
        return
    if not isinstance(um_per_px, Mapping):
        um_per_px = {"each image": um_per_px}
    elif unknown := sorted(set(um_per_px) - set(names)):
        msg = f"um_per_px names {unknown}, which are neither slides nor images; there are {sorted(set(names))}."
        raise KeyError(msg)
    for name, value in um_per_px.items():
        positive(value, f"um_per_px of {name}")
