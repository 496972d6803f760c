"""Samples per second of training and predicting with the multiscale network, against a plain eager float32 loop.

Both use the same network, weights, tiles and batch size. The plain loop reads tile by tile through a DataLoader, in
the default memory layout; h2e keeps the tiles as one uint8 array, augments the batch, lays channels last and computes
in bfloat16 where the processor is faster in it. The rows alternate, so that a busy machine slows both; the best of
the repeats counts. One thread, processor time.

A product of two matrices is timed in both precisions, too: its gain is what the processor's bfloat16 can give at most.

    python benchmarks/training.py [--tiles 128] [--repeats 3] [--device cuda]   # 3 minutes
    H2E_DATA=../shared/data python benchmarks/training.py --fold   # 20 minutes

The second form trains on five sections of her2st and predicts the sixth, C5, in both precisions: one epoch of the
whole network, for the time (that of six folds of 30 epochs is computed from it), and 12 epochs by two seeds of its
cheapest encoder alone, for the accuracy: does bfloat16 change it more than the seed does? Rows that are missing are
added to results/training_fold.csv.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from _data import cohort_of, load, targets_of
from _record import CommandLine, append, processor, read, select, write

from h2e._ensemble.extraction import Features
from h2e._ensemble.transforms import fit_transform
from h2e._learners import training as _training
from h2e._learners.multiscale import Multiscale
from h2e._learners.network import NetworkConfig, build
from h2e._learners.training import find_device, mixed_precision, predict_views, train
from h2e._learners.training_config import TrainingConfig
from h2e.metrics import pearson

EPOCHS = 30
"""Of the six folds whose time is computed."""

PRECISIONS = {
    "bfloat16": lambda device: torch.autocast(device.type, dtype=torch.bfloat16),
    "float32": lambda device: contextlib.nullcontext(),
}
NETWORKS = {"whole": Multiscale(epochs=1), "center encoder only": Multiscale(epochs=12, encoders=("center",))}
SMOKE_NETWORKS = {name: Multiscale(epochs=1, encoders=("center",), subtile_px=16) for name in NETWORKS}
SEEDS = (0, 1)


class Tiles(torch.utils.data.Dataset):
    """One tile at a time, as float32."""

    def __init__(self, tiles: np.ndarray, y: np.ndarray) -> None:
        self.tiles, self.y = tiles, y

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.tiles[i]).float(), torch.from_numpy(self.y[i])


def plain_train(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> None:
    """Train one epoch with the loop that one would write first."""
    network = build(NetworkConfig(y.shape[1]), seed=0).to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    for x, measured in torch.utils.data.DataLoader(Tiles(tiles, y), batch_size=32, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x.to(device)), measured.to(device)).backward()
        optimizer.step()


def plain_predict(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> np.ndarray:
    """Predict the tiles once."""
    network = build(NetworkConfig(y.shape[1]), seed=0).to(device, memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        batches = torch.utils.data.DataLoader(Tiles(tiles, y), batch_size=32)
        return np.concatenate([network(x.to(device)).cpu().numpy() for x, _ in batches])


def h2e_train(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> None:
    """Train one epoch, augmentation and moving average included."""
    train(NetworkConfig(y.shape[1]), tiles, y, settings=TrainingConfig(epochs=1), device=str(device), progress=False)


def h2e_predict(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> np.ndarray:
    """Predict the tiles once, without the average over symmetries, which multiplies the work of either."""
    return predict_views(build(NetworkConfig(y.shape[1]), seed=0), tiles, symmetries=False, device=str(device))[0]


def matrix_product(precision: torch.dtype, side: int, device: torch.device) -> Callable[..., None]:
    """Make a task that multiplies two square matrices."""
    one, two = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    return lambda *_: torch.mm(one, two)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Give processor time on a CPU, so that other processes do not count; wall time on a GPU."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def seconds(task: Callable, tiles: np.ndarray, y: np.ndarray, device: torch.device) -> float:
    """Time a task."""
    clock = clock_of(device)
    start = clock()
    task(tiles, y, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def name_of(device: torch.device) -> str:
    """Give the name of the processor or of the card."""
    return processor() if device.type == "cpu" else torch.cuda.get_device_name(device)


def measure_speed(n_tiles: int, repeats: int, side: int, device: torch.device) -> pd.DataFrame:
    """Time training, prediction and the product of matrices; the best of the repeats counts."""
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (n_tiles, 3, 78, 78), dtype=np.uint8)
    y = rng.normal(size=(n_tiles, 35)).astype(np.float32)
    tasks = {("train", "plain"): plain_train, ("train", "h2e"): h2e_train}
    tasks |= {("predict", "plain"): plain_predict, ("predict", "h2e"): h2e_predict}
    tasks["product", "plain"] = matrix_product(torch.float32, side, device)
    tasks["product", "h2e"] = matrix_product(torch.bfloat16, side, device)
    # Kernels are chosen at the first call.
    for task in tasks.values():
        task(tiles[:32], y[:32], device)
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(repeats):
        for key, task in tasks.items():
            best[key] = min(best[key], seconds(task, tiles, y, device))
    with mixed_precision(device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    rows = []
    for (task, code), spent in best.items():
        used = "float32" if code == "plain" else "bfloat16" if task == "product" else precision
        value, unit = (2 * side**3 / spent / 1e9, "GFLOP/s") if task == "product" else (n_tiles / spent, "samples/s")
        row = {"task": task, "code": code, "precision": used, "value": round(value, 1), "unit": unit}
        rows.append(row | {"times_plain": round(best[task, "plain"] / spent, 2)})
    return pd.DataFrame(rows)


def measure_folds(path: Path, device: torch.device, *, smoke: bool) -> None:
    """Add the rows that are missing."""
    data = {}
    networks, seeds = (SMOKE_NETWORKS, SEEDS[:1]) if smoke else (NETWORKS, SEEDS)
    for (network, learner), seed, precision in itertools.product(networks.items(), seeds, PRECISIONS):
        key = {"network": network, "epochs": learner.epochs, "seed": seed, "precision": precision}
        done = len(select(read(path), **key, processor=name_of(device)))
        if done or (network == "whole" and seed > 0):
            continue
        data = data or fold_of_her2st(smoke=smoke)
        with mock.patch.object(_training, "mixed_precision", PRECISIONS[precision]):
            row = key | measure_fold(replace(learner, device=str(device)), seed, data, device)
        append(pd.DataFrame([row]), path, name_of(device))
        print(*row.values(), flush=True)


def fold_of_her2st(*, smoke: bool) -> dict[str, np.ndarray]:
    """Cut the tiles; the last section is left out, the targets are chosen without it."""
    cohort = cohort_of(load("her2st", smoke=smoke), "donor")
    test = cohort.names == cohort.slides[-1].name
    train = np.flatnonzero(~test)
    with warnings.catch_warnings():
        # h2e says that the tiles of A1 are enlarged.
        warnings.simplefilter("ignore")
        extractor = Features(cohort, progress=False)
        features = extractor.extract([Multiscale()], reference=None, spacing_um=cohort.spacing_um(train))
    y = targets_of(cohort).measured(train).to_numpy(np.float32)
    return {"x": features.x["multiscale"], "y": y, "slides": cohort.names, "groups": cohort.groups, "test": test}


def measure_fold(learner: Multiscale, seed: int, data: dict[str, np.ndarray], device: torch.device) -> dict:
    """Time training and predicting with eight symmetries, and compute the hours of six folds of 30 epochs."""
    x, y, slides, groups, test = data.values()
    z, transform = fit_transform("standardized", y[~test], slides[~test], groups[~test])
    clock = clock_of(device)
    start = clock()
    model = learner.fit(x[~test], z, groups[~test], seed=seed, progress=False)
    fitted = clock()
    prediction = transform.invert(model.predict(x[test]))
    fit_s, predict_s = fitted - start, clock() - fitted
    n_fitted = sum(len(x) - count for count in np.unique(slides, return_counts=True)[1])
    six_s = EPOCHS * n_fitted * fit_s / (learner.epochs * (~test).sum()) + len(x) * predict_s / test.sum()
    return {
        "training_tiles": (~test).sum(), "fit_s": round(fit_s, 1),
        "left_out_tiles": test.sum(), "predict_s": round(predict_s, 1),
        "pearson": round(pearson(prediction, y[test]).mean(), 4),
        "six_folds_of_30_epochs_computed_h": round(six_s / 3600, 2),
    }  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--tiles", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--fold", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = find_device(options.device)
    if options.fold or options.smoke:
        measure_folds(options.results / "training_fold.csv", device, smoke=options.smoke)
    if not options.fold:
        n_tiles, repeats, side = (2, 1, 64) if options.smoke else (options.tiles, options.repeats, 1024)
        write(measure_speed(n_tiles, repeats, side, device), options.results / "training.csv", name_of(device))


if __name__ == "__main__":
    main()
