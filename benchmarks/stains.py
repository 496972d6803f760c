"""Throughput and memory of stain normalization beside torchstain, squidpy and a plain copy.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/stains.py [--large]   # 3 minutes, 8 with --large

Everything runs in one process on the same pixels, first on one thread. A row is the median of several calls, in
megapixels per second of CPU time on one thread (other work on the machine counts less so), of wall time on two.
Memory is the highest resident size above that before, each in a fresh process (on Linux only). Without ``H2E_DATA``
the pixels are painted, not those of a real section. Prints the table and writes benchmarks/results/stains.csv.
``--large`` adds 40,000².
"""

from __future__ import annotations

import os
import time
import warnings
from argparse import SUPPRESS
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from _record import CommandLine, run_apart, write

OURS = ("macenko", "reinhard")
"""Methods that are measured on two threads and on whole slides, too."""

STATUS = Path("/proc/self/status")


def tissue(side: int) -> tuple[np.ndarray, str]:
    """Cut a window full of tissue from a real slide."""
    import h2e.datasets

    levels = h2e.datasets.her2st(sections=["C2"], progress=False)["C2_image"]
    window = levels["scale0"]["image"].data[:, 4000 : 4000 + side, 4000 : 4000 + side]
    return np.ascontiguousarray(window.compute()), "her2st C2"


def painted(side: int) -> tuple[np.ndarray, str]:
    """Paint tissue, (3, y, x)."""
    random = np.random.default_rng(0)
    amounts = random.gamma(1.5, 0.5, (side, side, 2))
    od = amounts @ np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]])
    return np.clip(240 * np.exp(-od) - 1, 0, 255).astype(np.uint8).transpose(2, 0, 1).copy(), "painted"


def speed(
    call: Callable[[], object], n_pixels: int, repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Give the median of megapixels per second, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return n_pixels / np.median(times) / 1e6


def ours(pixels: np.ndarray, method: str) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function of h2e that brings a block of tissue to another slide's stains."""
    from h2e._stains.estimation import estimate_stains
    from h2e._stains.maps import map_block, settings_of

    sample = pixels.reshape(3, -1).T[::41]
    darker = (sample.astype(float) ** 2 / 255).astype(np.uint8)
    settings = settings_of(estimate_stains(sample, method), estimate_stains(darker, method))
    return lambda block: map_block(block, settings)


def torchstain_calls(tile: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """Call torchstain, which fits and maps a tile in one call."""
    import torch
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer
    from torchstain.torch.normalizers import TorchMacenkoNormalizer, TorchReinhardNormalizer

    calls = {}
    for backend, macenko, reinhard, image in (
        ("numpy", NumpyMacenkoNormalizer(), NumpyReinhardNormalizer(), tile.transpose(1, 2, 0).copy()),
        ("torch", TorchMacenkoNormalizer(), TorchReinhardNormalizer(), torch.from_numpy(tile)),
    ):
        macenko.fit(image)
        reinhard.fit(image)
        calls[f"torchstain {backend}", "macenko"] = lambda m=macenko, i=image: m.normalize(i, stains=False)
        calls[f"torchstain {backend}", "reinhard"] = lambda r=reinhard, i=image: r.normalize(i)
    return calls


def squidpy_calls(tile: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """Call squidpy on a multiscale element of a tile, and compute the result."""
    import dask
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from squidpy.experimental import im

    element = Image2DModel.parse(tile, c_coords=["r", "g", "b"], scale_factors=[2, 2], chunks=tile.shape)
    mask = Labels2DModel.parse(np.ones(tile.shape[1:], np.uint8), dims=("y", "x"))
    sdata = SpatialData(images={"he": element}, labels={"he_tissue": mask})
    calls = {}
    for method in ("macenko", "vahadane", "reinhard"):
        reference = im.fit_stain_reference(sdata, "he", method=method)

        def call(reference: object = reference) -> object:
            with dask.config.set(scheduler="synchronous"):
                return im.normalize_stains(sdata, "he", reference, inplace=False).compute()

        calls["squidpy", method] = call
    return calls


def throughput(pixels: np.ndarray, repeats: int) -> list[dict[str, object]]:
    """Measure all methods on one thread: h2e on all pixels, the others on a quarter of them."""
    rows = []
    out = np.empty_like(pixels)
    n = pixels[0].size
    rows.append({"what": "copy", "method": "limit", "mpix_s": speed(lambda: np.copyto(out, pixels), n, 5 * repeats)})
    for method in ("macenko", "vahadane", "reinhard"):
        call = ours(pixels, method)
        rows.append({"what": "h2e", "method": method, "mpix_s": speed(lambda c=call: c(pixels), n, 3 * repeats)})
    half = pixels.shape[1] // 2
    tile = np.ascontiguousarray(pixels[:, :half, :half])
    for (what, method), call in {**torchstain_calls(tile), **squidpy_calls(tile)}.items():
        rows.append({"what": what, "method": method, "mpix_s": speed(call, half**2, repeats)})
    return [row | {"threads": 1} for row in rows]


def map_blocks(pool: ThreadPoolExecutor, call: Callable, blocks: list[np.ndarray]) -> None:
    """Map blocks by the threads of a pool."""
    list(pool.map(call, blocks))


def scaling(pixels: np.ndarray, repeats: int) -> list[dict[str, object]]:
    """Measure the same kernel on quarters of the pixels, by one and two threads."""
    rows = []
    half = pixels.shape[1] // 2
    blocks = [np.ascontiguousarray(pixels[:, y : y + half, x : x + half]) for y in (0, half) for x in (0, half)]
    for method in OURS:
        call = ours(pixels, method)
        for threads in (1, 2):
            with ThreadPoolExecutor(threads) as pool:
                map_all = partial(map_blocks, pool, call, blocks * 2)
                rate = speed(map_all, 2 * pixels[0].size, 3 * repeats, time.perf_counter)
            rows.append({"what": "h2e blocks", "method": method, "threads": threads, "mpix_s": rate})
    return rows


def peak_row(side: int, method: str, printed: str) -> dict[str, object]:
    """Make a row of what ``--peak`` printed."""
    mib, seconds = map(float, printed.split()[-2:])
    row = {"what": "h2e lazy slide", "method": method, "threads": 1, "side": side, "peak_mib": round(mib)}
    return row | {"mpix_s": side**2 / seconds / 1e6}


def resident(what: str) -> float:
    """Give the MiB that the process holds now (``VmRSS``) or held at most (``VmHWM``)."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def measure_peak(side: int, method: str) -> str:
    """Normalize a lazy slide and read all of it: chunks are made when they are read, results are dropped.

    Returns MiB above the start, and seconds.
    """
    import dask
    import dask.array as da

    from h2e._slide.image import Image
    from h2e._slide.slide import Slide
    from h2e._stains.slides import fit_reference, normalize_image

    tile, _ = painted(1024)

    def make(block_info: dict | None = None) -> np.ndarray:
        (_, _), (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return tile[:, : y1 - y0, : x1 - x0].copy()

    def slide(size: int) -> Image:
        sizes = tuple(min(1024, size - at) for at in range(0, size, 1024))
        meta = np.empty((0, 0, 0), np.uint8)
        return Image("he", (da.map_blocks(make, chunks=((3,), sizes, sizes), dtype=np.uint8, meta=meta),), (1.0,))

    mask = np.ones((side // 32 + 1, side // 32 + 1), bool)
    # What is compiled is not the slide's memory.
    warm = slide(1024)
    small = replace(Slide.without_spots(warm, None, ""), tissue=(mask[:32, :32], 32.0))
    reference = fit_reference([small], method=method)
    normalize_image(warm, (mask[:32, :32], 32.0), reference, um_per_px=None).levels[0].compute(scheduler="synchronous")
    # The kernel forgets the highest so far.
    STATUS.with_name("clear_refs").write_text("5")
    before = resident("VmRSS")
    start = time.process_time()
    level = normalize_image(slide(side), (mask, 32.0), reference, um_per_px=None).levels[0]
    with dask.config.set(scheduler="synchronous"):
        level.map_blocks(lambda b: b[:, :1, :1].copy(), dtype=np.uint8, chunks=(3, 1, 1)).compute()
    return f"{resident('VmHWM') - before} {time.process_time() - start}"


def with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Compare h2e with the fastest of the others, of all methods and of the same one."""
    others = table[table["what"].str.contains("torchstain|squidpy")]
    ours = table["what"].str.startswith("h2e")
    by_method = table["method"].map(others.groupby("method")["mpix_s"].max())
    return table.assign(
        times_fastest_other=(table["mpix_s"] / others["mpix_s"].max()).where(ours),
        times_same_method=table["mpix_s"] / by_method,
    )


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", nargs=2, help=SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        side, method = options.peak
        print(measure_peak(int(side), method))
        return
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    real = os.environ.get("H2E_DATA") and not options.smoke
    pixels, source = (tissue if real else painted)(256 if options.smoke else 2048)
    repeats = 1 if options.smoke else options.repeats
    rows = throughput(pixels, repeats) + scaling(pixels, repeats)
    sides = [256] if options.smoke else [5_000, 20_000, *([40_000] if options.large else [])]
    for side in sides if STATUS.exists() else ():
        for method in OURS:
            # In seconds, without a process that imports everything again.
            printed = measure_peak(side, method) if options.smoke else run_apart(__file__, "--peak", str(side), method)
            rows.append(peak_row(side, method, printed))
    table = with_ratios(pd.DataFrame(rows))
    table.insert(0, "pixels", source)
    write(table.round(2), options.results / "stains.csv")


if __name__ == "__main__":
    main()
