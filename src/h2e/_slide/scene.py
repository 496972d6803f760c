"""Whether two pictures show one scene, and in which of the eight orientations: arrays in, numbers out."""

from __future__ import annotations

import numpy as np

from h2e._slide.image import area_means
from h2e._slide.orientation import ORIENTATIONS, orient
from h2e._slide.tissue import BLACK

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
