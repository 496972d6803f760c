"""Where public data come from: a folder, or a download with checksums into a cache, where pictures become pyramids."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from h2e._warnings import announce, refuse_if
from h2e.datasets._cohort import multiscale_image, pyramid

if TYPE_CHECKING:
    from xarray import DataTree

log = logging.getLogger(__name__)

CHUNK = 1024
FORMAT = "v1"
"""Part of the name of a converted image: change it when what is written changes."""


def cache_folder() -> Path:
    """Name the folder for downloads and converted images: ``$H2E_CACHE``, or the system's place for caches."""
    import pooch

    return Path(os.environ.get("H2E_CACHE") or pooch.os_cache("h2e"))


def local_folder(folder: str | Path | None, name: str) -> Path | None:
    """Choose the folder to read: the one given, else ``$H2E_DATA/name`` if that is there, else ``None``."""
    root = os.environ.get("H2E_DATA")
    if folder is None and not root:
        return None
    path = (Path(root or "", name) if folder is None else Path(folder)).expanduser()
    msg = f"{str(path)!r} is not a folder; give the folder with the {name} data, or None to download them."
    refuse_if(folder is not None and not path.is_dir(), msg, FileNotFoundError)
    return path if path.is_dir() else None


def locate(folder: Path, *patterns: str) -> Path | None:
    """Find the first file that matches one of the patterns, in the order of the patterns."""
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()), None)


def require(folder: Path, *patterns: str, source: str) -> Path:
    """Find the first file as :func:`locate` does, and refuse a folder that has none."""
    if path := locate(folder, *patterns):
        return path
    names = " or ".join(dict.fromkeys(Path(pattern).name for pattern in patterns))
    msg = f"{str(folder)!r} has no {names}; pass a clone of github.com/{source}, or None to download."
    raise FileNotFoundError(msg)


def read_registry(name: str) -> dict[str, str]:
    """Read the checksums of a data set: paths below the base address, and their sha256."""
    lines = (resources.files("h2e.datasets") / f"{name}.sha256").read_text().splitlines()
    return {path: checksum for checksum, path in (line.split(maxsplit=1) for line in lines if line)}


def fetch(name: str, base_url: str, registry: dict[str, str], *, progress: bool = True) -> Path:
    """Download the files of a registry to the cache, unless they are there, and check them; returns their folder.

    Parameters
    ----------
    name
        Name of the data set, and of its folder in the cache.
    base_url
        Address below which the files are; at a fixed commit.
    registry
        sha256 by path.
    progress
        Show a progress bar.
    """
    import pooch
    from tqdm import tqdm

    checksums = {path: f"sha256:{checksum}" for path, checksum in registry.items()}
    store = pooch.create(cache_folder() / name, base_url.rstrip("/") + "/", registry=checksums)
    missing = [path for path in store.registry if not (store.abspath / path).exists()]
    if missing:
        # Files of a few MB.
        announce(f"{len(missing)} files from {base_url} to {store.abspath}, once", 2 * len(missing), progress=progress)
    messages = pooch.get_logger()
    level = messages.level
    # One bar over all files says enough.
    messages.setLevel(logging.WARNING)
    try:
        for path in tqdm(sorted(store.registry), disable=not (progress and missing), desc=name, unit="file"):
            store.fetch(path)
    except ValueError as error:
        msg = f"{store.get_url(path)} is not the file that h2e knows; try later, or get the data and pass their folder."
        raise ValueError(msg) from error
    except OSError as error:
        msg = f"{store.get_url(path)} cannot be downloaded to {store.abspath} ({error}). Without a network, pass the "
        msg += "folder of a copy, or set $H2E_DATA to the folder above it."
        raise OSError(msg) from error
    finally:
        messages.setLevel(level)
    return store.abspath


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
    store.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{store.stem}-", dir=store.parent) as aside:
        SpatialData(images={"image": image}).write(partial := Path(aside) / store.name)
        try:
            partial.rename(store)
        except OSError:
            # Another process may have been faster, and wrote the same.
            if not store.exists():
                raise
