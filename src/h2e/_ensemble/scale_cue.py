"""How large a pixel looks: the size of nuclei, glands and fibres tells it where the training slides agree about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from h2e._learners.texture_features import octave_features
from h2e._sdata.cohort import Cohort
from h2e._slide.slide import Slide, by_image
from h2e._slide.tiles import View, read_views
from h2e._slide.tissue import fraction_at
from h2e._warnings import warn

N_TILES, TILE_PX, N_SIZES = 32, 64, 3
"""Most pieces of tissue, their side in pixels, and with how many sizes of pixels, half octaves apart, a slide is looked at.
Little tissue has fewer pieces: in pixels of the image they have no more than twice its area."""

COARSEST_UM = 16.0
"""Largest pixels that training slides are looked at with; of coarse images, those of four of their own."""

RIDGE, GAIN = 1e-3, 0.35
"""Of the regression: penalty, and how much stronger or weaker (in logarithms) a stain may be without a say in it."""

LEAST = float(np.log2(1.5))
"""Octaves that a size is off by before it is spoken of."""

Seen = tuple[str, np.ndarray, np.ndarray]
"""Group of a slide, sizes of pixels in µm, and features (sizes, tiles, d)."""


@dataclass(frozen=True, eq=False)
class ScaleCue:
    """A linear regression of log2 µm per pixel of a tile on its octaves, learned from the training slides."""

    coef: np.ndarray  # (d,)
    intercept: float
    finest_um: float  # smallest pixels of the training slides
    threshold: float = np.inf  # octaves beyond which a size is wrong rather than the cue

    def octaves_off(self, slide: Slide) -> float:
        """Log2 of the stated size of a pixel over the size that it looks to have; NaN without tissue."""
        sizes = self.first_um(slide.require_size()) * 2 ** (np.arange(N_SIZES) / 2)
        return self.off(sizes, look(slide, sizes))

    def off(self, sizes: np.ndarray, features: np.ndarray) -> float:
        """The same of what was seen with pixels of these sizes."""
        said = np.median(features @ self.coef + self.intercept, axis=1) if features.size else np.nan
        return float(np.mean(np.log2(sizes) - said))

    def first_um(self, um_per_px: float) -> float:
        """Smallest pixels to look with: a focus that differs between scanners shows in the finest octave."""
        return float(np.sqrt(2) * max(um_per_px, self.finest_um))


def fit_scale_cue(slides: Sequence[Slide]) -> ScaleCue | None:
    """Learn from slides with tissue and of known size; ``None`` of one group, since another tells how far to trust it.

    Beyond twice its largest error on a slide, learned from the other groups, it is trusted.
    """
    images = by_image(slides).values()
    groups = {slide.group for slide in images}
    if len(groups) < 2:
        return None
    seen = [(slide.group, at := half_octaves(slide.require_size()), look(slide, at)) for slide in images]
    cues = {left_out: _solve([each for each in seen if each[0] != left_out]) for left_out in groups}
    errors = []
    for group, sizes, features in seen:
        first = np.abs(np.log2(sizes / cues[group].first_um(sizes[0]))).argmin()
        errors.append(abs(cues[group].off(sizes[first:][:N_SIZES], features[first:][:N_SIZES])))
    return replace(_solve(seen), threshold=max(LEAST, 2 * max(errors)))


def warn_of_sizes(cohort: Cohort, cue: ScaleCue) -> None:
    """Warn where pixels look larger or smaller than the user alone said that they are, here or for a grid of spots."""
    told = ("um_per_px=",) if cohort.table.n_vars else ("um_per_px=", "table.obs")
    for slide in (slide for slide in cohort.slides if slide.um_per_px_from in told):
        off, given = cue.octaves_off(slide), slide.require_size()
        if abs(off) > cue.threshold:
            msg = f"slide {slide.name!r} is said to have {given:.3g} µm/px, but compared with the training slides it "
            msg += f"looks like {given / 2**off:.2g} µm/px: {2 ** abs(off):.1f} times {'less' if off > 0 else 'more'}. "
            msg += "Check um_per_px; if it is right, the tissue or its stain is of another kind than in training."
            warn(msg)


def look(slide: Slide, sizes: np.ndarray, describe: Callable[[np.ndarray], np.ndarray] = octave_features) -> np.ndarray:
    """Describe pieces of tissue, the same with pixels of each of these sizes in µm, (sizes, …); empty without tissue."""
    mask, scale = slide.require_tissue()
    yx = np.argwhere(mask)
    if not len(yx):
        return np.empty(0)
    some = np.random.default_rng(0).integers(len(yx), size=20 * N_TILES)
    xy = (yx[some, ::-1] + 0.5) * scale
    # At random where most of the tile is tissue, and else where there is most of it.
    share = np.minimum(fraction_at(mask, scale, xy, TILE_PX * np.median(sizes) / slide.require_size()), 0.8)
    n_tiles = int(np.clip(2 * len(yx) * (scale / TILE_PX) ** 2, 4, N_TILES))
    views = [View(TILE_PX * size, TILE_PX, "um") for size in sizes]
    best = np.argsort(-share, kind="stable")[:n_tiles]
    return np.stack([describe(tiles) for tiles in read_views(slide, xy[best], views)])


def half_octaves(um_per_px: float) -> np.ndarray:
    """Sizes of pixels that a training slide is looked at with, from its own on."""
    return um_per_px * 2 ** (np.arange(int(2 * np.log2(max(COARSEST_UM / um_per_px, 4.0))) + 1) / 2)


def _solve(seen: Sequence[Seen]) -> ScaleCue:
    """Ridge regression in which every group has the same weight, and the strength of a stain little."""
    x = np.concatenate([np.concatenate(features) for *_, features in seen]).astype(float)
    y = np.concatenate([np.repeat(np.log2(sizes), features.shape[1]) for _, sizes, features in seen])
    groups = np.repeat([group for group, *_ in seen], [features[..., 0].size for *_, features in seen])
    _, which, n = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1 / n[which]
    covariance = np.cov(x, y, rowvar=False, aweights=weight, ddof=0)
    gram = covariance[:-1, :-1]
    penalty = np.diag(RIDGE * gram.diagonal().clip(1e-12))
    # A stain adds as much to the logarithms of all of its contrasts: two of each six features of an octave.
    moves = GAIN * np.kron(np.eye(2), np.tile([1, 0, 0, 0, 1, 0], len(gram) // 12))
    coef = np.linalg.solve(gram + penalty + moves.T @ moves, covariance[:-1, -1])
    return ScaleCue(coef, float(np.average(y - x @ coef, weights=weight)), min(sizes[0] for _, sizes, _ in seen))
