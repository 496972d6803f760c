"""The slides of a table alone, with what ``uns["spatial"]`` knows of them, as scanpy and squidpy keep it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import positions_of, slide_labels
from h2e._sdata.scale import Sizes, check_sizes, size_given
from h2e._sdata.table import turn_deg
from h2e._slide.image import Image
from h2e._slide.lattice import lattice
from h2e._slide.slide import Slide

log = logging.getLogger(__name__)

RADIUS = 0.45
"""Of a spot whose size is not known, in pitches."""

PICTURES = {"hires": "tissue_hires_scalef", "lowres": "tissue_lowres_scalef"}
"""Images in ``uns["spatial"]``, finest first, and the factor that leads from ``obsm["spatial"]`` to their pixels."""


def slides_of_table(adata: AnnData, *, library_key: str | None, um_per_px: Sizes) -> list[Slide]:
    """The slides of a table alone, by name; pixels are the unit of ``obsm["spatial"]``, an image may have no levels."""
    labels = slide_labels(adata, library_key)
    check_sizes(um_per_px, set(labels))
    # Else it is the only slide, and has no name.
    named = library_key or "spatialdata_attrs" in adata.uns
    positions, slides = positions_of(adata, labels), []
    for name in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == name)
        xy = positions[rows]
        pitch = lattice(xy)[0] if len(np.unique(xy, axis=0)) > 1 else 1.0
        facts = _facts(adata, name) if "spatial" in adata.obsm else {}
        factors = facts.get("scalefactors", {})
        # Of obsm["spatial"], which need not have the unit of the shapes.
        given = size_given(um_per_px, name)
        um = given[0].um_per_px if given else factors.get("microns_per_pixel")
        if um is None and _keys.UM_PER_PX in adata.obs and "spatial" in adata.obsm:
            um = float(adata.obs[_keys.UM_PER_PX].iloc[rows[0]])
        radius, angle = RADIUS * pitch, None
        # Visium HD: squares without gaps.
        if "bin_size_um" in factors:
            radius, angle = pitch / np.sqrt(np.pi), _direction(xy, pitch)
        elif "spot_diameter_fullres" in factors:
            radius = factors["spot_diameter_fullres"] / 2
        slide = Slide.without_spots(_image(facts, name), um, "the table")
        about: dict[str, Any] = {"name": name if named else "", "in_tissue": np.ones(len(rows), bool)}
        about |= {"radius_px": radius, "spacing_px": pitch, "angle_deg": angle}
        slides.append(replace(slide, xy=xy, rows=rows, **about))
    return slides


def _facts(adata: AnnData, name: str) -> Mapping[str, Any]:
    """What ``uns["spatial"]`` holds of a slide; of a single one, whatever its name."""
    every = adata.uns.get("spatial", {})
    return every.get(name, next(iter(every.values())) if name == "all" and len(every) == 1 else {})


def _image(facts: Mapping[str, Any], name: str) -> Image:
    """The images of ``uns["spatial"]`` as a pyramid over ``obsm["spatial"]``."""
    import dask.array as da

    images, factors = facts.get("images", {}), facts.get("scalefactors", {})
    levels, scales = [], []
    for key, factor in PICTURES.items():
        if key not in images or not factors.get(factor):
            continue
        pixels = np.asarray(images[key])
        # As scanpy reads them.
        in_unit = pixels.dtype.kind == "f" and pixels.max(initial=0) <= 1
        if pixels.ndim != 3 or pixels.shape[-1] < 3 or not (in_unit or pixels.dtype == np.uint8):
            what = "uns['spatial'][%r]['images'][%r] is not shown: it is %s of shape %s up to %g, not (y, x, 3) of "
            what += "uint8 or of floats in [0, 1]"
            log.warning(what, name, key, pixels.dtype, pixels.shape, pixels.max(initial=0))
            continue
        pixels = (pixels[..., :3] * (255 if in_unit else 1)).round().astype(np.uint8)
        levels.append(da.from_array(np.moveaxis(pixels, -1, 0), chunks=-1))
        scales.append(1 / factors[factor])
    return Image(name, tuple(levels), tuple(scales))


def _direction(xy: np.ndarray, pitch: float) -> float:
    """By how many degrees the rows of a square lattice are turned."""
    from scipy.spatial import KDTree

    distance, nearest = KDTree(xy).query(xy[:100], k=2)
    links = (xy[nearest[:, 1]] - xy[:100])[np.abs(distance[:, 1] / pitch - 1) < 0.1]
    return float(np.median([turn_deg(link) for link in links])) if len(links) else 0.0
