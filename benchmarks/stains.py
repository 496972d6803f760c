"""Throughput and memory of stain normalization beside torchstain, squidpy and a plain copy.

    OMP_NUM_THREADS=1 python benchmarks/stains.py [--her2st FOLDER] [--large]

Everything runs in one process on the same pixels, first on one thread. A row is the median of several calls, in
megapixels per second of CPU time on one thread (other work on the machine counts less so), of wall time on two.
Memory is the highest resident size above that before, each in a fresh process. Prints the table and writes
benchmarks/results/stains.csv. ``--large`` adds 40,000².
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from h2e._slide.slide import Slide

RESULTS = Path(__file__).parent / "results" / "stains.csv"
SIDE = 2048


def tissue(side: int, folder: str | None) -> tuple[np.ndarray, str]:
    """A window full of tissue of a real slide or, without one, painted; (3, y, x)."""
    if folder is not None:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None
        file = next(Path(folder).glob("data/ST-imgs/C/C2/*.jpg"))
        with Image.open(file) as image:
            window = image.crop((4000, 4000, 4000 + side, 4000 + side))
        return np.ascontiguousarray(np.asarray(window).transpose(2, 0, 1)), "her2st C2"
    random = np.random.default_rng(0)
    amounts = random.gamma(1.5, 0.5, (side, side, 2))
    od = amounts @ np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]])
    return np.clip(240 * np.exp(-od) - 1, 0, 255).astype(np.uint8).transpose(2, 0, 1).copy(), "painted"


def speed(
    call: Callable[[], object], n_pixels: int, repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Median megapixels per second, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(clock() - start)
    return n_pixels / np.median(times) / 1e6


def ours(pixels: np.ndarray, method: str) -> Callable[[np.ndarray], np.ndarray]:
    """What h2e does to a block of tissue, to another slide's stains."""
    from h2e._stains.estimation import estimate_stains
    from h2e._stains.maps import map_block, settings_of

    sample = pixels.reshape(3, -1).T[::41]
    darker = (sample.astype(float) ** 2 / 255).astype(np.uint8)
    settings = settings_of(estimate_stains(sample, method), estimate_stains(darker, method))
    return lambda block: map_block(block, settings)


def torchstain_calls(pixels: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """torchstain on one 1,024-px tile, which it fits and maps in one call."""
    import torch
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer
    from torchstain.torch.normalizers import TorchMacenkoNormalizer, TorchReinhardNormalizer

    tile = np.ascontiguousarray(pixels[:, :1024, :1024].transpose(1, 2, 0))
    tensor = torch.from_numpy(tile.transpose(2, 0, 1).copy())
    calls = {}
    for backend, macenko, reinhard, image in (
        ("numpy", NumpyMacenkoNormalizer(), NumpyReinhardNormalizer(), tile),
        ("torch", TorchMacenkoNormalizer(), TorchReinhardNormalizer(), tensor),
    ):
        macenko.fit(image)
        reinhard.fit(image)
        calls[f"torchstain {backend}", "macenko"] = lambda m=macenko, i=image: m.normalize(i, stains=False)
        calls[f"torchstain {backend}", "reinhard"] = lambda r=reinhard, i=image: r.normalize(i)
    return calls


def squidpy_calls(pixels: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """squidpy on a multiscale element of the same tile, computed."""
    import dask
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from squidpy.experimental import im

    tile = pixels[:, :1024, :1024]
    element = Image2DModel.parse(tile, c_coords=["r", "g", "b"], scale_factors=[2, 2], chunks=(3, 1024, 1024))
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
    """All methods, each on one thread."""
    rows = []
    out = np.empty_like(pixels)
    n = pixels[0].size
    rows.append({"what": "copy", "method": "limit", "mpix_s": speed(lambda: np.copyto(out, pixels), n, 5 * repeats)})
    for method in ("macenko", "vahadane", "reinhard"):
        call = ours(pixels, method)
        rows.append({"what": "h2e", "method": method, "mpix_s": speed(lambda c=call: c(pixels), n, 3 * repeats)})
    for (what, method), call in {**torchstain_calls(pixels), **squidpy_calls(pixels)}.items():
        rows.append({"what": what, "method": method, "mpix_s": speed(call, 1024**2, repeats)})
    for row in rows:
        row["threads"] = 1
    return rows


def scaling(pixels: np.ndarray, repeats: int) -> list[dict[str, object]]:
    """The same kernel on blocks of 1,024 px by two threads."""
    rows = []
    half = SIDE // 2
    blocks = [np.ascontiguousarray(pixels[:, y : y + half, x : x + half]) for y in (0, half) for x in (0, half)]
    for method in ("macenko", "reinhard"):
        call = ours(pixels, method)
        for threads in (1, 2):
            with ThreadPoolExecutor(threads) as pool:
                rate = speed(
                    lambda p=pool, c=call: list(p.map(c, blocks * 2)),
                    2 * pixels[0].size,
                    3 * repeats,
                    time.perf_counter,
                )
            rows.append({"what": "h2e blocks", "method": method, "threads": threads, "mpix_s": rate})
    return rows


def peak(side: int, method: str) -> dict[str, object]:
    """Highest memory of normalizing a lazy slide of ``side``² and reading all of it, in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", str(side), method], stdout=subprocess.PIPE, text=True, check=True
    )
    mib, seconds = map(float, done.stdout.split()[-2:])
    row = {"what": "h2e lazy slide", "method": method, "threads": 1, "side": side, "peak_mib": round(mib)}
    return {**row, "mpix_s": side**2 / seconds / 1e6}


def resident(what: str) -> float:
    """MiB that the process holds now (``VmRSS``) or held at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def measure_peak(side: int, method: str) -> None:
    """Print MiB above the start and seconds: chunks are made when they are read, results are dropped."""
    import dask
    import dask.array as da

    from h2e._slide.image import Image
    from h2e._stains.slides import fit_reference, normalize_image

    tile, _ = tissue(1024, None)

    def make(block_info: dict | None = None) -> np.ndarray:
        (_, _), (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return tile[:, : y1 - y0, : x1 - x0].copy()

    def slide(size: int) -> Image:
        sizes = tuple(min(1024, size - at) for at in range(0, size, 1024))
        meta = np.empty((0, 0, 0), np.uint8)
        return Image("he", (da.map_blocks(make, chunks=((3,), sizes, sizes), dtype=np.uint8, meta=meta),), (1.0,))

    mask = np.ones((side // 32 + 1, side // 32 + 1), bool)
    warm = slide(1024)  # compile first: that is not the slide's memory
    reference = fit_reference(
        [replace(Slide.without_spots(warm, None, ""), tissue=(mask[:32, :32], 32.0))], method=method
    )
    normalize_image(warm, (mask[:32, :32], 32.0), reference).levels[0].compute(scheduler="synchronous")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident("VmRSS")
    start = time.process_time()
    level = normalize_image(slide(side), (mask, 32.0), reference).levels[0]
    with dask.config.set(scheduler="synchronous"):
        level.map_blocks(lambda b: b[:, :1, :1].copy(), dtype=np.uint8, chunks=(3, 1, 1)).compute()
    print(resident("VmHWM") - before, time.process_time() - start)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--her2st", default=os.environ.get("H2E_DATA") and f"{os.environ['H2E_DATA']}/her2st")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", nargs=2)
    arguments = parser.parse_args()
    if arguments.peak:
        measure_peak(int(arguments.peak[0]), arguments.peak[1])
        return
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pixels, source = tissue(SIDE, arguments.her2st)
    rows = throughput(pixels, arguments.repeats) + scaling(pixels, arguments.repeats)
    sides = [5_000, 20_000, *([40_000] if arguments.large else [])]
    rows += [peak(side, method) for side in sides for method in ("macenko", "reinhard")]
    table = pd.DataFrame(rows)
    table.insert(0, "pixels", source)
    others = table[table["what"].str.contains("torchstain|squidpy")]
    best = others["mpix_s"].max()
    table["times_fastest_other"] = np.where(table["what"].str.startswith("h2e"), table["mpix_s"] / best, np.nan)
    own = others.groupby("method")["mpix_s"].max()
    table["times_same_method"] = table["mpix_s"] / table["method"].map(own)
    RESULTS.parent.mkdir(exist_ok=True)
    table.round(2).to_csv(RESULTS, index=False)
    print(table.round(1).to_string(index=False, na_rep=""))


if __name__ == "__main__":
    main()
