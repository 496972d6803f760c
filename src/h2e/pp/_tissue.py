"""Find the tissue of each slide, and how much of it each spot has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from h2e._sdata import keys as _keys
from h2e._sdata.masks import detect_masks, with_tissue, write_fraction
from h2e._sdata.slides import open_images, open_slides, require_inside
from h2e._sdata.table import get_table
from h2e._warnings import refuse

if TYPE_CHECKING:
    from spatialdata import SpatialData


def detect_tissue(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    table_key: str = _keys.TABLE,
    method: Literal["otsu", "mean"] = "otsu",
    um_per_px: float | Mapping[str, float] | None = None,
    scale: float | None = None,
    key_added: str | None = None,
    overwrite: bool = False,
) -> None:
    """Find the tissue of each slide.

    Parameters
    ----------
    sdata
        Slides.
    image_key
        Image to work on. ``None`` takes every image that the spots lie on, and those without spots.
    table_key
        Table that says which images have spots.
    method
        ``"otsu"`` asks for the colour of a stain and for texture, on white and on black glass, and removes pen marks,
        out-of-focus marks, stain haze, dust, pictures pasted on black, pieces and holes under 0.05 mm².
        ``"mean"`` is darker than the mean gray, closed with a disk of 2 px, holes up to 5,000 px filled:
        the textbook recipe, for light glass without marks.
    um_per_px
        Size of a pixel in µm, or a mapping from slide or image to it, for the areas. ``None`` takes it from the spots;
        without spots, 0.1 % of the image counts as 0.05 mm².
    scale
        Pixels of the image per pixel of the mask. ``None`` chooses about a thousand pixels for the longest side.
    key_added
        Name of the mask; only with ``image_key``. By default ``"{image}_tissue"``.
    overwrite
        Replace an element of that name that h2e did not write.

    Returns
    -------
    ``None``. Adds, for each image:

    ``sdata.labels["{image}_tissue"]`` : ``uint8``
        1 tissue, 0 background, in every coordinate system of the image. Without any tissue it is all 0, with a
        warning in the log.

    Raises
    ------
    KeyError
        An image or the table is not there.
    ValueError
        The method is unknown, an image is no 8-bit RGB, or the key is taken by something that h2e did not write.

    Examples
    --------
    >>> import h2e.datasets, h2e.pp
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.detect_tissue(sdata)
    >>> all(f"{key}_tissue" in sdata.labels for key in sdata.images)
    True
    """
    if key_added is not None and image_key is None:
        refuse(f"image_key must name one image where key_added names its mask, got None and {key_added!r}.")
    slides = open_images(sdata, _keys.Keys(table_key, image_key, um_per_px=um_per_px))
    names = {key: key_added or _keys.tissue(key) for key in slides}
    detect_masks(sdata, slides, names, method=method, scale=scale, overwrite=overwrite)


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
