"""How fast tiles become features: h2e, LazySlide's feature_extraction and a plain DataLoader loop, one model, one run.

    make test-encoders   # once: it makes the environment
    .venv-encoders/bin/python benchmarks/encoders.py   # 10 minutes on one core, a minute on a GPU
    python benchmarks/encoders.py --table              # prints the table of docs/encoders.md, from the file

The model (timm's vit_small_patch16_224) has random weights, which take as long as others. Everybody is given the same
tiles of a synthetic slide in JPEG tiles, 224 px at full resolution, and reads them from the file. Methods are
interleaved and the median is shown, per second of processor time on a processor (other users of the machine matter
little) and of wall time on a GPU. ``deviation`` is that of features from those of the plain loop in float32, the median
of the absolute difference in standard deviations over tiles. LazySlide is left out where it is not installed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import torch
from _record import CommandLine, read, write
from _tables import markdown
from _tiles_methods import slide_of
from tiles import make_texture, write_tiff

import h2e
from h2e._ensemble.extraction import extract_features

PX, BATCH = 224, 32
MODEL = "vit_small_patch16_224"
MEAN = STD = (0.5, 0.5, 0.5)
"""How this model of timm wants its images."""

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "auto": torch.float16}


def network(device: str, *, smoke: bool) -> torch.nn.Module:
    """Make a model of random weights."""
    torch.manual_seed(0)
    if smoke:
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16, 16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        module.pretrained_cfg = {"mean": MEAN, "std": STD}
    else:
        import timm

        module = timm.create_model(MODEL, num_classes=0)
    return module.eval().to(device)


@contextmanager
def open_tiff(path: Path) -> Iterator:
    """Open a TIFF as an array (y, x, c) that is read where it is indexed."""
    import tifffile
    import zarr

    with tifffile.imread(path, aszarr=True) as store:
        array = zarr.open(store, mode="r")
        yield array if hasattr(array, "shape") else array["0"]


def autocast(device: str, precision: str) -> torch.autocast:
    """The precision as torch has it."""
    return torch.autocast(device, PRECISIONS[precision] or torch.bfloat16, enabled=PRECISIONS[precision] is not None)


def by_h2e(path: Path, module: torch.nn.Module, corners: np.ndarray, device: str, precision: str) -> np.ndarray:
    """Extract features as ``h2e.tl.fit`` does."""
    with open_tiff(path) as array:
        levels = [da.from_array(array, chunks=array.chunks).transpose(2, 0, 1)]
        learner = h2e.tl.Embedding(module, px=PX, um_per_px=1, tile=0, surroundings=0, precision=precision)
        spots = {"xy": corners + PX / 2, "rows": np.arange(len(corners)), "in_tissue": np.ones(len(corners), bool)}
        (features,) = extract_features(replace(slide_of(levels), **spots), [learner], spacing_um=PX).values()
        return features


def by_loop(path: Path, module: torch.nn.Module, corners: np.ndarray, device: str, precision: str) -> np.ndarray:
    """Extract features with a DataLoader, as in the examples of most encoders."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))

    class Tiles(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(corners)

        def __getitem__(self, i: int) -> torch.Tensor:
            x, y = corners[i]
            return (torch.from_numpy(array[y : y + PX, x : x + PX]).permute(2, 0, 1).float() / 255 - mean) / std

    loader = torch.utils.data.DataLoader(Tiles(), batch_size=BATCH)
    with open_tiff(path) as array, torch.inference_mode(), autocast(device, precision):
        return torch.cat([module(images.to(device)).float().cpu() for images in loader]).numpy()


def by_lazyslide(path: Path, module: torch.nn.Module, corners: np.ndarray, device: str, precision: str) -> np.ndarray:
    """Extract features with LazySlide."""
    import lazyslide
    from lazyslide_models._utils import get_default_transform
    from wsidata import TileSpec, open_wsi
    from wsidata.io import add_tiles

    wsi = open_wsi(path, store=None, reader="tiffslide")
    add_tiles(wsi, "tiles", corners, TileSpec(PX, PX, PX, PX), np.zeros(len(corners), int))
    return lazyslide.tl.feature_extraction(
        wsi, module, transform=get_default_transform((PX, PX), mean=MEAN, std=STD), device=device, return_features=True,
        amp=precision != "float32", autocast_dtype=PRECISIONS[precision], compile=False, batch_size=BATCH, pbar=False,
    )  # fmt: skip


METHODS: dict[str, Callable] = {"DataLoader": by_loop, "LazySlide": by_lazyslide, "h2e": by_h2e}


def measure(path: Path, device: str, n: int, *, smoke: bool) -> pd.DataFrame:
    """Time every method and precision."""
    module, side = network(device, smoke=smoke), int(np.ceil(n**0.5))
    corners = PX * np.array([(i % side, i // side) for i in range(n)])
    methods = [name for name in METHODS if name != "LazySlide" or (find_spec("lazyslide") and not smoke)]
    clock = time.process_time if device == "cpu" else time.perf_counter
    half = ["auto"] if device == "cuda" else ["bfloat16"]
    seconds: dict[tuple[str, str], list[float]] = {}
    features: dict[tuple[str, str], np.ndarray] = {}
    for repeat in range(4):
        for precision in ["float32", *half]:
            for method in methods:
                # Imports and first calls are not what is measured; on a processor, half precision may take very long.
                slow = (precision, device) == ("bfloat16", "cpu")
                taken = corners[: 2 if repeat == 0 else n // 4 if slow else n]
                if repeat > 1 and slow:
                    continue
                start = clock()
                features[method, precision] = METHODS[method](path, module, taken, device, precision)
                if repeat:
                    seconds.setdefault((method, precision), []).append((clock() - start) / len(taken))
    exact = features["DataLoader", "float32"]
    rows = []
    for (method, precision), times in seconds.items():
        n = len(features[method, precision])
        deviation = np.median(abs(features[method, precision] - exact[:n]) / exact.std(axis=0))
        about = {"device": device, "model": "tiny" if smoke else MODEL, "method": method, "precision": precision}
        rows.append(about | {"tiles": n, "tiles_per_s": 1 / statistics.median(times), "deviation": deviation})
    table = pd.DataFrame(rows)
    best = table[table["method"] != "h2e"].groupby("precision")["tiles_per_s"].max()
    return table.assign(times_fastest_other=table["tiles_per_s"] / table["precision"].map(best)).round(5)


def show(table: pd.DataFrame) -> None:
    """Print the table of the documentation."""
    rows = [
        [row.device, row.method, row.precision, f"{row.tiles_per_s:.1f}", f"{row.times_fastest_other:.2f}",
         f"{row.deviation:.1e}"]
        for row in table.itertuples()
    ]  # fmt: skip
    heads = ["device", "method", "precision", "tiles/s", "× fastest other", "deviation"]
    print("\n".join(markdown(heads, rows)))


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    path = options.results / "encoders.csv"
    if not options.table:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        n = 4 if options.smoke else options.tiles
        side = PX * int(np.ceil(n**0.5))
        with tempfile.TemporaryDirectory() as folder:
            slide = Path(folder) / "slide.tif"
            write_tiff([da.from_array(np.moveaxis(make_texture(side), -1, 0))], slide)
            table = measure(slide, device, n, smoke=options.smoke)
        kept = read(path)
        kept = kept[kept["device"] != device] if len(kept) else kept
        name = torch.cuda.get_device_name() if device == "cuda" else None
        write(table, path, name)
        if len(kept):
            pd.concat([kept, read(path)]).to_csv(path, index=False)
    show(read(path))


if __name__ == "__main__":
    main()
