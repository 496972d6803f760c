"""Samples per second of training and predicting with the multiscale network, against a plain eager float32 loop.

Both use the same network, weights, tiles and batch size. The plain loop reads tile by tile through a DataLoader, in the
default memory layout; h2e keeps the tiles as one uint8 array, augments the batch, lays channels last and computes in
bfloat16 where the processor has it. The rows alternate, so that a busy machine slows both; the best of the repeats counts.

    python benchmarks/training.py [--tiles 128] [--repeats 3] [--device cuda]
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch

from h2e._network import NetworkConfig, build
from h2e._training import TrainingConfig, find_device, mixed_precision, predict, train

OUT = Path(__file__).parent / "results" / "training.csv"


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


def seconds(task, tiles: np.ndarray, y: np.ndarray, device: torch.device) -> float:
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
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = find_device(options.device)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (options.tiles, 3, 78, 78), dtype=np.uint8)
    y = rng.normal(size=(options.tiles, 35)).astype(np.float32)
    tasks = {("train", "plain"): plain_train, ("train", "h2e"): h2e_train}
    tasks |= {("predict", "plain"): plain_predict, ("predict", "h2e"): h2e_predict}
    for task in tasks.values():  # kernels are chosen at the first call
        task(tiles[:32], y[:32], device)
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(options.repeats):
        for key, task in tasks.items():
            best[key] = min(best[key], seconds(task, tiles, y, device))
    with mixed_precision(device):
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    OUT.parent.mkdir(exist_ok=True)
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "code", "device", "precision", "samples_per_s", "times_plain"])
        for (task, code), spent in best.items():
            rate, gain = len(tiles) / spent, best[task, "plain"] / spent
            row = [task, code, device.type, precision if code == "h2e" else "float32", f"{rate:.1f}", f"{gain:.2f}"]
            writer.writerow(row)
            print(*(f"{cell:>10}" for cell in row))


if __name__ == "__main__":
    main()
