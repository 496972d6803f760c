"""How fast tiles are cut, and in how much memory: h2e, what else there is, and the limits, in one run on one thread.

    python benchmarks/tiles.py --folder /tmp/h2e-tiles          # writes benchmarks/results/tiles.csv
    python benchmarks/tiles.py --folder /tmp/h2e-tiles --quick  # smaller images, one repeat, under five minutes

Every measurement is a process of its own on one CPU; repeats are interleaved and the median is shown. Rates are per
second of CPU time, so that other users of the machine matter little; the CSV has wall time too. Memory is the peak
resident size minus that after imports and compiling; it includes the tiles that h2e returns (18 kB each and view).

h2e averages its windows of 200 px to 78 px, from full resolution ("h2e"), from the level of half of it that it takes
where there is one ("pyramid"), and for three views; each beside the limit of decoding the chunks that it touches. The
others are let off with cutting the 200 px, one tile held at a time. Those that take milliseconds a tile cut the first
few hundred of the same points only (column ``tiles``).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from h2e._slide.slide import Slide

SIDE, PX, CHUNK, N_LEVELS = 200, 78, 1024, 4
THREE_VIEWS = ((200, 78), (67, 26), (600, 78))  # three spacings, one spacing, the surroundings
LIMIT = {own: own.replace("h2e", "decode once") for own in ("h2e", "h2e, pyramid", "h2e, 3 views")}


def make_texture(side: int = 4096) -> np.ndarray:
    """Two stains of smooth concentration, (y, x, 3) uint8; zstd shrinks it 3 times, a real section about 5 times."""
    from scipy.ndimage import zoom

    rng = np.random.default_rng(0)
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], np.float32)
    density = np.zeros((side, side, 3), np.float32)
    for stain, mean in zip(stains, (0.45, 0.35), strict=True):
        amount = np.full((side, side), mean, np.float32)
        for grain in (16, 64):
            coarse = rng.normal(0, 0.14, (side // grain, side // grain)).astype(np.float32)
            amount += zoom(coarse, grain, order=1, mode="grid-wrap", grid_mode=True)
        density += amount.clip(0)[..., None] * stain
    return (255 * np.exp(-density)).astype(np.uint8)


def synthetic(side: int) -> list:
    """A pyramid of (c, y, x) dask arrays that repeats the texture; each level takes every second pixel."""
    import dask.array as da

    texture = da.from_array(np.moveaxis(make_texture(), -1, 0), chunks=(3, CHUNK, CHUNK))
    n = -(-side // texture.shape[1])
    return [da.tile(texture[:, :: 2**k, :: 2**k], (1, n, n))[:, : side >> k, : side >> k] for k in range(N_LEVELS)]


def her2st_levels() -> list:
    """A real section, 9,904 × 9,264 px."""
    import h2e.datasets
    from h2e._sdata.images import open_image

    return list(open_image(h2e.datasets.her2st(sections=["C3"], progress=False), "C3_image").levels)


def write_zarr(levels: list, path: Path) -> None:
    """One zarr array a level, chunks and compression as spatialdata writes them."""
    import zarr

    for k, level in enumerate(levels):
        store = zarr.create_array(path / str(k), shape=level.shape, chunks=(3, CHUNK, CHUNK), dtype="uint8")
        level.rechunk((3, CHUNK, CHUNK)).store(store)


def write_tiff(levels: list, path: Path) -> None:
    """A pyramid in JPEG tiles of 512 px, as scanners write them."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for k, level in enumerate(levels):
            pixels = np.moveaxis(level.compute(), 0, -1)
            more = {"subifds": len(levels) - 1} if k == 0 else {"subfiletype": 1}
            tiff.write(pixels, tile=(512, 512), compression="jpeg", photometric="rgb", **more)


def prepare(folder: Path, name: str) -> Path:
    """Make an image unless it is there."""
    path = folder / name
    if not path.exists():
        kind, side = name.split("_")[0], name.split("_")[-1].split(".")[0]
        levels = her2st_levels() if kind == "her2st" else synthetic(int(side))
        partial = folder / f"partial_{name}"
        shutil.rmtree(partial, ignore_errors=True)
        (write_tiff if name.endswith("tif") else write_zarr)(levels, partial)
        partial.rename(path)
    return path


def open_zarrs(path: Path) -> list:
    """The zarr arrays of an image; those of a TIFF are (y, x, c)."""
    import zarr

    if path.suffix == ".tif":
        import tifffile

        return [zarr.open_array(tifffile.imread(path, aszarr=True, level=k), mode="r") for k in range(N_LEVELS)]
    return [zarr.open_array(path / str(k), mode="r") for k in range(N_LEVELS)]


def open_levels(path: Path) -> list:
    """The levels of an image as (c, y, x) dask arrays."""
    import dask.array as da

    levels = [da.from_zarr(array) for array in open_zarrs(path)]
    return [level.transpose(2, 0, 1) for level in levels] if path.suffix == ".tif" else levels


def points(path: Path, n: int) -> np.ndarray:
    """Random points whose windows lie inside of the image, so that everybody cuts the same."""
    _, height, width = open_levels(path)[0].shape
    return np.random.default_rng(1).uniform(SIDE, (width - SIDE, height - SIDE), (n, 2)).round()


def slide_of(levels: list) -> Slide:
    """A slide with one pixel a µm."""
    from h2e._slide.image import Image
    from h2e._slide.slide import Slide

    image = Image("image", tuple(levels), tuple(2.0**k for k in range(len(levels))))
    return Slide("A", "A", "A", image, np.empty((0, 2)), np.empty(0, int), SIDE / 6, SIDE / 3, 1.0)


def h2e_views(*sizes: tuple[int, int], n_levels: int = N_LEVELS) -> Callable:
    """Cut some views with h2e, from an image that has so many levels."""

    def start(path: Path | None) -> Callable:
        import dask.array as da

        from h2e._slide.tiles import View, read_views

        views = [View(extent, px, "um") for extent, px in sizes]
        tiny = [da.zeros((3, 1024 >> k, 1024 >> k), np.uint8) for k in range(N_LEVELS)]
        slide = slide_of((tiny if path is None else open_levels(path))[:n_levels])
        if path is None:
            read_views(slide, np.full((1, 2), 512.0), views)  # compiles
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
    """One ``.compute()`` a tile."""
    if path is None:
        return None
    level = open_levels(path)[0]
    return cut(lambda box: level[box].compute())


def tiles_dataset(path: Path | None) -> Callable | None:
    """``spatialdata.dataloader.ImageTilesDataset``."""
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
    """``squidpy.im.ImageContainer.generate_spot_crops``."""

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


METHODS: dict[str, tuple[Callable, int | None]] = {  # how to start, and how many tiles if not all
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
OWN = list(METHODS)[:6]


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(path: Path, method: str, n: int) -> dict[str, float]:
    """Run one method in this process."""
    import dask

    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    start, _ = METHODS[method]
    start(None)  # imports and compiles
    xy = points(path, n)
    before = peak_mb()
    run = start(path)
    run(xy[:1])  # first use of a library is not what is measured
    cpu, wall = time.process_time(), time.perf_counter()
    run(xy)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"tiles": n, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb() - before}


def apart(folder: Path, *command: str) -> str:
    """Run this script with a hidden option in a process of its own, on one thread; returns what it printed."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    full = [sys.executable, __file__, "--folder", str(folder), *command]
    done = subprocess.run(full, env=os.environ | one, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    return done.stdout


def summarize(image: str, results: dict[str, list[dict]]) -> list[dict]:
    """Medians over the repeats, and ratios."""
    rows = []
    for method, repeats in results.items():
        middle = {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}
        rate = middle["tiles"] / middle["cpu_s"]
        row = {"image": image, "method": method, **middle, "tiles_per_s": rate, "repeats": len(repeats)}
        rows.append({k: v if isinstance(v, str) else float(f"{v:.4g}") for k, v in row.items()})
    seconds = {row["method"]: row["cpu_s"] / row["tiles"] for row in rows}
    for row in rows:
        limit, other = seconds.get(LIMIT.get(row["method"], "")), seconds.get("ImageTilesDataset")
        row["times_decoding"] = round(seconds[row["method"]] / limit, 2) if limit else ""
        row["times_dataset"] = round(other / seconds[row["method"]], 1) if other else ""
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the images are made and kept, 2 GB")
    parser.add_argument("--quick", action="store_true", help="images up to 10,000², one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "tiles.csv")
    parser.add_argument("--images", nargs="+", help="only images whose name starts so; other rows of the CSV are kept")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        image, method, n = args.measure
        print(json.dumps(measure(args.folder / image, method, int(n))))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.prepare:
        prepare(args.folder, args.prepare)
        return
    large = 10_000 if args.quick else 20_000
    jobs = [] if args.quick else [(f"zarr_{side}", OWN[:2], 5_000) for side in (5_000, 10_000)]
    jobs += [(f"zarr_{large}", list(METHODS), 5_000), (f"jpeg_{large}.tif", [*OWN, "compute each"], 5_000)]
    if os.environ.get("H2E_DATA"):
        # 1,150 tiles cover this section as densely as 5,000 cover 20,000²
        jobs.append(("her2st_C3", [*OWN, "compute each", "ImageTilesDataset"], 1_150))
        jobs.append(("her2st_C3.tif", [*OWN[:2], "compute each"], 1_150))
    else:
        print("no her2st section: set H2E_DATA to the folder that has her2st/")
    jobs = [job for job in jobs if not args.images or job[0].startswith(tuple(args.images))]
    rows: list[dict] = []
    for image, methods, n in jobs:
        apart(args.folder, "--prepare", image)  # for a process starts with the peak memory of the one that started it
        results: dict[str, list[dict]] = {method: [] for method in methods}
        for repeat in range(1 if args.quick else args.repeats):
            for method in methods:
                if repeat == 0 or METHODS[method][1] is None:
                    count = str(min(n, METHODS[method][1] or n))
                    printed = apart(args.folder, "--measure", image, method, count)
                    results[method].append(json.loads(printed.splitlines()[-1]))
        for row in summarize(image, results):
            if not rows:
                print("  ".join(f"{key:>{width}}" for key, width in zip(row, WIDTHS, strict=True)))
            rows.append(row)
            print(
                "  ".join(f"{value!s:>{width}}" for value, width in zip(row.values(), WIDTHS, strict=True)), flush=True
            )
    if not args.quick:
        write_csv(args.csv, rows, {image for image, _, _ in jobs})


def write_csv(path: Path, rows: list[dict], images: set[str]) -> None:
    """Write the rows of some images; those of others stay."""
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["image"] not in images] + rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


WIDTHS = (14, 20, 6, 6, 6, 7, 11, 7, 14, 13)

if __name__ == "__main__":
    main()
