"""Whether two pictures show one scene, and in which of the eight orientations: arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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

ORIENTATIONS = (
    "as it is", "turned by 90° counter-clockwise", "turned by 180°", "turned by 90° clockwise",
    "with its axes exchanged", "mirrored top to bottom", "turned by 180° with its axes exchanged",
    "mirrored left to right",
)  # fmt: skip


def orient(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture (y, x, …) in one of the eight orientations."""
    return np.rot90(picture.swapaxes(0, 1) if orientation > 3 else picture, orientation % 4)


@dataclass(frozen=True, eq=False)
class Picture:
    """Mean colours of parts of an image of any size, (n, n, 3), and what they say of the tissue."""

    colours: np.ndarray

    @classmethod
    def of(cls, rgb: np.ndarray, side: int = SIDE) -> Picture:
        """What is seen of an image; a part of a small one has two pixels a side."""
        return cls(_means(rgb, max(2, min(side, min(rgb.shape[:2]) // 2))))

    @cached_property
    def density(self) -> np.ndarray:
        """Optical densities; NaN of what is black."""
        black = self.colours.max(axis=-1, keepdims=True) < BLACK
        return np.where(black, np.nan, -np.log((self.colours + 1) / 256))

    @cached_property
    def tissue(self) -> np.ndarray:
        """Optical densities over those of the brightest parts; 0 of what is black."""
        if not np.isfinite(self.density).any():
            return np.zeros_like(self.density)
        return np.nan_to_num(self.density - np.nanpercentile(self.density, 5, axis=(0, 1))).clip(0)

    @cached_property
    def is_blank(self) -> bool:
        """Whether there is nothing to see."""
        return bool(self.tissue.mean(axis=-1).std() < EVIDENCE)


def compare(one: Picture, other: Picture) -> tuple[np.ndarray, bool] | None:
    """Compare two pictures over the tissue in either: glass agrees with glass everywhere.

    Returns
    -------
    Their correlation in each orientation of the first, and whether the stain differs in the best; ``None`` where one of
    them is blank.

    Examples
    --------
    >>> rgb = np.full((60, 90, 3), 240.0)
    >>> rgb[:20, 20:40] = 120, 40, 90
    >>> correlations, other_stain = compare(Picture.of(rgb), Picture.of(rgb[:, ::-1]))
    >>> ORIENTATIONS[correlations.argmax()], other_stain
    ('mirrored left to right', False)
    """
    if one.is_blank or other.is_blank:
        return None
    side = min(len(one.colours), len(other.colours))
    one, other = (seen if len(seen.colours) == side else Picture(_means(seen.colours, side)) for seen in (one, other))
    turned = _all_orientations(one.tissue.mean(axis=-1))
    straight = np.broadcast_to(other.tissue.mean(axis=-1), turned.shape)
    # What is black in one of them says nothing.
    known = _all_orientations(np.isfinite(one.density).all(axis=-1)) & np.isfinite(other.density).all(axis=-1)
    weights = np.where(known, np.maximum(turned, straight), 0)
    weights /= np.maximum(weights.sum(axis=(1, 2), keepdims=True), 1e-9)
    x, y = (values - (weights * values).sum(axis=(1, 2), keepdims=True) for values in (turned, straight))
    xy, xx, yy = ((weights * product).sum(axis=(1, 2)) for product in (x * y, x * x, y * y))
    correlations = xy / np.sqrt(np.maximum(xx * yy, 1e-12))
    best = int(correlations.argmax())
    cast, hue = (
        [np.einsum("ij,ijc->c", weights[best], np.nan_to_num(values)) for values in (orient(pair[0], best), pair[1])]
        for pair in ((one.density, other.density), (one.tissue, other.tissue))
    )
    off = np.ptp([colour - colour.mean() for colour in cast], axis=0).max() > SAME_CAST
    off |= np.ptp([colour / max(colour.mean(), 1e-9) for colour in hue], axis=0).max() > SAME_HUE
    return correlations, bool(off)


def _all_orientations(picture: np.ndarray) -> np.ndarray:
    """A square picture in each orientation, (8, n, n)."""
    return np.stack([orient(picture, k) for k in range(8)])


def _means(picture: np.ndarray, side: int) -> np.ndarray:
    """Mean colours of ``side`` × ``side`` parts, exact where a pixel lies in several."""
    shares = []
    for n in picture.shape[:2]:
        edges, pixel = np.linspace(0, n, side + 1), np.arange(n)
        overlap = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
        shares.append(np.clip(overlap, 0, None) * side / n)
    rows = np.tensordot(shares[0], picture.astype(float), 1)
    return np.moveaxis(np.tensordot(shares[1], rows, (1, 1)), 0, 1)
