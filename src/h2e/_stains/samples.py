"""Pixels of tissue, sampled alike from every slide."""

from __future__ import annotations

import numpy as np

from h2e._slide import tiles as _tiles
from h2e._slide.image import Image

UM_PER_PX = 2.0
"""Resolution at which stains are looked at: nuclei are seen, single pixels are not noise."""

LONG_SIDE = 4096
"""Without a known resolution, the level whose longer side is nearest to this."""

N_PIXELS = 100_000
"""Pixels that are kept of a slide."""


def stain_level(image: Image, um_per_px: float | None = None) -> int:
    """The level nearest to 2 µm per pixel or, where that is not known, to 4,096 pixels along the longer side."""
    if um_per_px is None:
        distance = [abs(np.log(max(level.shape[1:]) / LONG_SIDE)) for level in image.levels]
    else:
        distance = [abs(np.log(um_per_px * scale / UM_PER_PX)) for scale in image.scales]
    return int(np.argmin(distance))


def sample_tissue(
    image: Image,
    mask: np.ndarray,
    mask_scale: float,
    *,
    um_per_px: float | None = None,
    n_patches: int = 16,
    patch_px: int = 256,
    seed: int = 0,
) -> np.ndarray:
    """Colours of tissue (n, 3), from patches of which at least half is tissue; of at most 100,000 pixels.

    Patches lie on a grid and are drawn without replacement; where too few have half of their area in tissue, those
    with most of it are taken. Only the chunks under the patches are read.
    """
    level = stain_level(image, um_per_px)
    ratio = image.scales[level] / mask_scale
    height, width = image.levels[level].shape[1:]
    corners = np.stack(np.meshgrid(np.arange(0, width, patch_px), np.arange(0, height, patch_px)), -1).reshape(-1, 2)
    share = _share(mask, corners, ratio, patch_px)
    random = np.random.default_rng(seed)
    order = random.permutation(len(corners))
    enough = order[share[order] >= 0.5][:n_patches]
    rest = order[(share[order] < 0.5) & (share[order] > 0)]
    rest = rest[np.argsort(-share[rest], kind="stable")][: n_patches - len(enough)]
    chosen = np.sort(np.concatenate([enough, rest]))
    if len(chosen) == 0:
        return np.empty((0, 3), np.uint8)
    patches = _tiles.read_windows(image, level, corners[chosen], patch_px)
    inside = np.stack([_inside(mask, corner, ratio, patch_px, (height, width)) for corner in corners[chosen]])
    pixels = patches.transpose(0, 2, 3, 1)[inside]
    if len(pixels) > N_PIXELS:
        pixels = pixels[random.choice(len(pixels), N_PIXELS, replace=False)]
    return pixels


def _share(mask: np.ndarray, corners: np.ndarray, ratio: float, patch_px: int) -> np.ndarray:
    """Share of each patch that is tissue, from running sums of the mask; what is beyond the image is not."""
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    first = np.floor(corners * ratio).astype(np.int64)
    last = np.ceil((corners + patch_px) * ratio).astype(np.int64)
    (x0, y0), (x1, y1) = ((np.clip(c, 0, np.array(mask.shape[::-1])).T) for c in (first, last))
    covered = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return covered / np.prod(np.maximum(last - first, 1), axis=1)


def _inside(mask: np.ndarray, corner: np.ndarray, ratio: float, patch_px: int, shape: tuple[int, int]) -> np.ndarray:
    """Which pixels of a patch are tissue, (patch_px, patch_px)."""
    axis = np.arange(patch_px)
    x, y = corner[0] + axis, corner[1] + axis
    columns = np.minimum(((x + 0.5) * ratio).astype(np.int64), mask.shape[1] - 1)
    rows = np.minimum(((y + 0.5) * ratio).astype(np.int64), mask.shape[0] - 1)
    return mask[rows[:, None], columns] & (y < shape[0])[:, None] & (x < shape[1])
