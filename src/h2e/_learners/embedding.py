"""Embedding: features of any frozen encoder for the tile, its centre and its surroundings, and the heads of texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from h2e._learners.encoders import SHELL, Encode, cached, encoder_name, encoder_of
from h2e._learners.heads import Head, HeadLearner
from h2e._learners.learner import Uses
from h2e._learners.shell import Precision
from h2e._slide.tiles import View

SHELL_PX, PX = 48, 80
"""Side of the images of the packaged encoder, and of others."""


@dataclass(frozen=True)
class Embedding(HeadLearner):
    """Features of a frozen encoder, then ridge, kNN or PLS.

    The encoder sees a tile of three spacings, its centre of one spacing, and the surroundings of seven spacings, all of
    the same ``px``; with ``subtiles`` also the nine squares of one spacing that make up the tile, whose features are
    averaged.

    Parameters
    ----------
    encoder
        ``"shell"``, which comes with h2e (lavlab-shell, trained on H&E; MIT licence); ``"timm:NAME"``; a
        ``torch.nn.Module`` for images that are scaled as its ``pretrained_cfg`` says, else as for ImageNet, which stays
        on its device; or a callable from ``uint8`` (n, 3, px, px) to (n, d). Frozen; must not depend on the other
        images of a batch. All but ``"shell"`` must be passed again when an ensemble is loaded.
    px
        Side of the images that the encoder sees; ``None``: 48 for ``"shell"``, which more pixels do not help, 80 for
        others.
    subtiles
        Whether it sees the nine subtiles as well, like the multiscale network, for nearly four times the computing.
    surroundings
        Extent of the surroundings in spacings; 0 leaves them out.
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
        AMX or AVX512-BF16 and on recent GPUs; ``"float32"`` is the default because it predicts the same on every
        processor.

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
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.px is None:
            object.__setattr__(self, "px", SHELL_PX if self.encoder == SHELL else PX)
        if self.precision not in get_args(Precision):
            msg = f"precision must be one of {list(get_args(Precision))}, got {self.precision!r}."
            raise ValueError(msg)
        if self.obsm is None:
            encoder_of(self.encoder, precision=self.precision)
        elif self.precision != "float32":
            msg = f"precision must be 'float32' with obsm, whose features are computed already, got {self.precision!r}."
            raise ValueError(msg)
        elif self.encoder not in (None, "shell"):
            msg = "pass an encoder or an obsm key, not both."
            raise ValueError(msg)

    @property
    def uses(self) -> Uses:  # type: ignore[override]
        """Tiles, or features that are stored."""
        return "tiles" if self.obsm is None else "obsm"

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        """Tile, centre (for subtiles the tile at three times the pixels) and surroundings; none with ``obsm``."""
        if self.obsm is not None:
            return ()
        near = View(3, 3 * self.px) if self.subtiles else View(1, self.px)
        around = (View(self.surroundings, self.px),) if self.surroundings else ()
        return (View(3, self.px), near, *around)

    def settings(self) -> dict[str, Any]:
        """The fields; an encoder that is code has no name to store."""
        return super().settings() | {"encoder": encoder_name(self.encoder)}

    @cached_property
    def _encode(self) -> Encode:
        """The encoder as a function, with its memory if there is a cache."""
        encode = encoder_of(self.encoder, device=self.device, precision=self.precision)
        return encode if self.cache is None else cached(encode, Path(self.cache), self.px)

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Features of tile, centre, surroundings and the mean of the subtiles side by side, ``float32``."""
        encode, px = self._encode, self.px
        tile, near, *around = tiles
        corners = [(y, x) for y in (0, px, 2 * px) for x in (0, px, 2 * px)] if self.subtiles else [(0, 0)]
        parts = [_checked(encode, np.ascontiguousarray(near[:, :, y : y + px, x : x + px])) for y, x in corners]
        views = [_checked(encode, tile), parts[len(parts) // 2], *(_checked(encode, view) for view in around)]
        if self.subtiles:
            views.append(np.mean(parts, axis=0))
        return np.concatenate(views, axis=1).astype(np.float32)


def _checked(encode: Encode, images: np.ndarray) -> np.ndarray:
    """Call the encoder and check what comes back."""
    features = np.asarray(encode(images))
    if features.ndim != 2 or len(features) != len(images):
        msg = f"the encoder must return (n, d) for {len(images)} images, got {features.shape}."
        raise ValueError(msg)
    return features
