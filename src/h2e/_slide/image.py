"""A lazy RGB pyramid, coarse readings of it, and the recognition of a slide by them."""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np

SAME_IMAGE = 0.06
"""How much of what is not glass may differ between two images of one slide: resolution and compression make less than
half of it, two sections of one block more than seven times as much."""


@dataclass(frozen=True, eq=False)
class Image:
    """A lazy RGB pyramid."""

    key: str  # name in sdata.images
    levels: tuple[da.Array, ...]  # each (3, y, x) uint8, finest first; nothing is read
    scales: tuple[float, ...]  # pixels of level 0 per pixel of the level: (1.0, 2.0, 4.0, …)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0."""
        return self.levels[0].shape[1:]

    def level_at(self, scale: float) -> int:
        """The coarsest level whose pixels are no larger than ``scale`` pixels of level 0."""
        fine_enough = [i for i, s in enumerate(self.scales) if s <= scale * (1 + 1e-6)]
        return fine_enough[-1] if fine_enough else 0


def read_coarse(image: Image, scale: float) -> tuple[np.ndarray, float]:
    """Read an image with about ``scale`` level-0 pixels per pixel: ``uint8`` (y, x, 3), and its exact scale."""
    level = image.level_at(scale)
    factor = max(1, int(scale / image.scales[level] + 1e-6))
    array = image.levels[level]
    if factor > 1:
        # Block means; the last block is completed with the edge. Chunks stay about as large as the largest that there
        # is: a thin one at the border must not set the size of all.
        pad = [(0, 0), *((0, -n % factor) for n in array.shape[1:])]
        chunks = {0: -1, **{i: factor * max(1, max(array.chunks[i]) // factor) for i in (1, 2)}}
        array = da.pad(array, pad, mode="edge").rechunk(chunks)
        array = (da.coarsen(np.mean, array, {1: factor, 2: factor}) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(array.compute(), 0, -1)), image.scales[level] * factor


def thumbnail(image: Image) -> np.ndarray:
    """Mean colours of 12 × 12 parts of an image, (12, 12, 3): what a slide is recognized by, at any resolution."""
    return area_means(read_coarse(image, max(image.shape) / 512)[0], 12)


def area_means(picture: np.ndarray, side: int) -> np.ndarray:
    """Mean colours of ``side`` × ``side`` parts of a picture, exact where a pixel lies in several."""
    rows, columns = (_shares(n, side) for n in picture.shape[:2])
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, picture.astype(float), 1), (1, 1)), 0, 1)


def _shares(n: int, side: int) -> np.ndarray:
    """What share each of ``n`` pixels has in each of ``side`` parts of a line, (side, n)."""
    edges, pixel = np.linspace(0, n, side + 1), np.arange(n)
    overlap = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    return overlap.clip(0) * side / n


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
