"""Frozen encoders by name, as modules or as callables: all become functions from tiles to features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args
from uuid import uuid4

import numpy as np

from h2e._learners import encoder_models
from h2e._learners.known_encoders import SHELL, SHELL_PX, known, known_tile
from h2e._learners.shell import Encode, Precision, shell_features, shell_network
from h2e._warnings import refuse

Pool = Literal["cls", "mean", "cls+mean"]

OF_USER = ("weights", "trust_remote_code")
"""What the user of this machine says, and no file does."""

OF_TIMM = ("cache_dir", "checkpoint", "pretrained")
"""Beginnings of arguments of ``timm.create_model`` that are not of the network."""

_BUILDING = Lock()


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder by name: what it sees, how its tokens are pooled, and where its weights come from.

    A name alone is enough for most: ``Embedding("lazyslide:uni2")``. Nothing is loaded before it is used.

    Parameters
    ----------
    name
        ``"shell"``, which comes with h2e (lavlab-shell, trained on H&E; MIT licence); ``"lazyslide:NAME"``, an image
        encoder of LazySlide's registry; ``"timm:NAME"`` or ``"timm:hf-hub:ORG/NAME"``. :func:`list_encoders` lists
        them, and all but the first need ``pip install 'h2e[encoders]'``.
    px
        Side of its tiles; ``None``: what it was trained on.
    um_per_px
        µm per pixel of its tiles; ``None``: what it was trained on, as far as it is known. Models of photographs have
        none.
    pool
        Features of a transformer: the class token, the mean of the others, or both; ``None``: its own output.
    model_args
        Arguments of ``timm.create_model``: numbers, strings, and classes by name such as ``"SwiGLUPacked"``.
    weights
        Local file with the weights of a timm model: safetensors, or a checkpoint that holds tensors only. Not stored.
    trust_remote_code
        Whether an encoder of LazySlide's registry may run the code of its repository or unpickle. Not stored.
    sha256
        Of the weights that are expected: others are refused. A saved ensemble knows it.

    Examples
    --------
    >>> encoder = Encoder("timm:hf-hub:paige-ai/Virchow2", pool="cls+mean", model_args={"mlp_layer": "SwiGLUPacked"})
    >>> encoder.px, encoder.um_per_px
    (224, 0.5)
    """

    name: str
    px: int = None  # type: ignore[assignment]  # its own
    um_per_px: float | None = None
    pool: Pool | None = None
    model_args: Mapping[str, Any] | tuple = ()
    weights: str | PathLike[str] | None = None
    trust_remote_code: bool = False
    sha256: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        kind, _, rest = self.name.partition(":")
        if self.name != SHELL and not (kind in ("timm", "lazyslide") and rest):
            msg = f"encoder must be {SHELL!r}, 'timm:' or 'lazyslide:' and the name of a model, a torch module or a "
            refuse(msg + f"callable, got {self.name!r}; h2e.tl.list_encoders() lists names.")
        if self.pool not in (None, *get_args(Pool)) or (self.pool and kind == SHELL):
            refuse(f"pool must be None or, but for {SHELL!r}, one of {list(get_args(Pool))}, got {self.pool!r}.")
        args = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(self.model_args).items()}
        # A file that names an encoder chooses neither where its weights come from nor where they are kept.
        if (kind != "timm" and (args or self.weights)) or any(key.startswith(OF_TIMM) for key in args):
            refuse(f"model_args and weights must be of the network of a timm model, got {list(args)} of {self.name!r}.")
        px, um_per_px = (SHELL_PX, None) if kind == SHELL else known_tile(self.name)
        um_per_px = self.um_per_px or um_per_px
        if kind == "lazyslide" and um_per_px is None:
            msg = f"um_per_px of encoder {self.name!r} is not known: pass h2e.tl.Encoder({self.name!r}, um_per_px=…), "
            refuse(msg + "the µm per pixel of the tiles that it was trained on, mostly 0.5.")
        px = self.px or px or encoder_models.timm_px(rest, args)
        for key, value in {"px": px, "um_per_px": um_per_px, "model_args": tuple(sorted(args.items()))}.items():
            object.__setattr__(self, key, value)

    def settings(self) -> dict[str, Any]:
        """Give what is stored: all that is not of this machine and its user."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in OF_USER}

    def build(self, device: str | None = None, precision: Precision = "float32") -> Encode:
        """Make the function from ``uint8`` (n, 3, px, px) to ``float32`` (n, d); it loads the weights.

        Parameters
        ----------
        device
            Where it computes; ``None``: CUDA if there is one.
        precision
            As of :class:`Embedding`.
        """
        if self.name == SHELL:
            return partial(shell_features, device=device, precision=precision)
        network = self._network(device)
        if self.sha256 is not None and (digest := _digest(network)) != self.sha256:
            msg = f"weights of encoder {self.name!r} are others than those that were trained on (sha256 {digest[:8]}…, "
            refuse(msg + f"not {self.sha256[:8]}…); pass the same weights, or train again.")
        timm = self.name.startswith("timm:")
        make = encoder_models.as_function if timm else encoder_models.lazyslide_function
        return make(network, precision, self.pool)

    def digest(self, device: str | None = None) -> str:
        """Give the SHA-256 of the weights, which are loaded if they are not yet."""
        return self.sha256 or _digest(self._network(device))

    def _network(self, device: str | None) -> Any:
        """The network, made once for all threads."""
        from h2e._learners.training import find_device

        with _BUILDING:
            return _network(self, find_device(device))


@cache
def _network(encoder: Encoder, device: Any) -> Any:
    """The network that an encoder names, on a device."""
    kind, _, name = encoder.name.partition(":")
    if kind == SHELL:
        return shell_network(device)
    if kind == "timm":
        return encoder_models.timm_model(name, dict(encoder.model_args), encoder.weights).to(device)
    if not known()["plain"].get(name) and not encoder.trust_remote_code:
        msg = f"encoder {encoder.name!r} runs code of its repository or unpickles; if you trust it, pass "
        refuse(msg + f"h2e.tl.Encoder({encoder.name!r}, trust_remote_code=True).")
    return encoder_models.lazyslide_model(name).to(device)


def _digest(network: Any) -> str:
    """SHA-256 of the weights of a torch module, or of the one in a model of LazySlide."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(getattr(network, "model", network).state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True)
class MissingEncoder:
    """In place of the encoder of a file: code is not stored, and nothing is downloaded because a file names it."""

    encoder: Encoder | None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Say what to pass."""
        name = None if self.encoder is None else self.encoder.name
        known = "is not stored, for it is code" if name is None else f"has only a name in its file, {name!r}"
        msg = f"the encoder {known}; pass it: h2e.Ensemble.load(folder, encoders={{'embedding': {name or ...!r}}})"
        raise ValueError(msg + ("." if name is None else ", or allow_download=True."))

    def replaced_by(self, encoder: Any) -> Any:
        """What the user passes in its place: of the same name the settings of the file hold, and always its weights."""
        if self.encoder is None or not isinstance(encoder, str | Encoder):
            return encoder
        if isinstance(encoder, str):
            encoder = Encoder(encoder, px=self.encoder.px, um_per_px=self.encoder.um_per_px)
        own = {key: getattr(encoder, key) for key in OF_USER} | {"sha256": self.encoder.sha256}
        return replace(self.encoder if encoder.name == self.encoder.name else encoder, **own)


def encoder_record(encoder: Any) -> dict[str, str]:
    """What tells an encoder from others, its weights aside: its name and how it pools; of code only its name."""
    encoder = encoder.encoder or encoder if isinstance(encoder, MissingEncoder) else encoder
    if isinstance(encoder, Encoder):
        options = " ".join(map(str, filter(None, (encoder.pool, encoder.model_args))))
        return {"encoder": encoder.name, "options": options}
    return {"encoder": getattr(encoder, "__name__", type(encoder).__name__)}


def weights_digest(encoder: Any, device: str | None) -> str:
    """SHA-256 of the weights of an encoder, which are loaded if they are not yet; empty of a callable."""
    if isinstance(encoder, Encoder):
        return encoder.digest(device)
    return _digest(encoder) if hasattr(encoder, "state_dict") else ""


def stored_encoder(encoder: Any) -> dict[str, Any] | str | None:
    """What a file says of an encoder: its settings, the name of the one of h2e; ``None`` of code."""
    encoder = encoder.encoder if isinstance(encoder, MissingEncoder) else encoder
    if isinstance(encoder, Encoder):
        return SHELL if encoder.name == SHELL else encoder.settings()
    return encoder if isinstance(encoder, str) else None


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
