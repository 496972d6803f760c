"""The slides of a table alone, with what ``uns["spatial"]`` knows of them, as scanpy and squidpy keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import positions_of, slide_labels, stored_positions
from h2e._sdata.scale import Evidence, Sizes, check_sizes, positive, size_given, size_in_obs
from h2e._sdata.table import region_keys, turn_deg, unused_keys
from h2e._slide.image import Image
from h2e._slide.lattice import lattice
from h2e._slide.slide import Slide
from h2e._warnings import log, refuse

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData

RADIUS = 0.45
"""Of a spot whose size is not known, in pitches."""


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
        pitch = _pitch(xy)
        facts = _facts(adata, name) if "spatial" in adata.obsm else {}
        factors = facts.get("scalefactors", {})
        # Of obsm["spatial"], which need not have the unit of the shapes.
        sizes = size_given(um_per_px, name)
        if um := factors.get("microns_per_pixel"):
            sizes.append(Evidence(float(um), "scalefactors"))
        if not sizes and "spatial" in adata.obsm:
            sizes = size_in_obs(adata.obs.iloc[rows], name)
        angle = _direction(xy, pitch) if "bin_size_um" in factors else None
        slide = Slide.without_spots(_image(facts, name), sizes[0].um_per_px if sizes else None, "the table")
        slide = replace(slide, name=name if named else "", xy=xy, rows=rows, in_tissue=np.ones(len(rows), bool))
        slides.append(replace(slide, radius_px=_radius(factors, pitch), spacing_px=pitch, angle_deg=angle))
    return slides


def slide_from_table(name: str, adata: AnnData, table_key: str) -> SpatialData:
    """A table alone as a slide: circles in the unit of ``obsm["spatial"]``, on the finest image that there is."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    every, table = adata.uns.get("spatial", {}), adata.to_memory() if adata.isbacked else adata.copy()
    facts = _facts(adata, name if name in every else "all")
    scales = _scales(facts)
    xy = stored_positions(adata) if "spatial" in adata.obsm else np.full((adata.n_obs, 2), np.nan)
    labels = (set(adata.obs[key].astype(str)) for key in adata.obs.select_dtypes(["object", "category"]))
    several = any(len(found) > 1 and found <= set(every) for found in labels)
    placed = np.isfinite(xy).all(axis=1)
    if several or not scales or not placed.all():
        msg = f"it must be one slide, got in uns['spatial'] {sorted(every)}, with an image and its scale, such as "
        msg += f"'hires' and 'tissue_hires_scalef', got {sorted(facts.get('images', {}))} and "
        msg += f"{sorted(facts.get('scalefactors', {}))}, and a position of each spot in obsm['spatial'], got "
        msg += f"{placed.sum()} of {len(xy)}. Of several slides pass each under its name there, as adata[adata.obs[…] "
        refuse(msg + "== name]; a slide without images must be a SpatialData; drop spots without position.")
    keys, (picture, scale) = table.uns.pop("spatialdata_attrs", {}), next(iter(scales.items()))
    region_key, instance_key = region_keys(adata) if keys else unused_keys("region", "instance_id", set(table.obs))
    table.obs[region_key], table.obs[instance_key] = pd.Categorical([name] * len(xy)), np.arange(len(xy))
    # It was about obsm["spatial"], and becomes about the image.
    if _keys.UM_PER_PX in table.obs:
        sizes, what = table.obs[_keys.UM_PER_PX].astype(object), f"obs[{_keys.UM_PER_PX!r}]"
        sizes = [np.nan if pd.isna(size) else positive(size, what) * scale for size in sizes]
        table.obs[_keys.UM_PER_PX] = sizes
    table.uns["spatial"] = {name: {key: value for key, value in facts.items() if key != "images"}}
    table = TableModel.parse(table, region=name, region_key=region_key, instance_key=instance_key)
    at = {name: Scale([scale, scale], axes=("x", "y"))}
    pixels = _rgb(facts["images"][picture], f"its finest image, {picture!r},")
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=at)
    radius = _radius(facts.get("scalefactors", {}), _pitch(xy))
    shapes = ShapesModel.parse(xy, geometry=0, radius=radius, transformations={name: Identity()})
    return SpatialData(images={f"{name}_{picture}": image}, shapes={name: shapes}, tables={table_key: table})


def _facts(adata: AnnData, name: str) -> Mapping[str, Any]:
    """What ``uns["spatial"]`` holds of a slide; of a single one, whatever its name."""
    every = adata.uns.get("spatial", {})
    return every.get(name, next(iter(every.values())) if name == "all" and len(every) == 1 else {})


def _pitch(xy: np.ndarray) -> float:
    """The distance of neighbouring spots; of a single one 1."""
    return lattice(xy)[0] if len(np.unique(xy, axis=0)) > 1 else 1.0


def _radius(factors: Mapping[str, Any], pitch: float) -> float:
    """The radius of a spot; bins (Visium HD) are squares without gaps, and have that of a circle of equal area."""
    if "bin_size_um" in factors:
        return float(pitch / np.sqrt(np.pi))
    return float(factors["spot_diameter_fullres"]) / 2 if "spot_diameter_fullres" in factors else RADIUS * pitch


def _scales(facts: Mapping[str, Any]) -> dict[str, float]:
    """How many units of ``obsm["spatial"]`` a pixel of each image of ``uns["spatial"]`` is wide, finest first."""
    factors = {key: facts.get("scalefactors", {}).get(f"tissue_{key}_scalef") for key in facts.get("images", {})}
    widths = {key: 1 / positive(factor, f"tissue_{key}_scalef", unit="") for key, factor in factors.items() if factor}
    return dict(sorted(widths.items(), key=lambda width: width[1]))


def _rgb(pixels: Any, what: str) -> da.Array:
    """An image of ``uns["spatial"]`` as (c, y, x) of 8 bit, to which floats in [0, 1] are brought."""
    import dask.array as da

    pixels = np.asarray(pixels)
    in_unit = pixels.dtype.kind == "f" and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 1
    if pixels.ndim != 3 or pixels.shape[-1] not in (3, 4) or not (in_unit or pixels.dtype == np.uint8):
        refuse(f"{what} is {pixels.dtype} of shape {pixels.shape}, not (y, x, 3) of uint8 or of floats in [0, 1]")
    pixels = (pixels[..., :3] * (255 if in_unit else 1)).round().astype(np.uint8)
    return da.from_array(pixels.transpose(2, 0, 1), chunks=-1)


def _image(facts: Mapping[str, Any], name: str) -> Image:
    """The images of ``uns["spatial"]`` as a pyramid over ``obsm["spatial"]``."""
    levels, scales = [], []
    for key, scale in _scales(facts).items():
        try:
            levels.append(_rgb(facts["images"][key], f"uns['spatial'][{name!r}]['images'][{key!r}] is not shown: it"))
            scales.append(scale)
        except ValueError as error:
            log.warning("%s", error)
    return Image(name, tuple(levels), tuple(scales))


def _direction(xy: np.ndarray, pitch: float) -> float:
    """By how many degrees the rows of a square lattice are turned."""
    from scipy.spatial import KDTree

    distance, nearest = KDTree(xy).query(xy[:100], k=2)
    links = (xy[nearest[:, 1]] - xy[:100])[np.abs(distance[:, 1] / pitch - 1) < 0.1]
    return float(np.median([turn_deg(link) for link in links])) if len(links) else 0.0
