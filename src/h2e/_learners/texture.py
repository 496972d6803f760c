"""Texture: statistics of colours, stains and texture, and a linear model or nearest neighbours: fast, hard to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from h2e._learners.heads import Head, HeadLearner
from h2e._learners.texture_features import texture_features
from h2e._slide.tiles import View
from h2e._warnings import refuse_if


@dataclass(frozen=True)
class Texture(HeadLearner):
    """Statistics of colour, stain and texture of views at several scales, then ridge, kNN or PLS.

    Parameters
    ----------
    head
        ``"ridge"``, ``"knn"`` or ``"pls"``.
    views
        What is described: by default the spot from near (1 µm/px where the pitch is 200 µm) and as a whole, the tile,
        and the surroundings, which are cut from the image so that they do not depend on other spots.
    k
        Neighbours of ``head="knn"``.
    setting
        Penalty of ridge (share of spots × features) or number of components of PLS; ``None``: chosen by inner folds.

    Examples
    --------
    >>> learner = Texture(views=(View(1, 16),))
    >>> tiles = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    >>> x = learner.extract_features([tiles])
    >>> model = learner.fit(x, x[:, :2], np.repeat(["A", "B"], 6))
    >>> model.predict(x).shape
    (12, 2)
    """

    name = "texture"
    uses = "tiles"
    head: Head = "ridge"
    views: tuple[View, ...] = (View(0.56, 112), View(1, 100), View(3, 156), View(7, 156))
    k: int = 30
    setting: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        super().__post_init__()
        refuse_if(not self.views, "views must name at least one view, got none.")

    @property
    def label(self) -> str:
        """The name of the head, where it is not the default."""
        return self.name if self.head == "ridge" else self.head

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Features of all views side by side, ``float32``."""
        return np.concatenate([texture_features(view) for view in tiles], axis=1)
