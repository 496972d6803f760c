"""Samples per second of training and predicting with the multiscale network, against a plain eager float32 loop.

Both use the same network, weights, tiles and batch size. The plain loop reads tile by tile through a DataLoader, in the
default memory layout; h2e keeps the tiles as one uint8 array, augments the batch, lays channels last and computes in
bfloat16 where the processor is faster in it. The rows alternate, so that a busy machine slows both; the best of the repeats
counts. One thread, processor time.

A product of two matrices is timed in both precisions, too: its gain is what the processor's bfloat16 can give at most. The
time of six folds, each of the six sections of her2st left out, 30 epochs and eight symmetries, is computed from the rates.

    H2E_DATA=../shared/data python benchmarks/training.py [--tiles 128] [--repeats 3] [--device cuda]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from h2e._network import NetworkConfig, build
from h2e._training import TrainingConfig, find_device, mixed_precision, predict, train
from h2e.datasets import her2st

OUT = Path(__file__).parent / "results" / "training.csv"
SIDE = 1024
"""Of the matrices."""

EPOCHS, N_SYMMETRIES = 30, 8


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


def six_folds(train_rate: float, predict_rate: float) -> float:
    """Minutes for six models, each of all sections of her2st but one, and the predictions of the section left out."""
    n = her2st(progress=False)["table"].obs["region"].value_counts()
    trained = EPOCHS * sum(n.sum() - n)
    return (trained / train_rate + N_SYMMETRIES * n.sum() / predict_rate) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = find_device(options.device)
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


def write(best: dict[tuple[str, str], float], n_tiles: int, device: torch.device) -> None:
    """Print the table and store it."""
    with mixed_precision(device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    name = torch.cpu.get_capabilities()["cpu_name"] if device.type == "cpu" else torch.cuda.get_device_name(device)
    rows = []
    for (task, code), spent in best.items():
        used = "float32" if code == "plain" else "bfloat16" if task == "product" else precision
        value, unit = (2 * SIDE**3 / spent / 1e9, "GFLOP/s") if task == "product" else (n_tiles / spent, "samples/s")
        rows.append([task, code, used, f"{value:.1f}", unit, f"{best[task, 'plain'] / spent:.2f}", "measured"])
    minutes = {
        code: six_folds(*(n_tiles / best[task, code] for task in ("train", "predict"))) for code in ("plain", "h2e")
    }
    for code, spent in minutes.items():
        used = "float32" if code == "plain" else precision
        gain = f"{minutes['plain'] / spent:.2f}"
        rows.append(["six folds of her2st", code, used, f"{spent:.0f}", "min", gain, "computed"])
    OUT.parent.mkdir(exist_ok=True)
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "code", "precision", "value", "unit", "times_plain", "how", "device"])
        writer.writerows([*row, name] for row in rows)
    for row in rows:
        print(*(f"{cell:>20}" for cell in row))


if __name__ == "__main__":
    main()
