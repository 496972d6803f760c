"""How fast tiles are cut, and in how much memory: h2e, what else there is, and the limits, in one run on one thread.

    H2E_DATA=../shared/data python benchmarks/tiles.py [--folder /tmp/h2e-tiles]   # 20 minutes; writes
    benchmarks/results/tiles.csv

Every measurement is a process of its own on one CPU; repeats are interleaved and the median is shown. Rates are per
second of CPU time, so that other users of the machine matter little; the CSV has wall time too. Memory is the peak
resident size minus that after imports and compiling; it includes the tiles that h2e returns (18 kB each and view).

h2e averages its windows of 200 px to 78 px, from full resolution ("h2e"), from the level of half of it that it takes
where there is one ("pyramid"), and for three views; each beside the limit of decoding the chunks that it touches. The
others are let off with cutting the 200 px, one tile held at a time. Those that take milliseconds a tile cut the first
few hundred of the same points only (column ``tiles``). Methods are in _tiles_methods.py.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from argparse import SUPPRESS, Namespace
from pathlib import Path

import numpy as np
import pandas as pd
from _record import CommandLine, read, run_apart, stamp
from _tiles_methods import CHUNK, LIMIT, METHODS, N_LEVELS, OWN, SIDE, open_levels


def make_texture(side: int) -> np.ndarray:
    """Paint two stains of smooth concentration, (y, x, 3) uint8; zstd shrinks it 3 times, a real section 5 times."""
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
    """Make a pyramid of (c, y, x) dask arrays that repeats the texture; each level takes every second pixel."""
    import dask.array as da

    texture = da.from_array(np.moveaxis(make_texture(min(side, 4096)), -1, 0), chunks=(3, CHUNK, CHUNK))
    n = -(-side // texture.shape[1])
    return [da.tile(texture[:, :: 2**k, :: 2**k], (1, n, n))[:, : side >> k, : side >> k] for k in range(N_LEVELS)]


def her2st_levels() -> list:
    """Open a real section, 9,904 × 9,264 px."""
    import h2e.datasets
    from h2e._sdata.images import open_image

    return list(open_image(h2e.datasets.her2st(sections=["C3"], progress=False), "C3_image").levels)


def write_zarr(levels: list, path: Path) -> None:
    """Write a zarr array a level, chunks and compression as spatialdata writes them."""
    import zarr

    for k, level in enumerate(levels):
        store = zarr.create_array(path / str(k), shape=level.shape, chunks=(3, CHUNK, CHUNK), dtype="uint8")
        level.rechunk((3, CHUNK, CHUNK)).store(store)


def write_tiff(levels: list, path: Path) -> None:
    """Write a pyramid in JPEG tiles of 512 px, as scanners do."""
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


def points(path: Path, n: int) -> np.ndarray:
    """Draw points whose windows lie inside of the image, so that everybody cuts the same."""
    _, height, width = open_levels(path)[0].shape
    return np.random.default_rng(1).uniform(SIDE, (width - SIDE, height - SIDE), (n, 2)).round()


def peak_mb() -> float:
    """Give the largest resident size of this process so far, in MB."""
    per_mb = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mb


def measure(path: Path, method: str, n: int) -> dict[str, float]:
    """Run one method in this process."""
    import dask

    warnings.simplefilter("ignore")
    start, _ = METHODS[method]
    with dask.config.set(scheduler="synchronous"):
        # Imports and compiling are not what is measured, nor is the first use of a library.
        start(None)
        xy = points(path, n)
        before = peak_mb()
        run = start(path)
        run(xy[:1])
        cpu, wall = time.process_time(), time.perf_counter()
        run(xy)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"tiles": n, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak_mb() - before}


def summarize(image: str, results: dict[str, list[dict]]) -> pd.DataFrame:
    """Take medians over the repeats, and ratios."""
    rows = []
    for method, repeats in results.items():
        middle = {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}
        row = middle | {"tiles_per_s": middle["tiles"] / middle["cpu_s"], "repeats": len(repeats)}
        rows.append({"image": image, "method": method} | {k: float(f"{v:.4g}") for k, v in row.items()})
    table = pd.DataFrame(rows)
    seconds = dict(zip(table["method"], table["cpu_s"] / table["tiles"], strict=True))
    limits, dataset = table["method"].map(LIMIT).map(seconds), seconds.get("ImageTilesDataset", np.nan)
    each = table["method"].map(seconds)
    return table.assign(times_decoding=(each / limits).round(2), times_dataset=(dataset / each).round(1))


def jobs_of(options: Namespace) -> list[tuple[str, list[str], int]]:
    """List the images, the methods that cut tiles from them, and the number of tiles."""
    if options.smoke:
        return [("zarr_1024", list(METHODS), 3), ("jpeg_1024.tif", [*OWN[:2], "compute each"], 3)]
    jobs = [(f"zarr_{side}", OWN[:2], 5_000) for side in (5_000, 10_000)]
    jobs += [("zarr_20000", list(METHODS), 5_000), ("jpeg_20000.tif", [*OWN, "compute each"], 5_000)]
    if os.environ.get("H2E_DATA"):
        # 1,150 tiles cover this section as densely as 5,000 cover 20,000².
        jobs.append(("her2st_C3", [*OWN, "compute each", "ImageTilesDataset"], 1_150))
        jobs.append(("her2st_C3.tif", [*OWN[:2], "compute each"], 1_150))
    else:
        print("no her2st section: set H2E_DATA to the folder that has her2st/")
    return [job for job in jobs if not options.images or job[0].startswith(tuple(options.images))]


def measure_apart(folder: Path, image: str, method: str, n: int, *, smoke: bool) -> dict[str, float]:
    """Run one method in a process of its own; with ``smoke``, which is to be quick, in this one."""
    if smoke:
        return measure(folder / image, method, n)
    return json.loads(run_apart(__file__, "--folder", str(folder), "--measure", image, method, str(n)).splitlines()[-1])


def measure_job(folder: Path, image: str, methods: list[str], n: int, options: Namespace) -> pd.DataFrame:
    """Measure all methods on one image; those that cut few tiles are not repeated."""
    # A process starts with the peak memory of the one that started it, so images are made apart.
    if options.smoke:
        prepare(folder, image)
    else:
        run_apart(__file__, "--folder", str(folder), "--prepare", image)
    results: dict[str, list[dict]] = {method: [] for method in methods}
    for repeat in range(1 if options.smoke else options.repeats):
        for method in methods:
            few = METHODS[method][1]
            if repeat == 0 or few is None:
                results[method].append(measure_apart(folder, image, method, min(n, few or n), smoke=options.smoke))
    return summarize(image, results)


def main() -> None:
    parser = CommandLine(__doc__)
    folder = Path(tempfile.gettempdir()) / "h2e-tiles"
    parser.add_argument("--folder", type=Path, default=folder, help="where the images are made and kept, 2 GB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", nargs="+", help="only images whose name starts so; other rows of the CSV are kept")
    parser.add_argument("--measure", nargs=3, help=SUPPRESS)
    parser.add_argument("--prepare", help=SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        image, method, n = options.measure
        print(json.dumps(measure(options.folder / image, method, int(n))))
        return
    folder = options.out / "images" if options.smoke else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.prepare:
        prepare(folder, options.prepare)
        return
    path = options.results / "tiles.csv"
    for image, methods, n in jobs_of(options):
        rows = measure_job(folder, image, methods, n, options)
        print(rows.to_string(index=False, na_rep=""), flush=True)
        kept = read(path)
        kept = kept[kept["image"] != image] if len(kept) else kept
        pd.concat([kept, stamp(rows)]).to_csv(path, index=False)


if __name__ == "__main__":
    main()
