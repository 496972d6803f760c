"""Find the tissue of each slide, and keep it as a labels element."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.masks import check_free, write_mask
from h2e._sdata.pairing import source_images
from h2e._sdata.slides import image_sizes
from h2e._slide.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData

log = logging.getLogger(__name__)


def detect_tissue(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    table_key: str = _keys.TABLE,
    method: str = "otsu",
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
        1 tissue, 0 background, in every coordinate system of the image. Without any tissue it is all 0, with a warning in the log.

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
        msg = "key_added names one mask; say of which image with image_key."
        raise ValueError(msg)
    keys = source_images(sdata, table_key=table_key, image_key=image_key)
    images = [open_image(sdata, key) for key in keys]
    names = [key_added or _keys.tissue(key) for key in keys]
    for name in names:
        check_free(sdata, name, overwrite=overwrite)
    um = image_sizes(sdata, keys, um_per_px, table_key=table_key, image_key=image_key)
    masks = [tissue_mask(image, method=method, um_per_px=um[image.key], scale=scale) for image in images]
    for key, name, (mask, size) in zip(keys, names, masks, strict=True):
        write_mask(sdata, key, name, mask, size, method=method)
        if not mask.any():
            log.warning(
                "method %r found no tissue in image %r: is it an H&E? Look at it, or pass a mask of your own",
                method,
                key,
            )
        log.info("wrote labels[%r]: %d × %d px, %.1f %% tissue", name, *mask.shape, 100 * mask.mean())
