"""Join what was made one by one: slides to one SpatialData, tile features of other tools to their spots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.features import average_tiles, write_features
from h2e._sdata.join import join
from h2e._sdata.provenance import check_free, is_ours
from h2e._sdata.scale import positive, require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table
from h2e._warnings import refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def join_slides(slides: Mapping[str, SpatialData | AnnData], *, table_key: str = _keys.TABLE) -> SpatialData:
    """Join slides that were read one by one, each under its own name.

    The spots of a slide get its name, and what belongs to them a name that begins with it: of the slide ``"S1"`` with
    the spots ``"locations"`` and the image ``"he"`` these become ``"S1"`` and ``"S1_he"``, of the spots ``"A"`` and the
    image ``"A_image"`` ``"S1"`` and ``"S1_image"``; of several regions each is ``"S1_{region}"``. Coordinate systems
    are renamed likewise, so that no slide lies on the image of another. Normalized images, tissue masks, realignments,
    predictions, the report and other records of h2e follow under the new names. Slides that were brought to different
    stain references keep them: bring them to one with ``h2e.pp.normalize(joined, overwrite=True)``.

    Parameters
    ----------
    slides
        By name, each a SpatialData, with spots or with only an H&E, or an AnnData with ``obsm["spatial"]`` and
        ``uns["spatial"]``, as of scanpy and squidpy, of which the finest image is taken. They are not changed.
    table_key
        Table of the spots, in each SpatialData and in what is returned.

    Returns
    -------
    A new SpatialData. Its images are as lazy as they were. Its one table has a row for each spot, named
    ``"{slide}_{row}"`` unless it begins like that, one region and one instance key, and the genes that all slides
    have, with a warning if some lack others. Frames in ``obsm`` are NaN where a slide has none; other arrays, layers
    and graphs that not every slide has, and predictions of different ensembles, are left out with a warning. Of
    ``uns``, ``varm`` and ``varp`` is kept what does not contradict itself; ``raw`` is not. What tells the size of the
    pixels of an AnnData is in ``uns["spatial"][name]["scalefactors"]``. Other tables of a slide stay its own.

    Raises
    ------
    TypeError
        ``slides`` is not a mapping from names to slides.
    KeyError
        A SpatialData has tables, but not ``table_key``.
    ValueError
        There are no slides, a name cannot be stored, or names would collide; a slide has no image, a table that
        annotates nothing, or no position for a spot; an AnnData has no image in 8 bit or holds several slides; slides
        have no gene in common, or counts on one and logarithms on another.

    Examples
    --------
    >>> import h2e
    >>> cohort = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> one, two = (cohort.filter_by_coordinate_system(name) for name in ("toy_A1", "toy_B1"))
    >>> joined = h2e.pp.join_slides({"first": one, "second": two})
    >>> sorted(joined.images), sorted(joined.shapes)
    (['first_image', 'second_image'], ['first', 'second'])
    """
    if not isinstance(slides, Mapping):
        refuse(f"slides must be a mapping from name to SpatialData or AnnData, got {type(slides).__name__}.", TypeError)
    refuse_if(not slides, "slides must name at least one slide, got none.")
    return join(slides, table_key)


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
            refuse(msg + f"{x.shape} and {xy.shape}.")
        factor = 1.0 if coords_um_per_px is None else positive(coords_um_per_px, "coords_um_per_px") / size
        parts.append(average_tiles(sdata, table, slide, x, xy * factor, side_px=tile_um / size))
    widths = {part.shape[1] for part in parts}
    refuse_if(len(widths) > 1, f"all slides must have features of one encoder, got {sorted(widths)} features.")
    facts = {"function": "attach_features", "encoder": encoder, "views_um": [float(tile_um)]}
    write_features(table, np.concatenate([slide.rows for slide in slides]), np.concatenate(parts), key_added, facts)
