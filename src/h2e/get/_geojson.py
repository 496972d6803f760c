"""Spots with their predictions for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import footprints, get_table, region_keys
from h2e._sdata.targets import frame_of

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
    if missing:
        msg = f"{what} {missing} are not there; there are {known}."
        raise KeyError(msg)
