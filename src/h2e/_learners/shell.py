"""The encoder that comes with h2e: lavlab-shell, which computes its activations by compiled loops on a processor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from h2e._learners import encoder_kernels
from h2e._slide.compiled import fast

if TYPE_CHECKING:
    import torch

# Unmixing and typical maxima of haematoxylin and eosin: the reference of Macenko's method in its usual implementations.
STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
MOST = {"eosin": 1.3, "haematoxylin": 2.5, "density": 1.6}

_FIT = np.polynomial.Chebyshev.interpolate(np.exp2, 5, [0, 1])
POWERS = _FIT.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
"""Of a polynomial that is 2 to the power of a number between 0 and 1, to a rounding of ``float32``."""

BATCH, CUDA_PIXELS = 16, 256 * 224**2
"""Images at a time on a processor, and pixels of them to begin with on a GPU."""

Encode = Callable[[np.ndarray], np.ndarray]
Precision = Literal["float32", "bfloat16", "auto"]


def shell_features(images: np.ndarray, *, device: str | None = None, precision: Precision = "float32") -> np.ndarray:
    """Mean and standard deviation over the area of the maps of all four levels, ``float32`` (n, 480).

    Examples
    --------
    >>> shell_features(np.full((1, 3, 32, 32), 200, np.uint8)).shape
    (1, 480)
    """
    import torch

    from h2e._learners.training import find_device

    used = find_device(device)
    network = shell_network(used)

    def encode_batch(batch: np.ndarray) -> torch.Tensor:
        channels = torch.from_numpy(_stain_channels(batch)).to(used)
        maps = network(channels.contiguous(memory_format=torch.channels_last))
        return torch.cat([moments for level in maps for moments in _moments(level)], dim=1)

    return in_batches(encode_batch, images, used, precision)


def in_batches(
    encode: Callable[[np.ndarray], torch.Tensor], images: np.ndarray, device: torch.device, precision: Precision
) -> np.ndarray:
    """Encode some images at a time, fewer where a GPU has not the memory; ``"auto"`` is ``float16`` on CUDA."""
    import torch

    on_cuda = device.type == "cuda"
    low = {"bfloat16": torch.bfloat16, "auto": torch.float16 if on_cuda else None}.get(precision)
    size = max(1, CUDA_PIXELS // images[0, 0].size) if on_cuda and len(images) else BATCH
    while True:
        try:
            with torch.inference_mode(), torch.autocast(device.type, low) if low else nullcontext():
                parts = [encode(images[start : start + size]) for start in range(0, len(images), size)]
                return torch.cat(parts).float().cpu().numpy()
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2


def _stain_channels(images: np.ndarray) -> np.ndarray:
    """Eosin, haematoxylin and optical density, each in 0 to 1, which is what the encoder was trained on."""
    density = np.maximum(-np.log((np.arange(256) + 1) / 241), 0).astype(np.float32)[images]
    unmix = np.linalg.pinv(STAINS).astype(np.float32)
    h, e = np.einsum("kc,nchw->knhw", unmix, density)
    channels = [e / MOST["eosin"], h / MOST["haematoxylin"], density.mean(axis=1) / MOST["density"]]
    return np.clip(np.stack(channels, axis=1), 0, 1).astype(np.float32)


def _channels_last(maps: torch.Tensor) -> np.ndarray:
    """The memory of maps (n, c, h, w) that have their channels last, as (n, h · w, c)."""
    n, c, h, w = maps.shape
    return maps.permute(0, 2, 3, 1).numpy().reshape(n, h * w, c)


def _sums(maps: torch.Tensor) -> np.ndarray:
    """Sums over the pixels of maps and of their squares, (2, n, c) ``float64``."""
    sums = np.zeros((2, *maps.shape[:2]))
    fast(encoder_kernels.channel_sums)(_channels_last(maps), sums)
    return sums


def _moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over the pixels of maps, each (n, c)."""
    import torch

    if maps.device.type != "cpu":
        variance, mean = torch.var_mean(maps, (2, 3), correction=0)
        return mean, variance.sqrt()
    mean, square = _sums(maps) / maps[0, 0].numel()
    return torch.from_numpy(mean), torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 0)))


@cache
def shell_network(device: Any) -> Any:
    """The encoder of lavlab-shell: a residual network of four levels, groups normalized, Mish activations."""
    import torch
    from safetensors.numpy import load
    from torch import nn

    class Convolution(nn.Conv2d):
        """3 × 3 without a bias, in whatever precision it is computed: all else is ``float32``."""

        def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
            super().__init__(n_in, n_out, 3, stride, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(n, n_in, h, w) → (n, n_out, h / stride, w / stride)."""
            return super().forward(x).float()

    class NormalizedMish(nn.GroupNorm):
        """Normalize groups of channels, then x · tanh(log(1 + eˣ))."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """The same shape."""
            if x.device.type != "cpu":
                return nn.functional.mish(super().forward(x))
            of_groups = _sums(x).reshape(2, len(x), self.num_groups, -1).mean(axis=3) / x[0, 0].numel()
            mean, square = of_groups.repeat(x.shape[1] // self.num_groups, axis=2)
            scale = self.weight.detach().numpy() / np.sqrt(square - mean**2 + self.eps)
            both = np.stack([scale, self.bias.detach().numpy() - mean * scale]).astype(np.float32)
            both = np.tile(both, encoder_kernels.RUN // x.shape[1])
            out = torch.empty_like(x)
            flat = (_channels_last(maps).reshape(len(x), -1) for maps in (x, out))
            fast(encoder_kernels.scaled_mish)(next(flat), *both, POWERS, next(flat))
            return out

    class Block(nn.Module):
        """Two times normalization, activation, convolution, added to what came in."""

        def __init__(self, n: int) -> None:
            super().__init__()
            halves = [(NormalizedMish(8, n), nn.Identity(), Convolution(n, n)) for _ in (0, 1)]
            self.body = nn.Sequential(*halves[0], *halves[1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(n, c, h, w) as it came."""
            return x + self.body(x)

    class Levels(nn.Module):
        """The maps of all four levels, each at half the size of the one before."""

        def __init__(self) -> None:
            super().__init__()
            self.first = Convolution(3, 16)
            self.levels = nn.ModuleList([nn.Sequential(Block(16))])
            for n, n_blocks in ((32, 2), (64, 2), (128, 4)):
                down = Convolution(n // 2, n, stride=2)
                self.levels.append(nn.Sequential(down, *(Block(n) for _ in range(n_blocks))))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            """(n, 3, h, w) → (n, 16, h, w), (n, 32, h/2, w/2), and so on."""
            x, maps = self.first(x), []
            for level in self.levels:
                x = level(x)
                maps.append(x)
            return maps

    content = files("h2e").joinpath("weights", "shell.safetensors").read_bytes()
    network = Levels()
    network.load_state_dict({name: torch.from_numpy(a.astype(np.float32)) for name, a in load(content).items()})
    network.eval()
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out
