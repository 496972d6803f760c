"""Recognize a slide by its pixels, at any resolution."""

from __future__ import annotations

import numpy as np

from h2e._slide.image import Image, read_coarse

SAME_IMAGE = 0.06
"""How much of what is not glass may differ between two images of one slide: resolution and compression make less than
half of it, two sections of one block more than seven times as much."""


def thumbnail(image: Image) -> np.ndarray:
    """Mean colours of 12 × 12 parts of an image, (12, 12, 3): what a slide is recognized by, at any resolution."""
    pixels, _ = read_coarse(image, max(image.shape) / 512)
    rows, columns = (np.linspace(0, n, 13).astype(int) for n in pixels.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(float), rows[:-1], axis=0), columns[:-1], axis=1)
    return sums / (np.diff(rows)[:, None] * np.diff(columns))[..., None]


def same_image(colours: np.ndarray, others: np.ndarray) -> bool:
    """Whether two thumbnails are of one slide: they differ little, compared with what they show beside glass.

    Examples
    --------
    >>> scan = np.full((12, 12, 3), 245.0)
    >>> scan[5] = 120
    >>> same_image(scan, scan + 0.5), same_image(scan, np.roll(scan, 1, axis=0))
    (True, False)
    """
    shown = max(np.abs(x - np.median(x, axis=(0, 1))).sum() for x in (colours, others))
    return bool(np.abs(colours - others).sum() <= SAME_IMAGE * shown)
