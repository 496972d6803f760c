"""Spots with their predictions for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.keys import Keys
from h2e._sdata.outlines import outlines_of
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table, region_keys
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
    The text of a feature collection: circles as polygons of 32 corners, bins as they are. A spot without a prediction has no
    measurements.

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
    table = get_table(sdata, table_key)
    frame = frame_of(table, key, otherwise=" Write predictions with h2e.tl.predict.")
    targets = list(frame) if targets is None else [targets] if isinstance(targets, str) else list(targets)
    by_name = {one.name: one for one in require_inside(open_slides(sdata, Keys(table_key, image_key)))}
    columns = [] if classification is None else [classification]
    for asked, there, what in (
        ([slide], list(by_name), "slides"),
        (targets, list(frame), f"targets of obsm[{key!r}]"),
        (columns, list(table.obs), "columns of obs"),
    ):
        missing = [name for name in asked if name not in there]
        if missing:
            msg = f"{what} {missing} are not there; there are {there}."
            raise KeyError(msg)
    one = by_name[slide]
    values = frame[targets].to_numpy(float)[one.rows]
    classes = None if classification is None else table.obs[classification].iloc[one.rows]
    instances = table.obs[region_keys(table)[1]].to_numpy()[one.rows]
    features = []
    for i, outline in enumerate(outlines_of(sdata, one, instances)):
        found = {
            target: float(f"{value:.5g}") for target, value in zip(targets, values[i], strict=True) if value == value
        }
        about = {"objectType": "detection", "name": str(table.obs_names[one.rows[i]])}
        about |= (
            {} if classes is None or pd.isna(classes.iloc[i]) else {"classification": {"name": str(classes.iloc[i])}}
        )
        kind = "Polygon" if len(outline) == 1 else "MultiPolygon"
        geometry = {"type": kind, "coordinates": outline[0] if len(outline) == 1 else outline}
        features.append({"type": "Feature", "geometry": geometry, "properties": about | {"measurements": found}})
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
