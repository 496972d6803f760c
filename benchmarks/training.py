"""Samples per second of training and predicting with the multiscale network, against a plain eager float32 loop.

Both use the same network, weights, tiles and batch size. The plain loop reads tile by tile through a DataLoader, in
the default memory layout; h2e keeps the tiles as one uint8 array, augments the batch, lays channels last and computes
in bfloat16 where the processor is faster in it. The rows alternate, so that a busy machine slows both; the best of
the repeats counts. One thread, processor time.

A product of two matrices is timed in both precisions, too: its gain is what the processor's bfloat16 can give at most.

    python benchmarks/training.py [--tiles 128] [--repeats 3] [--device cuda]
    H2E_DATA=../shared/data python benchmarks/training.py --fold

The second form trains on five sections of her2st and predicts the sixth, C5, in both precisions: one epoch of the
whole network, for the time (that of six folds of 30 epochs is computed from it), and 12 epochs by two seeds of its
cheapest encoder alone, for the accuracy: does bfloat16 change it more than the seed does? Rows that are missing are
added to results/training_fold.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from h2e._ensemble.cohort import open_cohort

import h2e
from h2e._ensemble.training import TargetSpec
from h2e._ensemble.transforms import fit_transform
from h2e._learners import training as _training
from h2e._learners.multiscale import Multiscale
from h2e._learners.network import NetworkConfig, build
from h2e._learners.training import TrainingConfig, find_device, mixed_precision, predict, train
from h2e.metrics import pearson

OUT = Path(__file__).parent / "results" / "training.csv"
FOLD = OUT.with_name("training_fold.csv")
SIDE = 1024
"""Of the matrices."""

LEFT_OUT, EPOCHS = "C5", 30
PRECISIONS = {
    "bfloat16": lambda device: torch.autocast(device.type, dtype=torch.bfloat16),
    "float32": lambda device: contextlib.nullcontext(),
}
FOLD_COLUMNS = ["network", "epochs", "seed", "precision", "device", "training_tiles", "fit_s", "left_out_tiles", "predict_s",
                "pearson", "six_folds_of_30_epochs_computed_h"]  # fmt: skip
NETWORKS = {"whole": Multiscale(epochs=1), "center encoder only": Multiscale(epochs=12, encoders=("center",))}
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
    """One epoch of the loop that one would write first."""
    network = build(NetworkConfig(y.shape[1]), seed=0).to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    for x, truth in torch.utils.data.DataLoader(Tiles(tiles, y), batch_size=32, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x.to(device)), truth.to(device)).backward()
        optimizer.step()


def plain_predict(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> np.ndarray:
    """One pass over the tiles."""
    network = build(NetworkConfig(y.shape[1]), seed=0).to(device, memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        return np.concatenate(
            [
                network(x.to(device)).cpu().numpy()
                for x, _ in torch.utils.data.DataLoader(Tiles(tiles, y), batch_size=32)
            ]
        )


def h2e_train(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> None:
    """One epoch, augmentation and moving average included."""
    train(NetworkConfig(y.shape[1]), tiles, y, settings=TrainingConfig(epochs=1), device=str(device), progress=False)


def h2e_predict(tiles: np.ndarray, y: np.ndarray, device: torch.device) -> np.ndarray:
    """One pass, without the average over symmetries, which multiplies the work of either."""
    return predict(build(NetworkConfig(y.shape[1]), seed=0), tiles, symmetries=False, device=str(device))


def product(precision: torch.dtype, device: torch.device) -> Callable[..., None]:
    """A task that multiplies two square matrices."""
    one, two = (torch.randn(SIDE, SIDE, device=device).to(precision) for _ in range(2))
    return lambda *_: torch.mm(one, two)


def seconds(task: Callable, tiles: np.ndarray, y: np.ndarray, device: torch.device) -> float:
    """Processor time on a CPU, so that other processes do not count; wall time on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    task(tiles, y, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--fold", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = find_device(options.device)
    if options.fold:
        measure_folds(device)
        return
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (options.tiles, 3, 78, 78), dtype=np.uint8)
    y = rng.normal(size=(options.tiles, 35)).astype(np.float32)
    tasks = {("train", "plain"): plain_train, ("train", "h2e"): h2e_train}
    tasks |= {("predict", "plain"): plain_predict, ("predict", "h2e"): h2e_predict}
    tasks |= {("product", "plain"): product(torch.float32, device), ("product", "h2e"): product(torch.bfloat16, device)}
    for task in tasks.values():  # kernels are chosen at the first call
        task(tiles[:32], y[:32], device)
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(options.repeats):
        for key, task in tasks.items():
            best[key] = min(best[key], seconds(task, tiles, y, device))
    write(best, len(tiles), device)


def name_of(device: torch.device) -> str:
    """The processor or the card."""
    return torch.cpu.get_capabilities()["cpu_name"] if device.type == "cpu" else torch.cuda.get_device_name(device)


def measure_folds(device: torch.device) -> None:
    """Add the rows that are missing."""
    data = fold_of_her2st()
    for (network, learner), seed, precision in itertools.product(NETWORKS.items(), SEEDS, PRECISIONS):
        name = [network, learner.epochs, seed, precision, name_of(device)]
        done = FOLD.read_text() if FOLD.exists() else ""
        if ",".join(map(str, name)) in done or (network == "whole" and seed > 0):
            continue
        _training.mixed_precision = PRECISIONS[precision]
        row = name + measure_fold(replace(learner, device=str(device)), seed, data, device)
        print(*row, flush=True)
        with FOLD.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([row] if done else [FOLD_COLUMNS, row])


def fold_of_her2st() -> dict[str, np.ndarray]:
    """Tiles, targets, sections and donors; the targets are chosen without the section that is left out."""
    options = dict.fromkeys(("image_key", "tissue_mask_key", "library_key", "um_per_px"))
    cohort = open_cohort(h2e.datasets.her2st(progress=False), table_key="table", group_key="donor", **options)
    train = np.flatnonzero(cohort.names != LEFT_OUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiles of A1 are enlarged
        seen = cohort.extract_features(
            [Multiscale()], reference=None, spacing_um=cohort.spacing_um(train), progress=False
        )
    y = TargetSpec(cohort.table, None, 35, None, None, log_normalized=False).of(cohort, train)
    return {"x": seen["multiscale"], "y": y.to_numpy(np.float32), "slides": cohort.names, "groups": cohort.groups}


def measure_fold(learner: Multiscale, seed: int, data: dict[str, np.ndarray], device: torch.device) -> list[str]:
    """Seconds of training and of predicting with eight symmetries, the accuracy, and hours of six folds of 30 epochs."""
    x, y, slides, groups = data.values()
    test = slides == LEFT_OUT
    z, transform = fit_transform("standardized", y[~test], slides[~test], groups[~test])
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    model = learner.fit(x[~test], z, groups[~test], seed=seed, progress=False)
    fitted = clock()
    guess = transform.invert(model.predict(x[test]))
    fitting, predicting = fitted - start, clock() - fitted
    others = sum(len(x) - count for count in np.unique(slides, return_counts=True)[1])
    six = EPOCHS * others * fitting / (learner.epochs * (~test).sum()) + len(x) * predicting / test.sum()
    found = pearson(guess, y[test]).mean()
    return [(~test).sum(), f"{fitting:.1f}", test.sum(), f"{predicting:.1f}", f"{found:.4f}", f"{six / 3600:.2f}"]


def write(best: dict[tuple[str, str], float], n_tiles: int, device: torch.device) -> None:
    """Print the table and store it."""
    with mixed_precision(device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    name = name_of(device)
    rows = []
    for (task, code), spent in best.items():
        used = "float32" if code == "plain" else "bfloat16" if task == "product" else precision
        value, unit = (2 * SIDE**3 / spent / 1e9, "GFLOP/s") if task == "product" else (n_tiles / spent, "samples/s")
        rows.append([task, code, used, f"{value:.1f}", unit, f"{best[task, 'plain'] / spent:.2f}"])
    OUT.parent.mkdir(exist_ok=True)
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "code", "precision", "value", "unit", "times_plain", "device"])
        writer.writerows([*row, name] for row in rows)
    for row in rows:
        print(*(f"{cell:>20}" for cell in row))


if __name__ == "__main__":
    main()
