"""Predictions in the shape that other tools read: a table of their own for scanpy and squidpy, GeoJSON for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import footprints, get_table, region_keys, table_of
from h2e._sdata.targets import frame_of
from h2e._slide.image import read_coarse
from h2e._slide.slide import Slide
from h2e._warnings import refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def predictions(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.PREDICTION,
    drop_missing: bool = True,
    table_key: str = _keys.TABLE,
    image_key: str | Mapping[str, str] | None = None,
    image_px: int = 1000,
) -> AnnData:
    """Predictions as a table of their own, with the targets as variables, for scanpy and squidpy.

    Parameters
    ----------
    data
        Slides whose table :func:`h2e.tl.predict` wrote to, or that table.
    key
        Which predictions: ``"h2e"``, ``"h2e_loo"`` for the held-out ones, ``"h2e_std"`` for their spread.
    drop_missing
        Leave out the spots without a prediction.
    table_key
        Table over all slides.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    image_px
        Longest side of the image of each slide in ``uns["spatial"]``, at most; 0 takes none.

    Returns
    -------
    A new table: ``X`` the predictions, ``float32``, spots × targets, and ``obs``. It annotates the same spots, so
    ``sdata["predictions"] = h2e.get.predictions(sdata)`` makes it one of the tables of the slides. Of a table,
    ``obsm["spatial"]`` and ``uns["spatial"]`` are its own, if it has them. Of slides, ``obsm["spatial"]`` are the
    positions in pixels of the full-resolution image, and ``uns["spatial"]`` holds, for each region, a small image and
    its scale as Space Ranger has them.

    Raises
    ------
    KeyError
        There are no predictions under ``key``.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> ensemble = h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> h2e.tl.predict(sdata, ensemble, progress=False)
    >>> adata = h2e.get.predictions(sdata, key="h2e_loo")
    >>> adata.shape, adata.obsm["spatial"].shape, sorted(adata.uns["spatial"])
    ((44, 4), (44, 2), ['toy_A1', 'toy_B1'])
    """
    table = table_of(data, table_key)
    frame = frame_of(table, key, otherwise=" Write predictions with h2e.tl.predict.")
    keep = frame.notna().all(axis=1).to_numpy() if drop_missing else np.full(len(frame), fill_value=True)
    if len(frame) and not keep.any():
        held_out = _keys.held_out(key)
        hint = f": these are training slides, key={held_out!r}" if held_out in table.obsm else ""
        refuse(f"no spot has a prediction under {key!r}{hint}; drop_missing=False keeps rows without.")
    made = AnnData(frame.to_numpy(np.float32)[keep], obs=table.obs[keep].copy(), var=pd.DataFrame(index=frame.columns))
    if "spatialdata_attrs" in table.uns and made.n_obs:
        region_key = region_keys(table)[0]
        made.obs[region_key] = made.obs[region_key].astype(str).astype("category")
        regions = made.obs[region_key].cat.categories.tolist()
        made.uns["spatialdata_attrs"] = dict(table.uns["spatialdata_attrs"]) | {"region": regions}
    if table is data:
        if "spatial" in table.obsm:
            made.obsm["spatial"] = table.obsm["spatial"][keep]
        if "spatial" in table.uns:
            made.uns["spatial"] = table.uns["spatial"]
        return made
    slides = require_inside(open_slides(data, _keys.Keys(table_key, image_key)))
    xy = np.full((table.n_obs, 2), np.nan)
    for slide in slides:
        xy[slide.rows] = slide.xy
    made.obsm["spatial"] = xy[keep]
    made.uns["spatial"] = {slide.name: _as_space_ranger(slide, image_px) for slide in slides}
    return made


def _as_space_ranger(slide: Slide, image_px: int) -> dict[str, Any]:
    """A small image of a slide and its scale, under the names that Space Ranger gives them."""
    factors = {"spot_diameter_fullres": 2 * slide.radius_px}
    factors |= {} if slide.um_per_px is None else {"microns_per_pixel": slide.um_per_px}
    if image_px <= 0:
        return {"images": {}, "scalefactors": factors}
    pixels, scale = read_coarse(slide.image, max(slide.image.shape) / image_px)
    # Levels and block means come in steps.
    if max(pixels.shape) > image_px:
        step = int(np.ceil(max(pixels.shape) / image_px))
        pixels, scale = pixels[::step, ::step], scale * step
    return {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1 / scale} | factors}


def geojson(
    sdata: SpatialData,
    slide: str,
    *,
    key: str = _keys.PREDICTION,
    targets: str | Sequence[str] | None = None,
    classification: str | None = None,
    table_key: str = _keys.TABLE,
    image_key: str | Mapping[str, str] | None = None,
) -> str:
    """The spots of a slide as GeoJSON, for QuPath: detections with the predictions as measurements.

    Coordinates are pixels of the full-resolution image of the slide, which is the one to open in QuPath.

    Parameters
    ----------
    sdata
        Slides whose table :func:`h2e.tl.predict` wrote to.
    slide
        Region of the table.
    key
        Which predictions: ``"h2e"``, ``"h2e_loo"``, ``"h2e_std"``.
    targets
        Which of them; ``None`` takes all.
    classification
        Column of ``table.obs`` that becomes the class of each spot, such as a clustering.
    table_key
        Table over all slides.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.

    Returns
    -------
    The text of a feature collection: circles as polygons of 32 corners, bins as they are. A spot without a prediction
    has no measurements.

    Raises
    ------
    KeyError
        ``slide``, ``key``, a target or the column is not there.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> ensemble = h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> h2e.tl.predict(sdata, ensemble, progress=False)
    >>> text = h2e.get.geojson(sdata, "toy_B1", key="h2e_loo", classification="donor")
    >>> text[:62]
    '{"type":"FeatureCollection","features":[{"type":"Feature","geo'
    """
    import shapely.geometry

    table = get_table(sdata, table_key)
    frame = frame_of(table, key, otherwise=" Write predictions with h2e.tl.predict.")
    targets = list(frame) if targets is None else [targets] if isinstance(targets, str) else list(targets)
    by_name = {one.name: one for one in require_inside(open_slides(sdata, _keys.Keys(table_key, image_key)))}
    _require([slide], list(by_name), "slides")
    _require(targets, list(frame), f"targets of obsm[{key!r}]")
    _require([] if classification is None else [classification], list(table.obs), "columns of obs")
    one = by_name[slide]
    spots = table.obs.iloc[one.rows]
    classes = [None] * len(spots) if classification is None else spots[classification]
    outlines = footprints(sdata, one, spots[region_keys(table)[1]].to_numpy())
    values = frame[targets].to_numpy(float)[one.rows]
    features = []
    for name, outline, row, label in zip(spots.index, outlines, values, classes, strict=True):
        numbers = {target: float(f"{x:.5g}") for target, x in zip(targets, row, strict=True) if not np.isnan(x)}
        about: dict[str, object] = {"objectType": "detection", "name": str(name)}
        if not pd.isna(label):
            about["classification"] = {"name": str(label)}
        about["measurements"] = numbers
        geometry = shapely.geometry.mapping(shapely.transform(outline, lambda xy: xy.round(2)))
        features.append({"type": "Feature", "geometry": geometry, "properties": about})
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))


def _require(names: Sequence[str], known: list[str], what: str) -> None:
    """Refuse names that are not among the known."""
    missing = [name for name in names if name not in known]
    refuse_if(missing, f"{what} {missing} are not there; there are {known}.", KeyError)
