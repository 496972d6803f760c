"""Train and apply the multiscale network: augmentation on the batch, a fixed number of epochs, test-time flips.

Every random number comes from generators made here from the seed: networks may be trained in threads beside each other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from h2e._learners.network import MultiscaleNetwork, NetworkConfig, build, fuse_batchnorm, seed_dropout
from h2e._learners.texture_features import STAINS
from h2e._learners.training_config import TrainingConfig
from h2e._warnings import log, refuse

BATCH = 64
"""Views that are predicted at a time."""


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
    kept, averaged = network, None
    if settings.ema:
        averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
        kept = averaged.module  # type: ignore[assignment]  # torch does not say that it copies the network
    # Not before the copy: generators are not copied everywhere.
    seed_dropout(network, torch.Generator(device_).manual_seed(seed + 2))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=True
    )
    # Batches are of equal size: a last batch of one or two tiles would spoil the batch statistics.
    n_batches = max(1, round(len(tiles) / settings.batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * n_batches, eta_min=1e-6)
    # A copy, since the tiles may be read-only.
    images, target = torch.tensor(tiles, device=device_), torch.tensor(y, dtype=torch.float32, device=device_)
    history: list[dict[str, float]] = []
    bar = tqdm(range(1, settings.epochs + 1), disable=not progress, desc=label or "multiscale")
    for epoch in bar:
        start, total = time.perf_counter(), torch.zeros((), device=device_)
        network.train()
        for rows in torch.randperm(len(tiles), generator=generator).to(device_).tensor_split(n_batches):
            batch = augment(images[rows], generator, symmetries=settings.symmetries, stain_jitter=settings.stain_jitter)
            optimizer.zero_grad(set_to_none=True)
            with mixed_precision(device_):
                prediction = network(batch)
            loss = nn.functional.mse_loss(prediction.float(), target[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            if averaged is not None:
                averaged.update_parameters(network)
            total += loss.detach() * len(rows)
        history.append({"epoch": epoch, "loss": float(total) / len(tiles), "seconds": time.perf_counter() - start})
        bar.set_postfix(loss=f"{history[-1]['loss']:.4f}")
        if after_epoch is not None:
            after_epoch(kept)
    log.info("trained %s: %d tiles, %d epochs, loss %.4f", label, len(tiles), settings.epochs, history[-1]["loss"])
    return kept.to("cpu").eval(), history


def predict_views(
    network: MultiscaleNetwork, tiles: np.ndarray, *, symmetries: bool = True, device: str | None = None
) -> np.ndarray:
    """Predictions of each of the eight symmetries of each tile, ``float32`` (8, n, n_targets), or of the tile as it is.

    In ``float32`` whatever it was trained in, so that a stored network predicts the same on other processors. The last
    batch is filled up, so that a tile meets the same arithmetic whatever else is predicted with it.

    Examples
    --------
    >>> network = build(NetworkConfig(n_targets=2, tile_px=26, subtile_px=16), seed=0)
    >>> predict_views(network, np.zeros((3, 3, 26, 26), np.uint8)).shape
    (8, 3, 2)
    """
    _check(network.config, tiles)
    device_ = find_device(device)
    network = fuse_batchnorm(network).to(device_)
    n_views = 8 if symmetries else 1
    step = BATCH // n_views
    turns = symmetry_table(network.config.tile_px).to(device_)[:n_views]
    out = np.empty((n_views, len(tiles), network.config.n_targets), np.float32)
    with torch.inference_mode():
        for start in range(0, len(tiles), step):
            batch = torch.tensor(np.ascontiguousarray(tiles[start : start + step]), device=device_)
            n = len(batch)
            batch = nn.functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, step - n))
            views = batch.flatten(2)[:, :, turns]  # (step, 3, n_views, p²)
            views = views.transpose(1, 2).reshape(-1, *batch.shape[1:])  # (step · n_views, 3, p, p)
            predictions = network(views).unflatten(0, (step, n_views)).transpose(0, 1)
            out[:, start : start + n] = predictions[:, :n].cpu().numpy()
    return out


def find_device(device: str | None) -> torch.device:
    """The device asked for, if it is there, else CUDA if there is one, else the CPU."""
    backends = {"cpu": torch.cpu, "cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    here = [name for name, backend in backends.items() if backend.is_available()]
    if device is None:
        return torch.device("cuda" if "cuda" in here else "cpu")
    others = [f"cuda:{i}" for i in range(1, torch.cuda.device_count())]
    if str(device).removesuffix(":0") not in here + others:
        refuse(f"device must be one of {here}, which are here, got {device!r}; None takes CUDA if there is one.")
    return torch.device(device)


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device trains faster in it, else ``float32``; a fixed rule, so that a run can be repeated.

    On a processor these are Intel's AMX, and AMD's AVX-512 instructions for bfloat16 (which double the rate of float32
    at most). The same instructions of Intel without AMX made this network slower (Emerald Rapids: 40 tiles a
    second in place of 59).
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        processor: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        of_amd = bool(processor.get("avx512_bf16")) and "AMD" in str(processor.get("cpu_name"))
        fast = device.type == "cpu" and (of_amd or getattr(torch.cpu, "_is_amx_tile_supported", bool)())
    return torch.autocast(device.type, dtype=torch.bfloat16) if fast else contextlib.nullcontext()


def arrays_of(network: MultiscaleNetwork) -> dict[str, np.ndarray]:
    """The weights and running statistics, by name."""
    return {name: value.detach().cpu().contiguous().numpy().copy() for name, value in network.state_dict().items()}


def network_of(config: NetworkConfig, arrays: dict[str, np.ndarray]) -> MultiscaleNetwork:
    """The network with these weights."""
    network = build(config, seed=0)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network.eval()


def _check(config: NetworkConfig, tiles: np.ndarray, y: np.ndarray | None = None) -> None:
    """Raise unless the arrays fit the network."""
    expected = (3, config.tile_px, config.tile_px)
    if tiles.dtype != np.uint8 or tiles.shape[1:] != expected:
        refuse(f"tiles must be uint8 of shape (n, {', '.join(map(str, expected))}), got {tiles.dtype} {tiles.shape}.")
    if y is not None and (y.shape != (len(tiles), config.n_targets) or len(tiles) < 2 or not np.isfinite(y).all()):
        refuse(f"y must be finite, of {len(tiles)} tiles (at least 2) and {config.n_targets} targets, got {y.shape}.")


def augment(tiles: Tensor, generator: torch.Generator, *, symmetries: bool = True, stain_jitter: float = 0.1) -> Tensor:
    """Turn and flip each tile of a batch, and scale its stains, each by its own draw.

    Examples
    --------
    >>> white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    >>> bool((augment(white, torch.Generator().manual_seed(0)) > 240).all())
    True
    """
    n, side = len(tiles), tiles.shape[-1]
    if symmetries:
        symmetry = torch.randint(8, (n,), generator=generator).to(tiles.device)
        turns = symmetry_table(side).to(tiles.device)[symmetry]  # (n, p²)
        tiles = tiles.flatten(2).gather(2, turns[:, None].expand(-1, 3, -1)).reshape(tiles.shape)
    if stain_jitter > 0:
        draws = torch.randn((n, 2, 3), generator=generator).to(tiles.device)
        stains = functional.normalize(torch.tensor(STAINS, dtype=torch.float32, device=tiles.device), dim=1)
        factor = torch.diag_embed(1 + stain_jitter * draws[:, 0].clamp(-2, 2))
        # Density is stainsᵀ · concentration. The shift is a tenth of what the factors change: white stays near white.
        matrix = stains.T @ factor @ torch.linalg.inv(stains.T)  # (n, 3, 3)
        shift = (0.1 * stain_jitter * draws[:, 1].clamp(-2, 2))[:, :, None]
        levels = torch.arange(256, device=tiles.device, dtype=torch.float32)
        density = -torch.log((levels + 1) / 256)[tiles.flatten(2).long()]  # (n, 3, p²)
        tiles = (256 * torch.exp(-(matrix @ density + shift)) - 1).clamp(0, 255).reshape(tiles.shape)
    return tiles


def symmetry_table(side: int) -> Tensor:
    """The eight symmetries of a square as indices into its pixels, (8, side²); the first changes nothing.

    Examples
    --------
    >>> symmetry_table(2)[:3]
    tensor([[0, 1, 2, 3],
            [1, 3, 0, 2],
            [3, 2, 1, 0]])
    """
    square = torch.arange(side * side).reshape(side, side)
    turned = [torch.rot90(square, k) for k in range(4)]
    return torch.stack([*turned, *(t.T for t in turned)]).flatten(1)
