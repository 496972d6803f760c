"""Pixels of tissue, sampled alike from every slide."""

from __future__ import annotations

import numpy as np

from h2e._slide.fraction import fraction_at
from h2e._slide.image import Image
from h2e._slide.tiles import read_windows

UM_PER_PX = 2.0
"""Resolution at which stains are looked at: nuclei are seen, single pixels are not noise."""

LONG_SIDE = 4096
"""Without a known resolution, the level whose longer side is nearest to this."""

N_PIXELS = 100_000
"""Pixels that are kept of a slide."""


def stain_level(image: Image, um_per_px: float | None = None) -> int:
    """The level nearest to 2 µm per pixel or, where that is not known, to 4,096 pixels along the longer side."""
    ratios = [max(level.shape[1:]) / LONG_SIDE for level in image.levels]
    if um_per_px is not None:
        ratios = [um_per_px * scale / UM_PER_PX for scale in image.scales]
    return int(np.argmin(np.abs(np.log(ratios))))


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
    scale = image.scales[level]
    height, width = image.levels[level].shape[1:]
    corners = np.stack(np.meshgrid(np.arange(0, width, patch_px), np.arange(0, height, patch_px)), -1).reshape(-1, 2)
    share = fraction_at(mask, mask_scale, (corners + patch_px / 2) * scale, patch_px * scale)
    random = np.random.default_rng(seed)
    order = random.permutation(len(corners))
    enough = order[share[order] >= 0.5][:n_patches]
    rest = order[(share[order] < 0.5) & (share[order] > 0)]
    rest = rest[np.argsort(-share[rest], kind="stable")][: n_patches - len(enough)]
    chosen = np.sort(np.concatenate([enough, rest]))
    if len(chosen) == 0:
        return np.empty((0, 3), np.uint8)
    patches = read_windows(image, level, corners[chosen], patch_px)
    # Which pixels of each patch are tissue.
    x, y = np.moveaxis(corners[chosen, :, None] + np.arange(patch_px), 1, 0)
    column = np.minimum(((x + 0.5) * scale / mask_scale).astype(int), mask.shape[1] - 1)
    row = np.minimum(((y + 0.5) * scale / mask_scale).astype(int), mask.shape[0] - 1)
    inside = mask[row[:, :, None], column[:, None]] & (y < height)[:, :, None] & (x < width)[:, None]
    pixels = patches.transpose(0, 2, 3, 1)[inside]
    if len(pixels) > N_PIXELS:
        pixels = pixels[random.choice(len(pixels), N_PIXELS, replace=False)]
    return pixels
