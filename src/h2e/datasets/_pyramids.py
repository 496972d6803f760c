"""Compressed pictures as lazy pyramids: a JPEG cannot be read in parts, so it is converted once, into the cache."""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from h2e.datasets._cohort import multiscale_image, pyramid
from h2e.datasets._fetch import cache_folder

if TYPE_CHECKING:
    from xarray import DataTree

log = logging.getLogger(__name__)

CHUNK = 1024
FORMAT = "v1"
"""Part of the name of a converted image: change it when what is written changes."""


def read_picture(path: Path) -> np.ndarray:
    """Decode a picture, (c, y, x) ``uint8``."""
    from PIL import Image

    with warnings.catch_warnings():
        # Slides are large, and the user chose these.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            # Converting copies the picture, even one that is RGB already.
            pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.moveaxis(pixels, -1, 0)


def open_pyramid(path: Path, system: str, *, n_levels: int) -> DataTree:
    """Open a picture as a lazy pyramid in a coordinate system; the first time it is converted, see :func:`convert`.

    The converted image is found by the content of the picture, so that a copy of the data need not be converted again.
    """
    from spatialdata import read_zarr
    from spatialdata.transformations import Identity, set_transformation

    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    store = cache_folder() / "pyramids" / f"{path.stem}-{digest}-{n_levels}-{FORMAT}.zarr"
    if not store.exists():
        convert(path, store, n_levels=n_levels)
    image = read_zarr(store, selection=("images",))["image"]
    set_transformation(image, {system: Identity()}, set_all=True)
    return image


def convert(path: Path, store: Path, *, n_levels: int) -> None:
    """Write a picture as a chunked pyramid; the store appears under its name only when it is complete."""
    from spatialdata import SpatialData

    log.info("converting %s to a pyramid in %s, once", path, store)
    levels = pyramid(read_picture(path), n_levels)
    image = multiscale_image([da.from_array(level, chunks=(3, CHUNK, CHUNK), name=False) for level in levels], "pixels")
    partial = store.with_name(f".{store.stem}-{uuid.uuid4().hex}.partial")
    store.parent.mkdir(parents=True, exist_ok=True)
    try:
        SpatialData(images={"image": image}).write(partial)
        try:
            partial.rename(store)
        except OSError:
            # Another process may have been faster, and wrote the same.
            if not store.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
