"""Ways to cut tiles: h2e, what else there is, and the limits.

A way to cut is started with the path of an image, or with ``None`` to import and compile only; it returns what cuts
tiles at points.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from h2e._slide.slide import Slide

SIDE, PX, CHUNK, N_LEVELS = 200, 78, 1024, 4
THREE_VIEWS = ((200, 78), (67, 26), (600, 78))
"""Three spacings, one spacing, the surroundings."""


def open_zarrs(path: Path) -> list:
    """Open the zarr arrays of an image; those of a TIFF are (y, x, c)."""
    import zarr

    if path.suffix == ".tif":
        import tifffile

        stores = [tifffile.imread(path, aszarr=True, level=k) for k in range(N_LEVELS)]
        arrays = [zarr.open_array(store, mode="r") for store in stores]
        for array, store in zip(arrays, stores, strict=True):
            # Whoever drops the array closes its file.
            weakref.finalize(array, store.close)
        return arrays
    return [zarr.open_array(path / str(k), mode="r") for k in range(N_LEVELS)]


def open_levels(path: Path) -> list:
    """Open the levels of an image as (c, y, x) dask arrays."""
    import dask.array as da

    levels = [da.from_zarr(array) for array in open_zarrs(path)]
    return [level.transpose(2, 0, 1) for level in levels] if path.suffix == ".tif" else levels


def slide_of(levels: list) -> Slide:
    """Make a slide with one pixel a µm."""
    from h2e._slide.image import Image
    from h2e._slide.slide import Slide

    image = Image("image", tuple(levels), tuple(2.0**k for k in range(len(levels))))
    bare = Slide.without_spots(image, 1.0, "made so")
    return replace(bare, radius_px=SIDE / 6, spacing_px=SIDE / 3)


def h2e_views(*sizes: tuple[int, int], n_levels: int = N_LEVELS) -> Callable:
    """Cut some views with h2e, from an image that has so many levels."""

    def start(path: Path | None) -> Callable:
        import dask.array as da

        from h2e._slide.tiles import View, read_views

        views = [View(extent, px, "um") for extent, px in sizes]
        tiny = [da.zeros((3, 1024 >> k, 1024 >> k), np.uint8) for k in range(N_LEVELS)]
        slide = slide_of((tiny if path is None else open_levels(path))[:n_levels])
        if path is None:
            # This compiles.
            read_views(slide, np.full((1, 2), 512.0), views)
        return lambda xy: read_views(slide, xy, views)

    return start


def decode_once(*sizes: tuple[int, int], n_levels: int = N_LEVELS) -> Callable:
    """Decode every chunk under the windows once, and do nothing with it: the limit of whoever reads chunks."""

    def start(path: Path | None) -> Callable | None:
        if path is None:
            return None
        zarrs, slide = open_zarrs(path), slide_of(open_levels(path)[:n_levels])

        def run(xy: np.ndarray) -> None:
            touched = set()
            for extent, px in sizes:
                level = slide.image.level_at(extent / px)
                across = max(zarrs[level].chunks)
                shape, side = np.array(slide.image.levels[level].shape[:0:-1]), round(extent / 2**level)
                first = np.floor(xy / 2**level - side / 2 + 0.5).astype(int)
                a, b = first.clip(0) // across, (np.minimum(first + side, shape) - 1) // across
                for (j0, i0), (j1, i1) in zip(a.tolist(), b.tolist(), strict=True):
                    touched |= {(level, i, j) for i in range(i0, i1 + 1) for j in range(j0, j1 + 1)}
            for level, i, j in sorted(touched):
                array = zarrs[level]
                across = max(array.chunks)
                box = (slice(i * across, (i + 1) * across), slice(j * across, (j + 1) * across))
                array[(*box, slice(None)) if array.shape[-1] == 3 else (slice(None), *box)]

        return run

    return start


def cut(slice_of: Callable) -> Callable:
    """Cut tiles one after the other by slicing something."""

    def run(xy: np.ndarray) -> None:
        for x, y in (xy - SIDE / 2).astype(int).tolist():
            slice_of((slice(None), slice(y, y + SIDE), slice(x, x + SIDE)))

    return run


def in_memory(path: Path | None) -> Callable | None:
    """Slice an array in memory: the limit of whoever has the memory."""
    if path is None:
        return None
    whole = open_levels(path)[0].compute()
    return cut(lambda box: whole[box].copy())


def compute_each(path: Path | None) -> Callable | None:
    """Call ``.compute()`` for each tile."""
    if path is None:
        return None
    level = open_levels(path)[0]
    return cut(lambda box: level[box].compute())


def tiles_dataset(path: Path | None) -> Callable | None:
    """Take tiles from ``spatialdata.dataloader.ImageTilesDataset``."""
    from spatialdata import SpatialData
    from spatialdata.dataloader import ImageTilesDataset
    from spatialdata.models import Image2DModel, ShapesModel

    if path is None:
        return None
    image = Image2DModel.parse(open_levels(path)[0], dims=("c", "y", "x"), c_coords=["r", "g", "b"])

    def run(xy: np.ndarray) -> None:
        sdata = SpatialData(images={"image": image}, shapes={"A": ShapesModel.parse(xy, geometry=0, radius=SIDE / 6)})
        dataset = ImageTilesDataset(sdata, {"A": "image"}, {"A": "global"}, tile_dim_in_units=SIDE)
        for k in range(len(dataset)):
            next(iter(dataset[k].images.values())).to_numpy()

    return run


def squidpy_crops(*, lazy: bool) -> Callable:
    """Take tiles from ``squidpy.im.ImageContainer.generate_spot_crops``."""

    def start(path: Path | None) -> Callable | None:
        import anndata as ad
        import xarray as xr
        from squidpy.im import ImageContainer

        if path is None:
            return None
        pixels = open_levels(path)[0].transpose(1, 2, 0)
        container = ImageContainer(xr.DataArray(pixels if lazy else pixels.compute(), dims=("y", "x", "c")), lazy=lazy)

        def run(xy: np.ndarray) -> None:
            adata = ad.AnnData(obsm={"spatial": xy}, shape=(len(xy), 0))
            adata.obs_names = [str(k) for k in range(len(xy))]
            adata.uns["spatial"] = {"A": {"scalefactors": {"spot_diameter_fullres": float(SIDE)}}}
            for crop in container.generate_spot_crops(adata, as_array="image", squeeze=True):
                np.asarray(crop)

        return run

    return start


METHODS: dict[str, tuple[Callable, int | None]] = {
    "decode once": (decode_once((SIDE, PX), n_levels=1), None),
    "h2e": (h2e_views((SIDE, PX), n_levels=1), None),
    "decode once, pyramid": (decode_once((SIDE, PX)), None),
    "h2e, pyramid": (h2e_views((SIDE, PX)), None),
    "decode once, 3 views": (decode_once(*THREE_VIEWS), None),
    "h2e, 3 views": (h2e_views(*THREE_VIEWS), None),
    "array in memory": (in_memory, None),
    "compute each": (compute_each, 200),
    "ImageTilesDataset": (tiles_dataset, 200),
    "squidpy, lazy": (squidpy_crops(lazy=True), 100),
    "squidpy, in memory": (squidpy_crops(lazy=False), 200),
}
"""How to start, and how many tiles are cut if not all."""

OWN = list(METHODS)[:6]
LIMIT = {name: name.replace("h2e", "decode once") for name in ("h2e", "h2e, pyramid", "h2e, 3 views")}
