"""Embedding: features of any frozen encoder for the tile, its centre and its surroundings, and the heads of texture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from h2e._learners.encoder_models import as_function
from h2e._learners.encoders import Encoder, MissingEncoder, cached, encoder_record, stored_encoder
from h2e._learners.heads import Head, HeadLearner
from h2e._learners.known_encoders import SHELL, SHELL_PX
from h2e._learners.learner import Uses
from h2e._learners.shell import Encode, Precision
from h2e._slide.tiles import View
from h2e._warnings import refuse, refuse_if

PX = 80
"""Side of the images of an encoder that is code and does not say its own."""

AS_IT_IS = "as it is"
"""The image that features are of, on record: not normalized."""


@dataclass(frozen=True)
class Embedding(HeadLearner):
    """Features of a frozen encoder, then ridge, kNN or PLS.

    The encoder sees a tile of three spacings, its centre, and the surroundings of seven spacings, all of the same
    ``px``; with ``subtiles`` also the nine squares of the size of the centre around it, whose features are averaged.
    The centre is cut at the scale that the encoder was trained on, where it is known, else it is one spacing wide.

    Parameters
    ----------
    encoder
        A name (:class:`Encoder`): ``"shell"``, which comes with h2e, ``"lazyslide:NAME"``, ``"timm:NAME"`` or
        ``"timm:hf-hub:ORG/NAME"``; an :class:`Encoder`, which has more settings; a ``torch.nn.Module`` for images that
        are scaled as its ``pretrained_cfg`` says, else as for ImageNet, which stays on its device; or a callable from
        ``uint8`` (n, 3, px, px) to (n, d). Frozen; must not depend on the other images of a batch. When an ensemble is
        loaded, all but ``"shell"`` must be passed again, or ``allow_download=True`` for those with a name.
    px
        Side of the images that the encoder sees; ``None``: its own, 48 for ``"shell"``, 80 for code.
    um_per_px
        µm per pixel of the centre; ``None``: what the encoder was trained on, as far as it is known; 0: the centre is
        one spacing wide.
    subtiles
        Whether it sees the nine subtiles as well, like the multiscale network, for nearly four times the computing.
    tile, surroundings
        Extent of the tile and of the surroundings in spacings; 0 leaves them out.
    head
        ``"ridge"``, ``"knn"`` or ``"pls"``.
    k
        Neighbours of ``head="knn"``.
    setting
        Penalty of ridge (share of spots × features) or number of components of PLS; ``None``: chosen by inner folds.
    obsm
        Take features from this key of ``.obsm`` in place of an encoder: an array, a sparse matrix or a DataFrame.
        Slides that are predicted need them, too; one with only an image gets its spots by :func:`h2e.pp.make_spots`
        first.
    cache
        Folder that keeps features, so that the same tiles are encoded once.
    device
        Where a named encoder computes; ``None``: CUDA if there is one.
    precision
        Of convolutions and matrix products of an encoder that is no callable: ``"bfloat16"`` pays on processors with
        AMX or AVX512-BF16 and on recent GPUs; ``"float32"`` predicts the same on every processor; ``"auto"``, the
        default of encoders of timm and LazySlide, is ``float32`` on a processor and half precision on CUDA.

    Examples
    --------
    >>> learner = Embedding(lambda images: images.mean((2, 3)), px=8)
    >>> [view.px for view in learner.views]
    [8, 8, 8]
    >>> learner.extract_features([np.zeros((2, 3, v.px, v.px), np.uint8) for v in learner.views]).shape
    (2, 9)
    """

    name = "embedding"
    encoder: Any = "shell"
    px: int = None  # type: ignore[assignment]  # that of the encoder
    subtiles: bool = False
    surroundings: float = 7
    head: Head = "ridge"
    k: int = 30
    setting: float | None = None
    obsm: str | None = None
    cache: str | PathLike[str] | None = None
    device: str | None = None
    precision: Precision = None  # type: ignore[assignment]  # that of the encoder
    um_per_px: float = None  # type: ignore[assignment]  # that of the encoder
    tile: float = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        encoder = self.encoder
        if self.obsm is None and isinstance(encoder, str):
            encoder = Encoder(encoder, px=self.px)
        named = isinstance(encoder, Encoder)
        px, um_per_px = (encoder.px, encoder.um_per_px or 0) if named else (SHELL_PX if encoder == SHELL else PX, 0)
        precision = "auto" if named and encoder.name != SHELL else "float32"
        for key, value in {"px": px, "um_per_px": um_per_px, "precision": precision}.items():
            object.__setattr__(self, key, value if getattr(self, key) is None else getattr(self, key))
        object.__setattr__(self, "encoder", encoder)
        self._check()

    def _check(self) -> None:
        """Raise unless the settings go together."""
        encoder, known = self.encoder, isinstance(self.encoder, Encoder | MissingEncoder)
        if self.precision not in get_args(Precision):
            refuse(f"precision must be one of {list(get_args(Precision))}, got {self.precision!r}.")
        refuse_if(self.obsm is not None and encoder not in (None, SHELL), "pass an encoder or an obsm key, not both.")
        if self.obsm is None and not known and not callable(encoder):
            refuse(f"encoder must be a name, a torch module or a callable, got {type(encoder).__name__}.", TypeError)
        exact = "obsm, which is computed already" if self.obsm is not None else "an encoder that is a callable"
        if self.precision != "float32" and (self.obsm is not None or not (known or hasattr(encoder, "state_dict"))):
            refuse(f"precision must be 'float32' with {exact}, got {self.precision!r}.")

    @property
    def uses(self) -> Uses:  # type: ignore[override]
        """Tiles, or features that are stored."""
        return "tiles" if self.obsm is None else "obsm"

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        """Tile, centre (for subtiles a square of three times its side and pixels) and surroundings; none with ``obsm``."""
        if self.obsm is not None:
            return ()
        side, unit = (self.px * self.um_per_px, "um") if self.um_per_px else (1, "spacing")
        n = 3 if self.subtiles else 1
        tile, around = ((View(extent, self.px),) if extent else () for extent in (self.tile, self.surroundings))
        return (*tile, View(n * side, n * self.px, unit), *around)

    def settings(self) -> dict[str, Any]:
        """The fields; an encoder that is code has no name to store."""
        return super().settings() | {"encoder": stored_encoder(self.encoder)}

    @property
    def pinned(self) -> Embedding:
        """The same with the checksum of the weights of an encoder that is not part of h2e."""
        known = isinstance(self.encoder, Encoder) and self.encoder.name != SHELL
        return replace(self, encoder=replace(self.encoder, sha256=self.encoder.digest(self.device))) if known else self

    def record(self, spacing_um: float, stains: Mapping[str, Any] | None) -> dict[str, Any]:
        """What is kept beside features that are written: all that makes them what they are but the weights.

        :meta private:
        """
        reference = "" if stains is None else json.dumps(stains, sort_keys=True)
        image = f"normalized, {hashlib.sha256(reference.encode()).hexdigest()[:16]}" if reference else AS_IT_IS
        extents, sides = ([view.extent_um(spacing_um) for view in self.views], [view.px for view in self.views])
        record = {"function": "embed", **encoder_record(self.encoder)}
        return record | {"views_um": extents, "views_px": sides, "image": image}

    @cached_property
    def _encode(self) -> Encode:
        """The encoder as a function, with its memory if there is a cache."""
        known = isinstance(self.encoder, Encoder)
        encode = self.encoder.build(self.device, self.precision) if known else as_function(self.encoder, self.precision)
        return encode if self.cache is None else cached(encode, Path(self.cache), self.px)

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Features of tile, centre, surroundings and the mean of the subtiles side by side, ``float32``."""
        encode, px = self._encode, self.px
        tile, near, around = tiles[: bool(self.tile)], tiles[bool(self.tile)], tiles[bool(self.tile) + 1 :]
        corners = [(y, x) for y in (0, px, 2 * px) for x in (0, px, 2 * px)] if self.subtiles else [(0, 0)]
        parts = [_checked(encode, np.ascontiguousarray(near[:, :, y : y + px, x : x + px])) for y, x in corners]
        center = parts[len(parts) // 2]
        views = [*(_checked(encode, view) for view in tile), center, *(_checked(encode, view) for view in around)]
        if self.subtiles:
            views.append(np.mean(parts, axis=0))
        return np.concatenate(views, axis=1).astype(np.float32)


def _checked(encode: Encode, images: np.ndarray) -> np.ndarray:
    """Call the encoder and check what comes back."""
    features = np.asarray(encode(images))
    if features.ndim != 2 or len(features) != len(images):
        refuse(f"the encoder must return (n, d) for {len(images)} images, got {features.shape}.")
    return features
