"""How the multiscale network is trained and applied: augmentation on the batch, a fixed number of epochs, test-time flips.

Every random number comes from generators made here from the seed: networks may be trained in threads beside each other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from h2e._learners.augmentation import augment, symmetry_table
from h2e._learners.network import Dropout, MultiscaleNetwork, NetworkConfig, build, fuse_batchnorm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run."""

    epochs: int = 30
    lr: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    symmetries: bool = True
    """Turn and flip each tile at random."""
    stain_jitter: float = 0.1
    """Standard deviation of the factors on the stain concentrations of each tile; 0 switches it off."""
    ema: float | None = 0.95
    """Decay of the moving average of the weights, which is what is kept; ``None`` keeps the last ones. Over as many steps as
    there are in a short run (0.99), it would remember the first weights and predict next to nothing."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.lr <= 0 or self.weight_decay < 0 or self.stain_jitter < 0:
            msg = f"epochs ≥ 1, batch_size ≥ 2, lr > 0, weight_decay ≥ 0 and stain_jitter ≥ 0 are needed, got {self}."
            raise ValueError(msg)
        if self.ema is not None and not 0 <= self.ema < 1:
            msg = f"ema must be in [0, 1) or None, got {self.ema}."
            raise ValueError(msg)


def train(
    config: NetworkConfig,
    tiles: np.ndarray,
    y: np.ndarray,
    *,
    settings: TrainingConfig,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    label: str = "",
    after_epoch: Callable[[MultiscaleNetwork], None] | None = None,
) -> tuple[MultiscaleNetwork, list[dict[str, float]]]:
    """Train a network by mean squared error: AdamW, the rate falling by a cosine to 1e-6, all epochs.

    Parameters
    ----------
    tiles
        ``uint8``, (n, 3, tile_px, tile_px).
    y
        ``float32``, (n, n_targets), of about unit scale.
    label
        What the progress bar is called.
    after_epoch
        Called after each epoch with the network that would be kept; it must leave it as it is.

    Returns
    -------
    The network, in evaluation mode on the CPU, and per epoch its loss and seconds.

    Examples
    --------
    >>> tiles, y = np.zeros((4, 3, 26, 26), np.uint8), np.zeros((4, 2), np.float32)
    >>> config = NetworkConfig(n_targets=2, tile_px=26, subtile_px=16)
    >>> network, history = train(config, tiles, y, settings=TrainingConfig(epochs=1), progress=False)
    >>> len(history)
    1
    """
    from tqdm.auto import tqdm

    _check(config, tiles, y)
    device_ = find_device(device)
    network = build(config, seed=seed).to(device_)
    generator = torch.Generator().manual_seed(seed + 1)
    average = get_ema_multi_avg_fn(settings.ema) if settings.ema else None
    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if average else None
    kept = network if averaged is None else averaged.module
    _seed_dropout(network, device_, seed)  # not before: generators are not copied everywhere
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=True
    )
    # batches of equal size: a last batch of one or two tiles would spoil the batch statistics
    n_batches = max(1, round(len(tiles) / settings.batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * n_batches, eta_min=1e-6)
    source, truth = torch.from_numpy(tiles).to(device_), torch.from_numpy(np.asarray(y, np.float32)).to(device_)
    history: list[dict[str, float]] = []
    bar = tqdm(range(1, settings.epochs + 1), disable=not progress, desc=label or "multiscale")
    for epoch in bar:
        start, total = time.perf_counter(), torch.zeros((), device=device_)
        network.train()
        for rows in torch.randperm(len(tiles), generator=generator).to(device_).tensor_split(n_batches):
            batch = augment(source[rows], generator, symmetries=settings.symmetries, stain_jitter=settings.stain_jitter)
            loss = _step(network, optimizer, batch, truth[rows])
            schedule.step()
            if averaged is not None:
                averaged.update_parameters(network)
            total += loss * len(rows)
        history.append({"epoch": epoch, "loss": float(total) / len(tiles), "seconds": time.perf_counter() - start})
        bar.set_postfix(loss=f"{history[-1]['loss']:.4f}")
        if after_epoch is not None:
            after_epoch(kept)
    log.info("trained %s: %d tiles, %d epochs, loss %.4f", label, len(tiles), settings.epochs, history[-1]["loss"])
    return kept.to("cpu").eval(), history


def predict(
    network: MultiscaleNetwork,
    tiles: np.ndarray,
    *,
    symmetries: bool = True,
    batch_size: int = 64,
    device: str | None = None,
) -> np.ndarray:
    """Predictions (n, n_targets), ``float32``: the mean over the eight symmetries of each tile, or of the tile as it is.

    Examples
    --------
    >>> network = build(NetworkConfig(n_targets=2, tile_px=26, subtile_px=16), seed=0)
    >>> predict(network, np.zeros((3, 3, 26, 26), np.uint8)).shape
    (3, 2)
    """
    return predict_views(network, tiles, symmetries=symmetries, batch_size=batch_size, device=device).mean(axis=0)


def predict_views(
    network: MultiscaleNetwork,
    tiles: np.ndarray,
    *,
    symmetries: bool = True,
    batch_size: int = 64,
    device: str | None = None,
) -> np.ndarray:
    """Predictions of each of the eight symmetries of each tile, (8, n, n_targets), or of the tile as it is, (1, n, n_targets).

    The last batch is filled up, so that a tile meets the same arithmetic whatever else is predicted with it.
    """
    _check(network.config, tiles)
    device_ = find_device(device)
    network = fuse_batchnorm(network).to(device_)
    n_views = 8 if symmetries else 1
    step = max(1, batch_size // n_views)
    turns = symmetry_table(network.config.tile_px).to(device_)[:n_views]
    out = np.empty((n_views, len(tiles), network.config.n_targets), np.float32)
    with torch.inference_mode(), mixed_precision(device_):
        for start in range(0, len(tiles), step):
            batch = torch.from_numpy(np.ascontiguousarray(tiles[start : start + step])).to(device_)
            n = len(batch)
            batch = _fill_up(batch, step)
            views = batch.flatten(2)[:, :, turns]  # (step, 3, n_views, p²)
            views = views.transpose(1, 2).reshape(-1, *batch.shape[1:])  # (step · n_views, 3, p, p)
            said = network(views).float().unflatten(0, (step, n_views)).transpose(0, 1)
            out[:, start : start + n] = said[:, :n].cpu().numpy()
    return out


def find_device(device: str | None) -> torch.device:
    """The device asked for, else CUDA if there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device computes faster in it, else ``float32``; a fixed rule, so that a run can be repeated.

    On a processor these are Intel's AMX, and AMD's AVX-512 instructions for bfloat16 (which double the rate of float32
    at most). The same instructions of Intel without AMX made this network slower (Emerald Rapids: 40 tiles a
    second in place of 59).
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        processor = getattr(torch.cpu, "get_capabilities", dict)()
        of_amd = processor.get("avx512_bf16", False) and "AMD" in processor.get("cpu_name", "")
        fast = device.type == "cpu" and (of_amd or getattr(torch.cpu, "_is_amx_tile_supported", bool)())
    return torch.autocast(device.type, dtype=torch.bfloat16) if fast else contextlib.nullcontext()


def _fill_up(batch: Tensor, length: int) -> Tensor:
    """Append zeros until the batch has that length."""
    missing = batch.new_zeros((length - len(batch), *batch.shape[1:]))
    return torch.cat([batch, missing]) if len(missing) else batch


def arrays_of(network: MultiscaleNetwork) -> dict[str, np.ndarray]:
    """The weights and running statistics, by name."""
    return {name: value.detach().cpu().contiguous().numpy().copy() for name, value in network.state_dict().items()}


def network_of(config: NetworkConfig, arrays: dict[str, np.ndarray]) -> MultiscaleNetwork:
    """The network with these weights."""
    network = build(config, seed=0)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network.to(memory_format=torch.channels_last).eval()


def _step(network: MultiscaleNetwork, optimizer: torch.optim.Optimizer, batch: Tensor, truth: Tensor) -> Tensor:
    """One step down the squared error of a batch; returns the error."""
    optimizer.zero_grad(set_to_none=True)
    with mixed_precision(batch.device):
        prediction = network(batch)
    loss = nn.functional.mse_loss(prediction.float(), truth)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _seed_dropout(network: MultiscaleNetwork, device: torch.device, seed: int) -> None:
    """Give all dropout layers one generator on the device."""
    generator = torch.Generator(device).manual_seed(seed + 2)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def _check(config: NetworkConfig, tiles: np.ndarray, y: np.ndarray | None = None) -> None:
    """Raise unless the arrays fit the network."""
    expected = (3, config.tile_px, config.tile_px)
    if tiles.dtype != np.uint8 or tiles.shape[1:] != expected:
        msg = f"tiles must be uint8 of shape (n, {', '.join(map(str, expected))}), got {tiles.dtype} {tiles.shape}."
        raise ValueError(msg)
    if y is None:
        return
    if y.shape != (len(tiles), config.n_targets) or len(tiles) < 2:
        msg = f"{len(tiles)} tiles and {config.n_targets} targets need y of that shape and at least 2 tiles, got y "
        msg += f"{y.shape}."
        raise ValueError(msg)
    if not np.isfinite(y).all():
        msg = "y must be finite; drop or fill the missing values first."
        raise ValueError(msg)
