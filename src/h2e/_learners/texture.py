"""Texture: statistics of colours, stains and texture, and a linear model or nearest neighbours. Fast, and hard to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from h2e._learners.heads import LinearModel, NearestModel, check_y, fit_linear, fit_nearest
from h2e._learners.texture_features import texture_features
from h2e._slide.tiles import View

HEADS = ("ridge", "knn", "pls")


@dataclass(frozen=True)
class Texture:
    """Statistics of colour, stain and texture of views at several scales, then ridge, kNN or PLS.

    Parameters
    ----------
    head
        ``"ridge"``, ``"knn"`` or ``"pls"``.
    views
        What is looked at: by default the spot from near (1 µm/px where the pitch is 200 µm) and as a whole, the tile, and the
        surroundings, which are cut from the image so that they do not depend on other spots.
    k
        Neighbours of ``head="knn"``.
    setting
        Penalty of ridge (share of spots × features) or number of components of PLS; ``None``: chosen by inner group folds.

    Examples
    --------
    >>> learner = Texture(views=(View(1, 16),))
    >>> tiles = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    >>> x = learner.extract_features([tiles])
    >>> model = learner.fit(x, x[:, :2], np.repeat(["A", "B"], 6))
    >>> model.predict(x).shape
    (12, 2)
    """

    name: ClassVar[str] = "texture"
    uses: ClassVar[str] = "tiles"
    head: str = "ridge"
    views: tuple[View, ...] = (View(0.56, 112), View(1, 100), View(3, 156), View(7, 156))
    k: int = 30
    setting: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        check_head(self.head, self.k)
        if not self.views:
            msg = "the texture learner needs at least one view."
            raise ValueError(msg)

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Features of all views side by side, ``float32``."""
        return np.concatenate([texture_features(view) for view in tiles], axis=1)

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> LinearModel | NearestModel:
        """Fit the head; nothing here is random."""
        return fit_head(self, x, y, groups)

    def restore(self, arrays: dict[str, np.ndarray]) -> LinearModel | NearestModel:
        """The model that the arrays came from."""
        return restore_head(self, arrays)


def check_head(head: str, k: int) -> None:
    """Raise unless there is such a head."""
    if head not in HEADS or k < 1:
        msg = f"head must be one of {list(HEADS)} and k at least 1, got head={head!r}, k={k}."
        raise ValueError(msg)


def fit_head(learner: Any, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> LinearModel | NearestModel:
    """Fit the head that the learner names."""
    check_y(x, y, groups)
    if not np.isfinite(x).all():
        msg = f"learner {learner.name!r} got features that are not finite."
        raise ValueError(msg)
    if learner.head == "knn":
        return fit_nearest(x, y, k=learner.k)
    return fit_linear(x, y, groups, kind=learner.head, setting=learner.setting)


def restore_head(learner: Any, arrays: dict[str, np.ndarray]) -> LinearModel | NearestModel:
    """The model that the arrays came from."""
    return (NearestModel if learner.head == "knn" else LinearModel).restore(arrays)
