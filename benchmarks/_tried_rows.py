"""The rows of what was tried: features, and what each row changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from h2e._learners.embedding import Embedding
from h2e._learners.learner import Learner
from h2e._learners.shell import shell_features
from h2e._learners.texture import Texture
from h2e._slide.tiles import View


@dataclass(frozen=True)
class Features:
    """What is cut from the slide, and what becomes of it."""

    views: tuple[View, ...]
    compute: Callable[[list[np.ndarray]], np.ndarray]


def features_of(learner: Learner) -> Features:
    """Give the features of a learner."""
    return Features(learner.views, learner.extract_features)


def side_by_side(tiles: list[np.ndarray]) -> np.ndarray:
    """Compute the encoder's features of each view."""
    return np.concatenate([shell_features(view) for view in tiles], axis=1)


FEATURES = {
    "texture": features_of(Texture()),
    "encoder": features_of(Embedding(px=80)),
    "encoder, 48 px": features_of(Embedding(px=48)),
    "encoder, 32 px": features_of(Embedding(px=32)),
    "encoder, 112 px": features_of(Embedding(px=112)),
    "encoder, 1 µm": Features((View(3, 112), View(1, 200), View(7, 112)), side_by_side),
    "encoder, subtiles": features_of(Embedding(px=80, subtiles=True)),
    "encoder, no surroundings": features_of(Embedding(px=80, surroundings=0)),
    "encoder, smoke": Features((View(3, 24), View(1, 24)), side_by_side),
}


@dataclass(frozen=True)
class Row:
    """One thing that was tried."""

    name: str
    what: str
    encoder: str = "encoder"
    heads: tuple[tuple[str, str], ...] = (
        ("texture", "ridge"),
        ("texture", "knn"),
        ("texture", "pls"),
        ("encoder", "ridge"),
    )
    copies: int = 0
    """Further copies of each training spot, their stains jittered."""
    predict_copies: bool = False
    standardized: tuple[tuple[str, bool], ...] = (("mixed", False),)
    """For each target transform whether it is learned from features that are standardized on each slide."""
    smooth: bool = False
    """Training labels are averaged with those of the six nearest spots."""
    n_programmes: int = 0
    chosen: str = "measured"
    """Targets are chosen on expression as measured, or "thinned" to one depth within each training slide."""
    trained: str = "measured"
    """What is learned: expression as measured, "thinned", or the "rest" of a regression on the logarithm of totals."""


RIDGES = (("texture", "ridge"), ("encoder", "ridge"))
ROWS = (
    Row("genes as measured", "the default learners, `n_programmes=0`"),
    Row("the default", "ten programmes of genes", n_programmes=10),
    Row("5 programmes", "fewer of them", n_programmes=5),
    Row("20 programmes", "more of them", n_programmes=20),
    Row("two ridges", "no nearest neighbours, no PLS", heads=RIDGES),
    Row("one ridge", "of all features side by side", heads=(("texture + encoder", "ridge"),)),
    Row("six heads", "kNN and PLS of the encoder, too",
        heads=tuple((name, head) for name in ("texture", "encoder") for head in ("ridge", "knn", "pls"))),
    Row("encoder, 112 px", "its images with 112 px in place of 80", encoder="encoder, 112 px"),
    Row("encoder, 48 px", "its images with 48 px (as today), not 80", encoder="encoder, 48 px"),
    Row("encoder, 32 px", "its images with 32 px", encoder="encoder, 32 px"),
    Row("encoder, 1 µm", "its centre at about 1 µm a pixel (200 px), the others with 112 px", encoder="encoder, 1 µm"),
    Row("encoder, subtiles", "the nine subtiles, too", encoder="encoder, subtiles"),
    Row("encoder, no surroundings", "tile and centre only", encoder="encoder, no surroundings"),
    Row("stain jitter", "three more copies of each training spot, stains changed at random", copies=3),
    Row("stain jitter twice", "and predictions averaged over such copies", copies=3, predict_copies=True),
    Row("standardized features", "on each slide, also on the one that is predicted", standardized=(("mixed", True),)),
    Row("standardized features, pattern", "for the standardized half of the targets only",
        standardized=(("standardized", True), ("log", False))),
    Row("smooth labels", "expression averaged with the six nearest spots", smooth=True),
)  # fmt: skip

DEFAULT_LEARNERS = "four learners"
LEARNERS = {"texture ridge": (("texture", "ridge"),), DEFAULT_LEARNERS: Row.heads}
WITHOUT_DEPTH = {
    "default targets": ("measured", "measured"),
    "chosen on thinned": ("thinned", "measured"),
    "trained on thinned": ("measured", "thinned"),
    "trained on the rest": ("measured", "rest"),
    "chosen and trained on thinned": ("thinned", "thinned"),
    "chosen on thinned, trained on the rest": ("thinned", "rest"),
}
"""What targets are chosen on, and what is learned."""

DEFAULT = next(iter(WITHOUT_DEPTH))
CHOICES = {"measured": DEFAULT, "thinned": "chosen on thinned"}
DEPTH_ROWS = tuple(
    Row(f"{learners}: {name}", name, encoder="encoder, 48 px", heads=heads, n_programmes=10, chosen=chosen, trained=how)
    for learners, heads in LEARNERS.items()
    for name, (chosen, how) in WITHOUT_DEPTH.items()
)
SMOKE_ROWS = [
    Row("the default", "one head of texture", heads=(("texture", "ridge"),), n_programmes=2),
    Row(DEPTH_ROWS[4].name, "", heads=(("texture", "ridge"),), n_programmes=2, chosen="thinned",
        trained="thinned"),
    Row(DEPTH_ROWS[3].name, "", heads=(("texture", "ridge"),), trained="rest"),
    Row("one ridge", "a row with all options", heads=(("texture + encoder", "ridge"),), encoder="encoder, smoke",
        copies=1, predict_copies=True, standardized=(("standardized", True), ("log", False)), smooth=True),
]  # fmt: skip
