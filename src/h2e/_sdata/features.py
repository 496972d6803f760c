"""Features of spots in ``.obsm``: written with what they were made by, and tile features averaged over the spots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance, set_provenance
from h2e._sdata.table import footprints, region_keys
from h2e._slide.slide import Slide
from h2e._warnings import log, refuse, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData

AGREE = 0.02
"""Share by which lengths of two records may differ: spacings of one technology are measured anew on each slide."""

GAP = 1.05
"""Sides of a tile from which on neighbouring tiles leave gaps; those of most tools touch or overlap."""


def write_features(table: AnnData, rows: np.ndarray, x: np.ndarray, key: str, facts: Mapping[str, Any]) -> None:
    """Write the features of all rows of the table to ``obsm``, in its order, and what they were made by."""
    whole = np.full((table.n_obs, x.shape[1]), np.nan, x.dtype)
    whole[rows] = x
    table.obsm[key] = whole
    set_provenance(table, _keys.PARAMS, key, facts)
    log.info("wrote obsm[%r]: %d spots × %d features, %s", key, *whole.shape, whole.dtype)


def features_record(table: AnnData, key: str) -> dict[str, Any]:
    """What is on record about features in ``obsm``, plain numbers and strings; empty if nothing is."""
    facts = get_provenance(table, _keys.PARAMS).get(key, {})
    return {name: np.asarray(value).tolist() for name, value in facts.items()}


def check_features(table: AnnData, key: str, trained: Mapping[str, Any]) -> None:
    """Refuse features that were made by something else than those that an ensemble was trained on."""
    own = features_record(table, key)
    if trained and not own and key in table.obsm:
        warn(f"nothing is on record about obsm[{key!r}]: it must hold what the models were trained on, {trained}.")
    differ = [name for name in {**trained, **own} if not _agree(trained.get(name), own.get(name))]
    if trained and own and differ:
        told = [{name: facts.get(name) for name in differ} for facts in (own, trained)]
        msg = f"obsm[{key!r}] must be made as the features that the ensemble was trained on, {told[1]}, got {told[0]}; "
        refuse(msg + "make it again with the same encoder, views and kind of image.")


def _agree(one: Any, other: Any) -> bool:
    """Whether two facts are the same; lengths nearly."""
    try:
        return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=AGREE))
    except (TypeError, ValueError):
        return bool(one == other)


def average_tiles(
    sdata: SpatialData, table: AnnData, slide: Slide, features: np.ndarray, coords: np.ndarray, *, side_px: float
) -> np.ndarray:
    """Mean features of the tiles under each spot of a slide, weighed by the area of overlap, ``float32``; NaN without.

    ``coords`` are the upper left corners of the tiles in pixels of level 0, ``side_px`` is their side.
    """
    import shapely
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    size, (x, y) = np.array(slide.image.shape[::-1]), coords.T
    outside = ~((coords > -side_px) & (coords < size)).all(axis=1)
    if outside.any():
        msg = f"coords must be pixels of image {slide.image.key!r} ({size[0]} × {size[1]} px), but {outside.sum()} of "
        msg += f"{len(coords)} tiles of slide {slide.name!r} lie beside it: x to {x.max():.0f}, y to {y.max():.0f}. "
        refuse(msg + "Pass coords_um_per_px= of the pixels that coords are in, or check the order, x before y.")
    nearest = KDTree(coords).query(coords, k=2)[0][:, 1] if len(coords) > 1 else np.zeros(1)
    if (step := float(np.median(nearest))) > GAP * side_px:
        um = slide.require_size()
        warn(f"tiles of slide {slide.name!r} are {step * um:.4g} µm apart, but tile_um is {side_px * um:.4g}.")
    spots = footprints(sdata, slide, table.obs[region_keys(table)[1]].to_numpy()[slide.rows])
    tiles = shapely.box(x, y, x + side_px, y + side_px)
    at, tile = shapely.STRtree(tiles).query(spots, predicate="intersects")
    area = shapely.area(shapely.intersection(spots[at], tiles[tile]))
    weights = csr_array((area, (at, tile)), shape=(len(spots), len(tiles)))
    total = weights.sum(axis=1)
    if not total.any():
        msg = f"tiles must lie under the spots, but none of the {len(tiles)} tiles of slide {slide.name!r} does: are "
        msg += f"coords in pixels of image {slide.image.key!r}, x before y, and is it the slide that they are of?"
        raise ValueError(msg)
    if bare := int(((total == 0) & slide.in_tissue).sum()):
        warn(f"{bare} of {len(slide)} spots of slide {slide.name!r} have no tile under them: their features are NaN.")
    with np.errstate(invalid="ignore"):
        return (weights @ features.astype(np.float32) / total[:, None]).astype(np.float32)
