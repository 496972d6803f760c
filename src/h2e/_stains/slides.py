"""Sample, measure and map slides: stain normalization without SpatialData."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from h2e._slide.image import Image
from h2e._slide.slide import Slide, by_image
from h2e._slide.tiles import read_windows
from h2e._slide.tissue import Tissue, fraction_at
from h2e._stains.estimation import estimate_stains
from h2e._stains.maps import map_image
from h2e._stains.reference import Method, StainReference, from_squidpy, sampling_of
from h2e._warnings import refuse

UM_PER_PX = 2.0
"""Resolution at which stains are looked at: nuclei are seen, single pixels are not noise."""

LONG_SIDE = 4096
"""Without a known resolution, the level whose longer side is nearest to this."""

N_PIXELS = 100_000
"""Pixels that are kept of a slide."""

POOLED = 2_000_000
"""Pixels that a pooled reference is estimated from at most."""


def stain_level(image: Image, um_per_px: float | None = None) -> int:
    """The level nearest to 2 µm per pixel or, where that is not known, to 4,096 pixels along the longer side."""
    ratios = [max(level.shape[1:]) / LONG_SIDE for level in image.levels]
    if um_per_px is not None:
        ratios = [um_per_px * scale / UM_PER_PX for scale in image.scales]
    return int(np.argmin(np.abs(np.log(ratios))))


def sample_tissue(
    image: Image, tissue: Tissue, *, um_per_px: float | None, n_patches: int = 16, patch_px: int = 256, seed: int = 0
) -> np.ndarray:
    """Colours of tissue (n, 3), from patches of which at least half is tissue; of at most 100,000 pixels.

    Patches lie on a grid and are drawn without replacement; where too few have half of their area in tissue, those
    with most of it are taken. Only the chunks under the patches are read.
    """
    (mask, mask_scale), level = tissue, stain_level(image, um_per_px)
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


def fit_reference(slides: Iterable[Slide], *, method: Method = "macenko", **sampling: Any) -> StainReference:
    """The stains that slides have in common, each with the same weight; those with next to no tissue are left out.

    The slides know their tissue; several slides on one image are one. ``sampling`` is that of ``sample_tissue``.
    """
    images, samples = by_image(list(slides)), {}
    for key, slide in images.items():
        samples[key] = sample_tissue(slide.image, slide.require_tissue(), um_per_px=slide.um_per_px, **sampling)
    most = max(map(len, samples.values()), default=0)
    samples = {key: sample for key, sample in samples.items() if len(sample) >= max(min(most, 1000), 1)}
    size = min(most, POOLED // max(len(samples), 1))
    pooled = [sample[np.arange(size) % len(sample)] for sample in samples.values()]
    stains = estimate_stains(np.concatenate(pooled), method) if pooled else None
    if stains is None:
        refuse(f"no stained tissue on {list(images)} to estimate stains from; check the masks, or pass a reference.")
    return replace(stains, **sampling, images=tuple(samples))


def slide_stains(
    image: Image, tissue: Tissue, reference: StainReference, *, um_per_px: float | None = None
) -> StainReference | None:
    """The stains of one slide, measured as the reference was; ``None`` if there are fewer than 200 stained pixels."""
    pixels = sample_tissue(image, tissue, um_per_px=um_per_px, **sampling_of(reference))
    about: dict[str, Any] = {"background": reference.background, "percentile": reference.percentile}
    stains = estimate_stains(pixels, reference.method, **about, space=reference.space or "cielab")
    return None if stains is None else replace(stains, **sampling_of(reference))


def normalize_image(
    image: Image, tissue: Tissue, reference: StainReference, *, um_per_px: float | None, keep_residual: bool = True
) -> Image:
    """An image with the stains of a reference, lazily: what ``normalize_stains`` writes."""
    slide = slide_stains(image, tissue, reference, um_per_px=um_per_px)
    return map_image(image, slide, reference, tissue, keep_residual=keep_residual)


def as_reference(given: object, method: Method | None = None) -> StainReference:
    """A reference from a reference, from one of squidpy, or from an RGB image, all of which is then tissue."""
    if isinstance(given, StainReference):
        if method not in (None, given.method):
            refuse(f"method must be that of the reference, {given.method!r}, got {method!r}.")
        return given
    if hasattr(given, "stain_matrix") and hasattr(given, "mu"):
        return as_reference(from_squidpy(given), method)
    pixels = np.asarray(given)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or not {pixels.shape[0], pixels.shape[2]} & {3, 4}:
        msg = f"reference must be a StainReference or an 8-bit RGB image, got {type(given).__name__} of "
        refuse(msg + f"{pixels.dtype} with shape {pixels.shape}.", TypeError)
    if pixels.shape[2] not in (3, 4):
        pixels = pixels.transpose(1, 2, 0)
    stains = estimate_stains(pixels[..., :3].reshape(-1, 3), method or "macenko")
    if stains is None:
        refuse("the reference image must show stained tissue, got none.")
    return stains
