"""One step of benchmarks/speed.py, in a process of its own: ``python _speed_steps.py STEP`` prints what it took.

It calls only what h2e has had since the commit that it is compared with, so that the same file times both.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spatialdata import SpatialData

N_FEATURES, N_TARGETS, N_GROUPS = 356, 35, 6
"""Of the synthetic spots of the heads: features of texture, and the default number of targets."""

VISIUM_SPOTS = (50, 40)
"""Rows and columns of the synthetic Visium slide."""

DEFAULT = ("texture", "knn", "pls", "embedding")

Task = Callable[[], Any]


def toy(n_spots: int) -> SpatialData:
    """Make three synthetic slides, one a donor, with about so many spots on tissue."""
    import h2e

    # The tissue covers about half of the lattice.
    return h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=max(4, round((2 * n_spots / 3) ** 0.5)))


def features(name: str, *, smoke: bool) -> Task:
    """Describe 64 spots by a learner, on crops of a synthetic slide."""
    import h2e

    learner = {"texture": h2e.tl.Texture(), "embedding": h2e.tl.Embedding()}[name]
    image = toy(600).images["toy_A1_image"]["scale0"]["image"].data.compute()
    rng, n = np.random.default_rng(0), 2 if smoke else 64
    tiles = []
    for view in learner.views:
        at = rng.integers(0, np.array(image.shape[1:]) - view.px, (n, 2))
        tiles.append(np.stack([image[:, y : y + view.px, x : x + view.px] for y, x in at]))
    extract = getattr(learner, "extract_features", None) or learner.look
    # Compiled kernels and the network are made once.
    extract([view[:1] for view in tiles])
    return lambda: extract(tiles)


def head(name: str, n_spots: int, n_features: int = N_FEATURES, *, smoke: bool) -> Task:
    """Train a head on synthetic features, inner folds included, and predict as many spots."""
    import h2e

    n = 60 if smoke else n_spots
    rng = np.random.default_rng(0)
    # Features in common and little of a target in them, as in tissue.
    latent = rng.normal(size=(n, 60)) * np.geomspace(1, 0.05, 60)
    x = np.empty((n, n_features), np.float32)
    mix = rng.normal(size=(60, n_features))
    # In parts, since whole in double precision it may be larger than what is measured.
    for part in np.array_split(np.arange(n), 10):
        x[part] = latent[part] @ mix + 0.1 * rng.normal(size=(len(part), n_features))
    y = (0.3 * latent @ rng.normal(size=(60, N_TARGETS)) + rng.normal(size=(n, N_TARGETS))).astype(np.float32)
    groups = np.repeat(np.arange(N_GROUPS).astype(str), -(-n // N_GROUPS))[:n]
    learner = h2e.tl.Texture(head=name)
    learner.fit(x[:20], y[:20], groups[:20]).predict(x[:2])
    return lambda: learner.fit(x, y, groups).predict(x)


def her2st(step: str, *, smoke: bool) -> Task:
    """Fit, predict or evaluate on the six sections, donors left out, each step with its own features."""
    import h2e

    sdata = toy(30) if smoke else h2e.datasets.her2st(progress=False)
    return _on_slides(sdata, step)


def synthetic(step: str, n_spots: int, *, smoke: bool) -> Task:
    """Fit or predict on synthetic slides."""
    return _on_slides(toy(30 if smoke else n_spots), step)


def cheap_encoder(n_spots: int, *, smoke: bool) -> Task:
    """Fit on synthetic slides, with an encoder of as many features as the packaged one that costs nothing."""
    import h2e

    def encode(images: np.ndarray) -> np.ndarray:
        return images[:, :, ::4, ::4].reshape(len(images), -1)[:, :480].astype(np.float32)

    sdata = toy(30 if smoke else n_spots)
    learners = (*DEFAULT[:3], h2e.tl.Embedding(encode, px=80))
    return lambda: h2e.tl.fit(sdata, learners=learners, group_key="donor", progress=False)


def visium(step: str, *, smoke: bool) -> Task:
    """Fit, or predict on, one slide from a Space Ranger folder with the hires image only."""
    from spatialdata_io import visium as read

    folder = Path(tempfile.mkdtemp()) / "slide"
    write_space_ranger(folder, *((14, 12) if smoke else VISIUM_SPOTS))
    return _on_slides(read(folder, dataset_id="slide"), step, group_key=None)


def no_pyramid(step: str, side: int, *, smoke: bool) -> Task:
    """Find the tissue of, or predict by texture, an image of one level at 0.25 µm a pixel, in chunks of 1,024."""
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    import h2e

    rng, side = np.random.default_rng(0), 2048 if smoke else side
    dark = rng.random((8, 8)).repeat(128, 0).repeat(128, 1) < 0.7
    stained = np.array([190, 120, 170])[:, None, None] + rng.integers(-40, 40, (3, 1024, 1024))
    tissue = np.where(dark, stained, 243).astype(np.uint8)
    chunks = ((3,), *2 * ((1024,) * (side // 1024) + ((side % 1024,) if side % 1024 else ()),))

    def decode(block_info: dict[Any, Any]) -> np.ndarray:
        """Give a chunk, like a file that is decoded."""
        _, (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return tissue[:, : y1 - y0, : x1 - x0].copy()

    pixels = da.map_blocks(decode, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
    sdata = SpatialData(images={"scan": image})
    cohort = toy(30)
    ensemble = h2e.tl.fit(cohort, learners="texture", group_key="donor", progress=False)
    h2e.tl.predict(toy(30), ensemble, progress=False)
    if step == "make_spots":
        return lambda: h2e.pp.make_spots(sdata, spacing_um=100, um_per_px=0.25)
    return lambda: h2e.tl.predict(sdata, ensemble, um_per_px=0.25, progress=False)


def _on_slides(sdata: SpatialData, step: str, *, group_key: str | None = "donor") -> Task:
    """Make a step on slides; kernels are compiled before, on other slides."""
    import h2e

    options = {"learners": DEFAULT, "group_key": group_key, "progress": False}
    warm = toy(30)
    ensemble = h2e.tl.fit(warm, **options | {"group_key": "donor"})
    h2e.tl.predict(toy(30), ensemble, progress=False)
    if step == "fit":
        return lambda: h2e.tl.fit(sdata, **options)
    if step == "evaluate":
        return lambda: h2e.tl.evaluate(sdata, **options)
    ensemble = h2e.tl.fit(sdata, **options)
    if step == "predict, as trained on":
        return lambda: h2e.tl.predict(sdata, ensemble, progress=False)
    # Otherwise nothing is computed for slides that the ensemble was trained on: their held-out predictions are in it.
    return lambda: h2e.tl.predict(sdata, ensemble, in_sample=True, progress=False)


def write_space_ranger(folder: Path, n_rows: int, n_columns: int) -> None:
    """Write a synthetic slide as Space Ranger 2 does: a hexagonal array, counts in HDF5, two small images."""
    import h5py
    import pandas as pd
    from PIL import Image
    from scipy import sparse
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    rows, columns = (a.ravel() for a in np.mgrid[0:n_rows, 0:n_columns])
    columns = 2 * columns + rows % 2
    # The spots are 100 µm apart on a scan of 0.5 µm/px, of which the hires image has a fifth.
    pitch, scale = 200.0, 0.2
    xy = 300 + np.column_stack([columns * pitch / 2, rows * pitch * np.sqrt(3) / 2])
    shape = np.ceil((xy.max(axis=0) + 300) * scale).astype(int)[::-1]
    field = gaussian_filter(rng.normal(size=shape), 12)
    field = (field - field.min()) / np.ptp(field)
    grain = gaussian_filter(rng.normal(size=shape), 1.5)
    tissue = np.array([205, 120, 180]) - (90 * field + 60 * grain)[..., None] * np.array([0.8, 0.5, 0.3])
    edge = np.minimum(*np.ogrid[: shape[0], : shape[1]]) < 30
    pixels = np.where(edge[..., None], 240, tissue).clip(0, 255).astype(np.uint8)
    under = field[(xy[:, 1] * scale).astype(int), (xy[:, 0] * scale).astype(int)]
    rate = np.exp(rng.normal(0, 1, 200) + 2 * np.outer(under - 0.5, rng.normal(size=200)))
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.int32))
    barcodes = [f"{i:016d}-1" for i in range(len(xy))]
    names = np.array([f"GENE{i}" for i in range(counts.shape[1])], "S")
    (folder / "spatial").mkdir(parents=True)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            matrix[key] = getattr(counts, key)
        matrix["shape"] = np.array(counts.shape[::-1], np.int32)
        matrix["barcodes"] = np.array(barcodes, "S")
        described = matrix.create_group("features")
        described["id"] = described["name"] = names
        described["feature_type"] = np.array(["Gene Expression"] * len(names), "S")
        described["genome"] = np.array(["toy"] * len(names), "S")
    positions = {"barcode": barcodes, "in_tissue": 1, "array_row": rows, "array_col": columns}
    positions |= {"pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0]}
    pd.DataFrame(positions).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    factors = {"spot_diameter_fullres": 0.65 * pitch, "fiducial_diameter_fullres": pitch}
    factors |= {"tissue_hires_scalef": scale, "tissue_lowres_scalef": scale / 4}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, factor in {"hires": 1, "lowres": 4}.items():
        Image.fromarray(pixels).reduce(factor).save(folder / "spatial" / f"tissue_{name}_image.png")


STEPS: dict[str, Callable[..., Task]] = {
    **{f"features, {name}, 64 spots": partial(features, name) for name in ("texture", "embedding")},
    **{
        f"head {name}, {n:,} spots": partial(head, name, n)
        for n in (1_000, 10_000, 100_000)
        for name in ("ridge", "pls", "knn")
    },
    **{f"head ridge, 30,000 spots × {d:,} features": partial(head, "ridge", 30_000, d) for d in (3 * 1_536, 3 * 3_072)},
    **{f"{step}, her2st": partial(her2st, step) for step in ("fit", "predict", "evaluate")},
    **{
        f"{step}, {n:,} spots": partial(synthetic, step, n)
        for n in (1_000, 10_000, 100_000)
        for step in ("fit", "predict")
    },
    "fit, 100,000 spots, encoder that costs nothing": partial(cheap_encoder, 100_000),
    **{
        f"{step}, {side:,}² px without a pyramid": partial(no_pyramid, step, side)
        for side in (5_000, 20_000, 40_000)
        for step in ("make_spots", "predict")
    },
    **{f"{step}, one Visium slide": partial(visium, step) for step in ("fit", "predict", "predict, as trained on")},
}


def _forget_peak() -> None:
    """Let the peak begin with the step, where Linux allows it: making synthetic slides takes more than using them."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_gb() -> float:
    """Give the largest resident size so far, in GB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Time one step and print it as JSON."""
    smoke = "--smoke" in sys.argv
    warnings.simplefilter("ignore")
    if sys.argv[1] == "import h2e":

        def task() -> None:
            import h2e  # noqa: F401
    else:
        task = STEPS[sys.argv[1]](smoke=smoke)
    _forget_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    task()
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    peak = _peak_gb()
    import h2e

    # Of another copy of h2e nothing would be known.
    print(json.dumps(spent | {"peak_gb": peak, "source": os.path.dirname(h2e.__file__)}))


if __name__ == "__main__":
    main()
