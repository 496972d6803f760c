"""How much tissue each spot has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from h2e._sdata import keys as _keys
from h2e._sdata.masks import with_tissue, write_fraction
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table

if TYPE_CHECKING:
    from spatialdata import SpatialData


def tissue_fraction(
    sdata: SpatialData,
    *,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    tissue_mask_key: str | None = None,
    library_key: str | None = None,
    key_added: str = _keys.TISSUE_FRACTION,
    overwrite: bool = False,
) -> None:
    """Measure which share of each spot's own subtile is tissue.

    The subtile of a spot is the square around it whose side is one spot spacing. A spot without any tissue there
    (0) is *invalid*: it is not trained on, and its predictions are NaN. What lies beside the image is not tissue.

    Parameters
    ----------
    sdata
        Slides with spots.
    image_key
        Image that the spots lie on, or a mapping from region to image.
    table_key
        Table of the spots.
    tissue_mask_key
        Tissue mask, labels or polygons. By default that of :func:`detect_tissue`; without one it is computed, and
        not stored.
    library_key
        Column of ``obs`` that says which slide a spot is on; by default its region.
    key_added
        Where the fractions go.
    overwrite
        Replace a column of that name that h2e did not write.

    Returns
    -------
    ``None``. Writes:

    ``table.obs[key_added]`` : ``float32``
        Share of tissue in the subtile, 0 to 1.
    ``table.uns["h2e"]["params"][key_added]`` : ``dict``
        How it was made.

    Raises
    ------
    KeyError
        An image, a mask or the table is not there.
    ValueError
        Images cannot be paired with regions, or the column was not written by h2e.

    Examples
    --------
    >>> import h2e.datasets, h2e.pp
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.tissue_fraction(sdata)
    >>> bool((sdata["table"].obs["tissue_fraction"] > 0).any())
    True
    """
    table = get_table(sdata, table_key)
    slides = require_inside(open_slides(sdata, _keys.Keys(table_key, image_key, library_key=library_key)))
    slides = with_tissue(sdata, slides, tissue_mask_key)
    write_fraction(table, slides, key_added, tissue_mask_key=tissue_mask_key, overwrite=overwrite)
