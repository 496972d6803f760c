"""Frozen encoders by name, as modules or as callables: all become functions from tiles to features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from h2e._learners.shell import Precision, in_batches, shell_features

if TYPE_CHECKING:
    import torch

Encode = Callable[[np.ndarray], np.ndarray]

SHELL = "shell"
"""The encoder that comes with h2e: 1.5 M parameters, trained on H&E to segment epithelium (lavlab-shell 0.9.1, MIT)."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of its channels, in 0–1: how images are scaled for a network that does not say otherwise."""


def encoder_of(encoder: Any, *, device: str | None = None, precision: Precision = "float32") -> Encode:
    """The function from ``uint8`` (n, 3, px, px) to (n, d) that an encoder means; a network is made at its first call.

    ``"shell"``, ``"timm:NAME"`` (weights of the timm package, downloaded by it), a ``torch.nn.Module``, whose images
    are scaled as it was trained, or any callable, which is taken as it is.
    """
    if encoder == SHELL:
        return partial(shell_features, device=device, precision=precision)
    if isinstance(encoder, str):
        if not encoder.startswith("timm:"):
            msg = f"encoder must be {SHELL!r}, 'timm:' and the name of a model, a torch module or a callable, got "
            msg += f"{encoder!r}."
            raise ValueError(msg)
        return lambda images: as_function(_timm(encoder.removeprefix("timm:"), device), precision)(images)
    if hasattr(encoder, "state_dict"):
        return as_function(encoder, precision)
    if not callable(encoder):
        msg = f"encoder must be a name, a torch module or a callable, got {type(encoder).__name__}."
        raise TypeError(msg)
    if precision != "float32" and not isinstance(encoder, MissingEncoder):
        msg = f"precision must be 'float32' with an encoder that is a callable, got {precision!r}; "
        msg += "pass a torch module, or convert inside the callable."
        raise ValueError(msg)
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


def as_function(module: Any, precision: Precision = "float32") -> Encode:
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
            return features.flatten(2).float().mean(2) if features.ndim > 2 else features

        return in_batches(encode_batch, images, device, precision)

    return encode


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
