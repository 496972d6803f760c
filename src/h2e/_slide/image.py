"""A lazy RGB pyramid, coarse readings of it, and the recognition of a slide by them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import dask.array as da
import numpy as np

from h2e._slide.windows import Windows, read

OVERVIEW_PX = 2048
"""Longest side of the overview of an image, which is kept (12 MiB at most) where the pyramid has no such level."""

WINDOW_PX = 512
"""About the side of the windows that an image is read in where all of it is."""

SAME_IMAGE = 0.06
"""How much of what is not glass may differ between two images of one slide: resolution and compression make less than
half of it, two sections of one block more than seven times as much."""


@dataclass(frozen=True, eq=False)
class Image:
    """A lazy RGB pyramid."""

    key: str  # name in sdata.images
    levels: tuple[da.Array, ...]  # each (3, y, x) uint8, finest first; nothing is read
    scales: tuple[float, ...]  # pixels of level 0 per pixel of the level: (1.0, 2.0, 4.0, …)

    def __getstate__(self) -> dict[str, object]:
        """Everything but the overview, which is not sent to a cluster."""
        return {name: value for name, value in vars(self).items() if name != "overview"}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0."""
        return self.levels[0].shape[1:]

    def level_at(self, scale: float) -> int:
        """The coarsest level whose pixels are no larger than ``scale`` pixels of level 0."""
        fine_enough = [i for i, s in enumerate(self.scales) if s <= scale * (1 + 1e-6)]
        return fine_enough[-1] if fine_enough else 0

    @property
    def overview_scale(self) -> float:
        """Pixels of level 0 per pixel of the overview, about."""
        return 2.0 ** max(0, int(np.ceil(np.log2(max(self.shape) / OVERVIEW_PX))))

    @cached_property
    def overview(self) -> Image:
        """The image in ``OVERVIEW_PX`` pixels at most, in memory."""
        means, scale = _block_means(self, self.overview_scale)
        return Image(self.key, (da.from_array(means, chunks=-1, name=False),), (scale,))


def read_coarse(image: Image, scale: float) -> tuple[np.ndarray, float]:
    """Read an image with about ``scale`` level-0 pixels per pixel: ``uint8`` (y, x, 3), and its exact scale.

    Where no level of a pyramid is as coarse as the overview, it is made once, in one pass, and coarser readings of it.
    """
    finest = image.scales[image.level_at(scale)]
    if image.overview_scale <= scale and (finest == image.scales[0] or finest < image.overview_scale):
        image = image.overview
    means, scale = _block_means(image, scale)
    return np.ascontiguousarray(np.moveaxis(means, 0, -1)), scale


def _block_means(image: Image, scale: float) -> tuple[np.ndarray, float]:
    """Mean colours of square blocks, ``uint8`` (3, y, x), and their exact scale; the edge completes the last blocks."""
    level = image.level_at(scale)
    factor = max(1, int(scale / image.scales[level] + 1e-6))
    px = max(1, WINDOW_PX // factor)
    height, width = (-(-n // factor) for n in image.levels[level].shape[1:])
    y, x = np.meshgrid(np.arange(0, height, px), np.arange(0, width, px), indexing="ij")
    windows = Windows(level, factor * np.column_stack([x.ravel(), y.ravel()]), px * factor, px)
    (tiles,) = read(image.levels, [windows], image.key)
    means = tiles.reshape(*y.shape, 3, px, px).transpose(2, 0, 3, 1, 4).reshape(3, y.shape[0] * px, -1)
    return means[:, :height, :width], image.scales[level] * factor


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
