"""Which of eight orientations of the spots fits the tissue, or makes two pictures one scene: arrays in, numbers out."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from h2e._slide.image import area_means
from h2e._slide.registration import cells_of, correlations
from h2e._slide.tissue import BLACK

AS_THEY_ARE = "as they are"

ORIENTATIONS = {
    AS_THEY_ARE: ((1, 0), (0, 1)),
    "turned by 90° counterclockwise": ((0, 1), (-1, 0)),
    "turned by 180°": ((-1, 0), (0, -1)),
    "turned by 90° clockwise": ((0, -1), (1, 0)),
    "with x and y exchanged": ((0, 1), (1, 0)),
    "mirrored top to bottom": ((1, 0), (0, -1)),
    "with x and y exchanged and turned by 180°": ((0, -1), (-1, 0)),
    "mirrored left to right": ((-1, 0), (0, 1)),
}
"""Matrices from (x, y) to (x, y), on images whose y points down."""

ACROSS = 40
"""Spacings across the spots; of finer arrays several spots are one here."""

CELLS = 2
"""Cells per such spacing."""

MIN_SCORE, MIN_LEAD = 0.65, 0.08
"""Correlation without which no orientation fits, and by how much one must be better than the others to be told: ten real
slides are named in all wrong orientations, and 79 crops of right ones not doubted (``benchmarks/orientation.py``)."""

CLEAR = 0.75
"""Correlation from which on spots are in place: more than these slides have in any wrong orientation at any place."""

SIDE = 24
"""Parts along a side that pictures are compared by."""

SAME_SCENE = 0.88
"""Correlation from which two pictures are one scene. Measured on eleven real slides and six synthetic ones: an image and
its copies (area means down to 1/32, every fourth pixel, JPEG of quality 30, other light, white balance and gamma) have
0.97 and more, with 1 % cut off two borders 0.91; other slides and other orientations have 0.84 and less, sections of one
block 0.62."""

SAME_CAST, SAME_HUE = 0.12, 0.3
"""How far the colour of tissue may differ between two pictures of one stain: in optical density, and against the glass
as a share of its mean. Another white balance (7 % a channel) and gamma (1.25) make 0.08 and 0.25 at most, half of the
tissue brown for purple 0.12 and 0.40 in the median."""

EVIDENCE = 0.02
"""Standard deviation of optical density below which a picture is blank, and no evidence."""

Verdict = Literal["right", "other orientation", "shifted", "cannot be told"]


class Orientation(NamedTuple):
    """How well the spots fit the tissue as they are, and at their best orientation and place."""

    verdict: Verdict
    name: str  # of the best orientation
    score_here: float  # correlation of 'under spots' with 'tissue' as they are, up to a spacing away
    score: float  # of the best orientation at its best place
    runner_up: float  # of the best of the other orientations
    shift: tuple[float, float]  # (x, y) in pixels of level 0, after turning about the middle of the spots


def orient(picture: np.ndarray, k: int) -> np.ndarray:
    """A picture (y, x, …) in one of the orientations, by its position among them."""
    to_x, to_y = list(ORIENTATIONS.values())[k]
    return (picture if to_x[0] else picture.swapaxes(0, 1))[:: sum(to_y), :: sum(to_x)]


def orientation(mask: np.ndarray, scale: float, xy: np.ndarray, spacing: float) -> Orientation:
    """Compare all orientations of the spots, each at its best place on the image.

    ``xy`` and ``spacing`` are in pixels of level 0, as many of which as ``scale`` make a pixel of the mask. The outline
    of the tissue tells only where it differs between the orientations.
    """
    unit, some = _coarser(xy, spacing, scale)
    centre, cell = xy.mean(axis=0), unit / CELLS
    tissue = cells_of(mask, scale, cell)
    # From the middle of the image, in whole cells, no place on it is farther than half of its side.
    start = np.round(np.array(tissue.shape[::-1]) / 2 - centre / cell) * cell
    turned = (start + centre + (some - centre) @ np.array(matrix, float).T for matrix in ORIENTATIONS.values())
    scores = np.stack([correlations(tissue, at, unit, max(tissue.shape) / 2 / CELLS, CELLS) for at in turned])
    best, y, x = np.unravel_index(scores.argmax(), scores.shape)
    shift_x, shift_y = (start + (np.array([x, y]) - scores.shape[1] // 2) * cell).tolist()
    here, name = score_here(mask, scale, xy, spacing), list(ORIENTATIONS)[best]
    *_, runner_up, score = np.sort(scores.max(axis=(1, 2))).tolist()
    return Orientation(_verdict(name, here, score, runner_up), name, here, score, runner_up, (shift_x, shift_y))


def score_here(mask: np.ndarray, scale: float, xy: np.ndarray, spacing: float) -> float:
    """Correlation of 'under spots' with 'tissue' where the spots are, or up to a spacing away."""
    unit, some = _coarser(xy, spacing, scale)
    return float(correlations(cells_of(mask, scale, unit / CELLS), some, unit, 1.0, CELLS).max())


def _coarser(xy: np.ndarray, spacing: float, scale: float) -> tuple[float, np.ndarray]:
    """A spacing of which there are at most 40 across the spots, and spots that are no denser than half of it."""
    # A few bins of a large image must not cut it finer than its mask.
    unit = max(spacing, float(np.ptp(xy, axis=0).max()) / ACROSS, CELLS * scale)
    return unit, xy if unit == spacing else np.unique(np.floor(2 * xy / unit), axis=0) * unit / 2 + unit / 4


def _verdict(name: str, here: float, score: float, runner_up: float) -> Verdict:
    """What the scores tell."""
    if score < MIN_SCORE or score - runner_up < MIN_LEAD:
        return "cannot be told"
    if score - here < MIN_LEAD:
        return "right"
    return "shifted" if name == AS_THEY_ARE else "other orientation"


def picture_of(rgb: np.ndarray) -> np.ndarray:
    """Mean colours of parts of an image of any size, (n, n, 3); a part of a small one has two pixels a side."""
    return area_means(rgb, max(2, min(SIDE, min(rgb.shape[:2]) // 2)))


def compare(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """Compare two pictures over the tissue in either: glass agrees with glass everywhere.

    Returns
    -------
    Their correlation in each orientation of the first, and whether the stain differs in the best; ``None`` where one of
    them is blank.

    Examples
    --------
    >>> rgb = np.full((60, 90, 3), 240.0)
    >>> rgb[:20, 20:40] = 120, 40, 90
    >>> correlations, other_stain = compare(picture_of(rgb), picture_of(rgb[:, ::-1]))
    >>> list(ORIENTATIONS)[correlations.argmax()], other_stain
    ('mirrored left to right', False)
    """
    colours = np.stack([area_means(picture, min(len(one), len(other))) for picture in (one, other)])
    density = -np.log((colours + 1) / 256)
    # What is black in one of them says nothing.
    known = colours.max(axis=-1) >= BLACK
    glass = np.percentile(np.where(known[..., None], density, 99.0), 5, axis=(1, 2), keepdims=True)
    tissue = np.where(known[..., None], density - glass, 0).clip(0)
    amounts = tissue.mean(axis=-1)
    if amounts.std(axis=(1, 2)).min() < EVIDENCE:
        return None
    turned, seen = (np.stack([orient(values[0], k) for k in range(len(ORIENTATIONS))]) for values in (amounts, known))
    straight = np.broadcast_to(amounts[1], turned.shape)
    weights = np.where(seen & known[1], np.maximum(turned, straight), 1e-12)
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    x, y = (values - (weights * values).sum(axis=(1, 2), keepdims=True) for values in (turned, straight))
    xy, xx, yy = ((weights * product).sum(axis=(1, 2)) for product in (x * y, x * x, y * y))
    correlations = xy / np.sqrt(np.maximum(xx * yy, 1e-12))
    best = int(correlations.argmax())
    pairs = (np.stack([orient(values[0], best), values[1]]) for values in (density, tissue))
    cast, hue = (np.einsum("yx,pyxc->pc", weights[best], pair) for pair in pairs)
    off = np.ptp(cast - cast.mean(axis=1, keepdims=True), axis=0).max() > SAME_CAST
    return correlations, bool(off or np.ptp(hue / hue.mean(axis=1, keepdims=True), axis=0).max() > SAME_HUE)
