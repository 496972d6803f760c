"""Frozen encoders by name, as modules or as callables: all become functions from tiles to features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from h2e._learners import encoder_kernels
from h2e._slide.compiled import compiled

if TYPE_CHECKING:
    import torch

Encode = Callable[[np.ndarray], np.ndarray]

SHELL = "shell"
"""The encoder that comes with h2e: 1.5 M parameters, trained on H&E to segment epithelium (lavlab-shell 0.9.1, MIT)."""

# Unmixing and typical maxima of haematoxylin and eosin: the reference of Macenko's method in its usual implementations.
STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
MOST = {"eosin": 1.3, "haematoxylin": 2.5, "density": 1.6}

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of its channels, in 0–1: how images are scaled for a network that does not say otherwise."""

_FIT = np.polynomial.Chebyshev.interpolate(np.exp2, 5, [0, 1])
POWERS = _FIT.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
"""Of a polynomial that is 2 to the power of a number between 0 and 1, to a rounding of ``float32``."""

BATCH = 16
"""Images at a time."""


def encoder_of(encoder: Any, *, device: str | None = None) -> Encode:
    """The function from ``uint8`` (n, 3, px, px) to (n, d) that an encoder means; a network is made at its first call.

    ``"shell"``, ``"timm:NAME"`` (weights of the timm package, downloaded by it), a ``torch.nn.Module``, whose images
    are scaled as it was trained, or any callable, which is taken as it is.
    """
    if encoder == SHELL:
        return partial(shell_features, device=device)
    if isinstance(encoder, str):
        if not encoder.startswith("timm:"):
            msg = f"encoder must be {SHELL!r}, 'timm:' and the name of a model, a torch module or a callable, got "
            msg += f"{encoder!r}."
            raise ValueError(msg)
        return lambda images: as_function(_timm(encoder.removeprefix("timm:"), device))(images)
    if hasattr(encoder, "state_dict"):
        return as_function(encoder)
    if not callable(encoder):
        msg = f"encoder must be a name, a torch module or a callable, got {type(encoder).__name__}."
        raise TypeError(msg)
    return encoder


@dataclass(frozen=True)
class MissingEncoder:
    """In place of the encoder of a file: code is not stored, and nothing is downloaded because a file names it."""

    name: str | None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Say what to pass."""
        known = "is not stored, for it is code" if self.name is None else f"has only a name in its file, {self.name!r}"
        example = f"encoders={{'embedding': {self.name or ...!r}}}"
        msg = f"the encoder {known}; pass it: h2e.Ensemble.load(folder, {example})."
        raise ValueError(msg)


def encoder_name(encoder: Any) -> str | None:
    """What a file says of an encoder: its name; ``None`` of code."""
    name = encoder.name if isinstance(encoder, MissingEncoder) else encoder
    return name if isinstance(name, str) else None


def as_function(module: Any) -> Encode:
    """A torch module as a function, where its weights are, in evaluation mode; maps are averaged.

    Images are scaled as the module says it was trained (timm's ``pretrained_cfg``), else as for ImageNet.
    """
    scaling = IMAGENET | (getattr(module, "pretrained_cfg", None) or {})

    def encode(images: np.ndarray) -> np.ndarray:
        import torch

        device = next(iter(module.state_dict().values()), torch.empty(0)).device
        mean, std = (torch.tensor(scaling[key], device=device)[:, None, None] for key in ("mean", "std"))

        def encode_batch(batch: np.ndarray) -> torch.Tensor:
            x = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
            features = module.eval()((x.float() / 255 - mean) / std)
            return features.flatten(2).mean(2) if features.ndim > 2 else features

        return _in_batches(encode_batch, images, BATCH)

    return encode


def _in_batches(encode: Callable[[np.ndarray], torch.Tensor], images: np.ndarray, size: int) -> np.ndarray:
    """Encode some images at a time."""
    import torch

    with torch.inference_mode():
        parts = [encode(images[start : start + size]) for start in range(0, len(images), size)]
        return torch.cat(parts).float().cpu().numpy()


def shell_features(images: np.ndarray, *, device: str | None = None) -> np.ndarray:
    """Mean and standard deviation over the area of the maps of all four levels, ``float32`` (n, 480).

    Examples
    --------
    >>> shell_features(np.full((1, 3, 32, 32), 200, np.uint8)).shape
    (1, 480)
    """
    import torch

    from h2e._learners.training import find_device

    used = find_device(device)
    network = _shell(used)

    def encode_batch(batch: np.ndarray) -> torch.Tensor:
        channels = torch.from_numpy(_stain_channels(batch)).to(used)
        maps = network(channels.contiguous(memory_format=torch.channels_last))
        return torch.cat([moments for level in maps for moments in _moments(level)], dim=1)

    return _in_batches(encode_batch, images, BATCH)


def cached(encode: Encode, folder: Path, px: int) -> Encode:
    """The same function, whose results are kept in a folder by its input and by its features of an image of noise.

    The features of the noise stand for the encoder: names tell neither two lambdas nor two versions of weights apart.
    """
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, px, px), dtype=np.uint8)
    identity = np.asarray(encode(noise)).tobytes()

    def remember(images: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(identity + str(images.shape).encode())
        digest.update(images.tobytes())
        path = folder / f"{digest.hexdigest()[:32]}.npy"
        if path.exists():
            # A file that a full disk or a kill truncated is made again.
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, EOFError, OSError):
                path.unlink()
        features = encode(images)
        folder.mkdir(parents=True, exist_ok=True)
        # Each process writes a file of its own.
        new = path.with_suffix(f".{uuid4().hex}.tmp.npy")
        np.save(new, features, allow_pickle=False)
        new.replace(path)
        return features

    return remember


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
    kernel("channel_sums")(_channels_last(maps), sums)
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
def kernel(name: str) -> Callable:
    """One of the loops over maps, compiled at its first use."""
    return compiled(getattr(encoder_kernels, name), fastmath=True, error_model="numpy")


@cache
def _shell(device: Any) -> Any:
    """The encoder of lavlab-shell: a residual network of four levels, groups normalized, Mish activations."""
    import torch
    from safetensors.numpy import load
    from torch import nn

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
            kernel("scaled_mish")(next(flat), *both, POWERS, next(flat))
            return out

    class Block(nn.Module):
        """Two times normalization, activation, convolution, added to what came in."""

        def __init__(self, n: int) -> None:
            super().__init__()
            halves = [(NormalizedMish(8, n), nn.Identity(), nn.Conv2d(n, n, 3, padding=1, bias=False)) for _ in (0, 1)]
            self.body = nn.Sequential(*halves[0], *halves[1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(n, c, h, w) as it came."""
            return x + self.body(x)

    class Levels(nn.Module):
        """The maps of all four levels, each at half the size of the one before."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            self.levels = nn.ModuleList([nn.Sequential(Block(16))])
            for n, n_blocks in ((32, 2), (64, 2), (128, 4)):
                down = nn.Conv2d(n // 2, n, 3, stride=2, padding=1, bias=False)
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


@cache
def _timm(name: str, device: str | None) -> Any:
    """A model of timm without its classifier."""
    from h2e._learners.training import find_device

    try:
        import timm
    except ImportError as error:
        msg = f"encoder 'timm:{name}' needs the package timm: pip install timm."
        raise ImportError(msg) from error
    return timm.create_model(name, pretrained=True, num_classes=0).to(find_device(device))
