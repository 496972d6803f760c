"""Find the tissue of each slide, and keep it as a labels element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from h2e._sdata import keys as _keys
from h2e._sdata.masks import detect_masks
from h2e._sdata.slides import open_images

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
        msg = f"image_key must name one image where key_added names its mask, got None and {key_added!r}."
        raise ValueError(msg)
    slides = open_images(sdata, _keys.Keys(table_key, image_key, um_per_px=um_per_px))
    names = {key: key_added or _keys.tissue(key) for key in slides}
    detect_masks(sdata, slides, names, method=method, scale=scale, overwrite=overwrite)
