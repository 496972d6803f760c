"""A whole-slide file as a lazy image.

TIFF files by Aperio, in OME's form and without a vendor are read with tifffile, which takes a third of the CPU time of
OpenSlide; those of all other vendors with OpenSlide, which knows them.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize
from xml.etree import ElementTree

import dask.array as da
import numpy as np

from h2e._sdata.images import open_image
from h2e._sdata.scale import Evidence, settle, size_given
from h2e._slide.slide import Slide
from h2e._warnings import refuse_if
from h2e.datasets._cohort import multiscale_image

if TYPE_CHECKING:
    from spatialdata import SpatialData

CHUNK_PX = 1024
"""About the side of the chunks, which are whole tiles of the file."""

MAX_UM = 20.0
"""Size of a pixel up to which a file is believed: tags for screens and prints say 21 µm (1200 dpi) or more."""

UM = {2: 25400.0, 3: 10000.0, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4}
"""Units of TIFF and of OME in µm."""


def read_slide(path: str | Path, *, name: str | None = None, um_per_px: float | None = None) -> SpatialData:
    """Read a whole-slide file as one lazy image: pixels are decoded where and when a tile is cut.

    ``pip install 'h2e[wsi]'`` installs what it needs. A file without a pyramid is decoded whole to find the tissue.

    Parameters
    ----------
    path
        SVS, OME-TIFF, other TIFF, or what else OpenSlide opens: NDPI, SCN, MRXS, DICOM (one of its files), …. 8-bit
        RGB; transparent is read as white.
    name
        Name of the image; by default that of the file without suffix.
    um_per_px
        µm per pixel of the finest level, where the file does not say it; refused where it contradicts the file.
        Resolutions of more than 20 µm per pixel are those of screens and prints, and not believed.

    Returns
    -------
    Image ``name`` with the levels of the file's pyramid, in coordinate systems ``{name}_px`` (pixels) and
    ``{name}_um`` (µm); no label or overview of the glass, and no spots: :func:`h2e.tl.predict` lays a grid. Dask tasks
    name the file and hold it not open, so that other processes can run them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ImportError
        A package is missing that the format needs.
    ValueError
        It is not a whole-slide file in 8-bit RGB, is cut off or turned, or its pixels are not squares or of unknown
        size.

    Examples
    --------
    >>> import tempfile
    >>> import h2e, numpy as np, tifffile
    >>> folder = tempfile.TemporaryDirectory()
    >>> pixels = np.full((512, 768, 3), 240, np.uint8)
    >>> about = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    >>> tifffile.imwrite(f"{folder.name}/S1.ome.tif", pixels, tile=(256, 256), photometric="rgb", metadata=about)
    >>> sdata = h2e.datasets.read_slide(f"{folder.name}/S1.ome.tif")
    >>> sdata["S1"]["scale0"]["image"].shape
    (3, 512, 768)
    >>> folder.cleanup()
    """
    from spatialdata import SpatialData
    from spatialdata.transformations import Scale, set_transformation

    file = Path(path).expanduser().resolve()
    msg = f"path must be a whole-slide file (of DICOM one of its files), got {str(path)!r}, which is no file."
    refuse_if(not file.is_file(), msg, FileNotFoundError)
    name = name or re.sub(r"[^\w.-]", "_", re.sub(r"(\.ome)?\.[^.]*$", "", file.name, flags=re.IGNORECASE))
    opened = str(file), file.stat().st_mtime_ns
    levels, sizes = open_levels(*opened)
    if len(levels) == 1:
        logging.getLogger(__name__).info("%s has no pyramid: small images are made of all its pixels", file.name)
    lazy = []
    for k, (shape, (height, width), _) in enumerate(levels):
        wide = width * max(1, round(CHUNK_PX / width))
        side = (height * max(1, round(CHUNK_PX**2 / wide / height)), wide)
        blocks = {"chunks": da.core.normalize_chunks((3, *side), (3, *shape)), "meta": np.empty((0, 0, 0), np.uint8)}
        lazy.append(da.map_blocks(read_chunk, *opened, k, side, **blocks))
    sdata = SpatialData(images={name: multiscale_image(lazy, f"{name}_px")})
    own = [Evidence(um, f"{file.name} in {at}") for um, at in zip(sizes, "xy", strict=True) if 0 < min(sizes) <= MAX_UM]
    why = f"{file.name} says {sizes[0]:.3g} µm, and 0 or more than {MAX_UM:g} (screens and prints) tell nothing"
    image = open_image(sdata, name)
    um = Slide.without_spots(image, *settle(size_given(um_per_px, name) + own, name, image, missing=why)).require_size()
    set_transformation(sdata[name], Scale([um, um], axes=("x", "y")), f"{name}_um")
    return sdata


def read_chunk(path: str, modified: int, level: int, side: tuple[int, int], block_id: tuple[int, ...]) -> np.ndarray:
    """Decode a chunk of a level, (3, y, x), by the path of its file."""
    shape, _, read = open_levels(path, modified)[0][level]
    pixels = read(*(slice(k * n, min(k * n + n, end)) for k, n, end in zip(block_id[1:], side, shape, strict=True)))
    if (pixels[3:] < 255).any():
        pixels = (255.5 - (255 - pixels[:3]) * (pixels[3:] / 255)).astype(np.uint8)
    return np.ascontiguousarray(pixels[:3])


@lru_cache(maxsize=16)
def open_levels(path: str, modified: int) -> tuple[list, list[float]]:
    """Open a file, in each process once and when it was modified: shape, tile and reader of each level; µm per pixel.

    Levels have one scale for both sides, which may be trimmed by a pixel. The sizes are in x and y, 0 if unknown.
    """
    try:
        levels, sizes = _open_tiff(path) or _open_by_openslide(path)
    except ImportError as error:
        msg = f"{path!r} needs packages that are not installed ({error}): pip install 'h2e[wsi]'."
        raise ImportError(msg) from error
    # The determinant is 0 where both sides have one scale; each may be trimmed by a pixel.
    return [one for one in levels if abs(np.linalg.det([levels[0][0], one[0]])) <= sum(levels[0][0])], sizes


def _open_tiff(path: str) -> tuple[list, list[float]] | None:
    """Open the largest image of a TIFF; None if tifffile cannot read it, or does it less well than OpenSlide."""
    import imagecodecs  # noqa: F401
    import tifffile
    import zarr

    try:
        tiff = tifffile.TiffFile(path)
    except tifffile.TiffFileError:
        return None
    finalize(tiff, tiff.filehandle.close)
    series = max(tiff.series, key=lambda one: one.size)
    page, axes = series.keyframe, series.axes
    # 33003 is JPEG 2000 in YCbCr by Aperio.
    if series.kind not in ("svs", "ome", "generic", "uniform", "shaped") or page.compression == 33003:
        return None
    images = ElementTree.fromstring(tiff.ome_metadata or "<OME/>").iterfind(".//{*}Pixels")
    ome = next((one for one in images if one.get("SizeX") == str(page.imagewidth)), ElementTree.Element("Pixels"))
    names, turned = [one.get("Name", "") for one in ome.findall("{*}Channel")], page.tags.valueof(274, 1)
    # The decoder of JPEG makes RGB of YCbCr.
    rgb = page.photometric == 2 or (page.photometric == 6 and page.compression == 7)
    rgb = "".join(names).lower() in ("rgb", "redgreenblue") if axes == "CYX" else rgb and axes in ("YXS", "SYX")
    found = f"{getattr(page.photometric, 'name', page.photometric)} {page.dtype} {axes} {names}, orientation {turned}"
    wrong = not rgb or page.dtype != np.uint8 or turned != 1
    refuse_if(wrong, f"{path!r} must be upright 8-bit RGB, got {found}.")
    levels = []
    # Beside levels, which are tiled, Aperio has labels and overviews.
    for level in [one for one in tiff.pages if one.is_tiled] if series.kind == "svs" else series.levels:
        key, pixels = level.keyframe, zarr.open(level.aszarr(level=0, fillvalue=255), mode="r")
        tile = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        levels.append(((key.imagelength, key.imagewidth), tile, partial(_read_tiff, pixels, axes)))
        end, size = max(np.add(key.dataoffsets, key.databytecounts), default=2**64), tiff.filehandle.size
        refuse_if(end > size, f"{path!r} must have at least {end} bytes, got {size}: it is cut off, copy it again.")
    return levels, _size_in_tiff(page, ome.attrib)


def _size_in_tiff(page: Any, ome: dict[str, str]) -> list[float]:
    """µm per pixel in x and y: as Aperio says, else OME, else the tags for resolution; 0 if nothing does."""
    if mpp := re.search(r"\bMPP *= *([\d.]+)", page.description):
        return [float(mpp[1])] * 2
    sizes = [float(ome.get(f"PhysicalSize{a}", 0)) * UM.get(ome.get(f"PhysicalSize{a}Unit", "µm"), 0) for a in "XY"]
    return sizes if all(sizes) else [UM.get(page.resolutionunit, 0) / (n or np.inf) for n in page.resolution]


def _read_tiff(pixels: Any, axes: str, y: slice, x: slice) -> np.ndarray:
    """Decode a part of a level, (c, y, x)."""
    return np.moveaxis(pixels[y, x], -1, 0) if axes == "YXS" else pixels[:, y, x]


def _open_by_openslide(path: str) -> tuple[list, list[float]]:
    """Open a file of another format."""
    import openslide

    msg = f"{path!r} must be a whole-slide file, got what neither tifffile nor OpenSlide knows; is it complete?"
    refuse_if(openslide.OpenSlide.detect_format(path) is None, msg)
    slide, levels = openslide.OpenSlide(path), []
    for k, (width, height) in enumerate(slide.level_dimensions):
        tile = [int(slide.properties.get(f"openslide.level[{k}].tile-{side}", 256)) for side in ("height", "width")]
        levels.append(((height, width), tile, partial(_read_by_openslide, slide, k, slide.level_downsamples[k])))
    return levels, [float(slide.properties.get(f"openslide.mpp-{axis}", 0)) for axis in "xy"]


def _read_by_openslide(slide: Any, level: int, scale: float, y: slice, x: slice) -> np.ndarray:
    """Decode a part of a level, (4, y, x)."""
    corner, size = (round(x.start * scale), round(y.start * scale)), (x.stop - x.start, y.stop - y.start)
    return np.moveaxis(np.asarray(slide.read_region(corner, level, size)), -1, 0)
