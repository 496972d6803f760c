"""Make one SpatialData of slides that were read one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.join import join
from h2e._warnings import refuse_if

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
        msg = f"slides must be a mapping from name to SpatialData or AnnData, got {type(slides).__name__}."
        raise TypeError(msg)
    refuse_if(not slides, "slides must name at least one slide, got none.")
    return join(slides, table_key)
