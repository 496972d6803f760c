"""Attach the tile features of other tools to the spots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.features import average_tiles, write_features
from h2e._sdata.provenance import check_free, is_ours
from h2e._sdata.scale import positive, require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table

if TYPE_CHECKING:
    from spatialdata import SpatialData


def attach_features(
    sdata: SpatialData,
    features: Mapping[str, np.ndarray],
    coords: Mapping[str, np.ndarray],
    *,
    tile_um: float,
    key_added: str,
    encoder: str = "",
    coords_um_per_px: float | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    overwrite: bool = False,
) -> None:
    """Average the tile features of another tool over the area of each spot.

    Each tile is a square with sides along those of the image. A spot takes the mean over the tiles that lie over its
    circle, bin or polygon, weighed by the area that they share.

    Parameters
    ----------
    sdata
        Slides with spots.
    features
        For each slide by its name an array, tiles × features.
    coords
        For each slide tiles × 2, in the same order: x and y of the upper left corner of each tile, in pixels of the
        finest level of the slide's image, as TRIDENT and LazySlide have them for the file that it was read from.
    tile_um
        Side of a tile in µm.
    key_added
        Where in ``table.obsm`` the features go, such as ``"X_uni"``.
    encoder
        What made the features; it is kept beside them, and :func:`h2e.tl.predict` refuses those of another encoder.
    coords_um_per_px
        µm per pixel that ``coords`` are counted in, where it is another than that of the finest level of the slide's
        image (both images begin at the same corner).
    um_per_px
        As in :func:`h2e.tl.fit`.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    table_key
        Table over all slides.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    overwrite
        Replace a key that something other than h2e wrote.

    Returns
    -------
    ``None``. Writes:

    ``table.obsm[key_added]`` : array, ``float32``, spots × features
        NaN at spots without a tile, which a warning counts.
    ``table.uns["h2e"]["params"][key_added]`` : ``dict``
        Encoder and size of the tiles.

    Raises
    ------
    KeyError, ValueError
        A slide lacks features, the arrays do not fit together, tiles lie beside the image, or under no spot.

    Examples
    --------
    >>> import h2e, numpy as np
    >>> sdata = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=6)
    >>> coords = np.mgrid[:300:20, :300:20].reshape(2, -1).T
    >>> h2e.pp.attach_features(sdata, {"toy_A1": coords / 10}, {"toy_A1": coords}, tile_um=125, key_added="X_place")
    >>> sdata["table"].obsm["X_place"].shape
    (23, 2)
    """
    table = get_table(sdata, table_key)
    check_free(table, "obsm", key_added, ours=is_ours(table, "obsm", key_added), overwrite=overwrite)
    positive(tile_um, "tile_um")
    keys = _keys.Keys(table_key, image_key, library_key=library_key, um_per_px=um_per_px)
    slides, parts = require_size(require_inside(open_slides(sdata, keys))), []
    for slide in slides:
        if not (slide.name in features and slide.name in coords):
            msg = f"features and coords must have slide {slide.name!r}, got {sorted(features)} and {sorted(coords)}."
            raise KeyError(msg)
        x, xy, size = np.asarray(features[slide.name]), np.asarray(coords[slide.name]), slide.require_size()
        if x.ndim != 2 or xy.shape != (len(x), 2) or not (np.isfinite(x).all() and np.isfinite(xy).all()):
            msg = f"features and coords of slide {slide.name!r} must be finite, tiles × features and tiles × 2, got "
            msg += f"{x.shape} and {xy.shape}."
            raise ValueError(msg)
        factor = 1.0 if coords_um_per_px is None else positive(coords_um_per_px, "coords_um_per_px") / size
        parts.append(average_tiles(sdata, table, slide, x, xy * factor, side_px=tile_um / size))
    if len(widths := {part.shape[1] for part in parts}) > 1:
        msg = f"all slides must have features of one encoder, got {sorted(widths)} features."
        raise ValueError(msg)
    facts = {"function": "attach_features", "encoder": encoder, "views_um": [float(tile_um)]}
    write_features(table, np.concatenate([slide.rows for slide in slides]), np.concatenate(parts), key_added, facts)
