"""Where the tissue is: a mask of an image at low resolution, and how much of a square it covers."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from h2e._slide.image import Image, read_coarse
from h2e._warnings import refuse, refuse_if

Tissue = tuple[np.ndarray, float]
"""A mask, and how many pixels of level 0 one of its pixels is wide."""

Method = Literal["otsu", "mean"]
METHODS = get_args(Method)

SIDE_PX = {"otsu": 1024, "mean": 2048}
"""About the longest side of a mask; the method "mean" was made for images of 2000 px."""

COARSEST_UM = 16.0
"""Largest pixel of a mask, where µm are known: a sixth of a Visium spacing."""

AREA_UM2, AREA_FRAC = 50_000.0, 1e-3
"""Specks and holes smaller than this are removed: 5,000 px of a 2000-px ST image, half a Visium spot's cell; where µm
are not known, a share of the image."""

BLACK = 40
"""Brightest channel of what lets no light through."""

COLOURED = 0.2
"""Optical density of green over that of red or blue: where even the brightest pixel has it, no glass is in view."""

MIN_CONTRAST, MAX_CONTRAST = 0.03, 0.12
"""Below: noise of empty glass. Above: tissue even where no glass is seen."""


def tissue_mask(
    image: Image, *, method: Method = "otsu", um_per_px: float | None = None, scale: float | None = None
) -> Tissue:
    """Find the tissue in a pyramid, reading only a coarse level.

    Parameters
    ----------
    image
        Pyramid, as ``h2e._sdata.images.open_image`` gives it.
    method
        ``"otsu"`` or ``"mean"``; see :func:`detect_tissue`.
    um_per_px
        µm per pixel of level 0, for the area filters; ``None`` measures areas as shares of the image.
    scale
        Pixels of level 0 per pixel of the mask; ``None`` chooses.

    Returns
    -------
    The mask (``bool``), and how many pixels of level 0 one of its pixels covers.
    """
    refuse_if(method not in METHODS, f"method must be one of {list(METHODS)}, got {method!r}.")
    if scale is not None and not 1 <= scale <= max(image.shape):
        refuse(f"scale must be between 1 and {max(image.shape)} image pixels per mask pixel, got {scale!r}.")
    wanted = _choose_scale(image.shape, method, um_per_px) if scale is None else float(scale)
    rgb, scale = read_coarse(image, wanted)
    if method == "mean":
        return mean_mask(rgb), scale
    area_px = AREA_FRAC * rgb[..., 0].size if um_per_px is None else AREA_UM2 / (um_per_px * scale) ** 2
    return otsu_mask(rgb, area_px=area_px), scale


def mean_mask(rgb: np.ndarray) -> np.ndarray:
    """Darker than the mean gray, closed with a disk of 2 px, holes up to 5,000 px filled."""
    from skimage.color import rgb2gray
    from skimage.morphology import closing, disk, remove_small_holes

    gray = rgb2gray(rgb)
    return remove_small_holes(closing(gray <= gray.mean(), disk(2)), max_size=5000)


def otsu_mask(rgb: np.ndarray, *, area_px: float) -> np.ndarray:
    """Coloured like a stain and textured like tissue, against this image's glass; without specks and small holes."""
    from skimage.filters import threshold_otsu

    opaque = opaque_areas(rgb)
    if opaque.all():
        return np.zeros(opaque.shape, bool)
    red, green, blue, texture = _optical_density(rgb, opaque)
    chroma = _stain_chroma(red, green, blue)
    contrast = np.sqrt(chroma * texture)
    seen = np.maximum(contrast[~opaque], 0.01)
    low, high = MIN_CONTRAST, MAX_CONTRAST
    # Glass and tissue lie decades apart, so the split between them is one of logarithms.
    if seen.max() > MIN_CONTRAST:
        low = float(np.clip(np.exp(threshold_otsu(np.log(seen))), low, high))
        high = float(np.clip(threshold_otsu(seen), low, high))
    mask = (contrast > low) & ~opaque & ~_insets(opaque)
    return _clean(mask, strong=contrast > high, chroma=chroma, green=green, area_px=area_px)


def _choose_scale(shape: tuple[int, int], method: str, um_per_px: float | None) -> float:
    """A power of two that leaves about ``SIDE_PX`` pixels, and mask pixels of 16 µm at most."""
    scale = 2.0 ** max(0, round(np.log2(max(shape) / SIDE_PX[method])))
    if um_per_px is not None:
        scale = min(scale, 2.0 ** max(0, int(np.log2(COARSEST_UM / um_per_px))))
    return scale


def opaque_areas(rgb: np.ndarray) -> np.ndarray:
    """Large black areas with their soft edge: the frame of a scan, or what an image was cut out on."""
    from skimage.morphology import remove_small_objects

    # Channel by channel, which is ten times faster than along the last axis.
    black = np.logical_and.reduce([rgb[..., c] < BLACK for c in range(3)])
    # A fold or a pigment is smaller.
    size = int(0.005 * black.size)
    if black.sum() <= size:
        return np.zeros_like(black)
    return ndimage.binary_dilation(remove_small_objects(black, max_size=size), iterations=2)


def _insets(opaque: np.ndarray) -> np.ndarray:
    """Pictures pasted on black, such as a thumbnail or a label: rectangles, other than the largest area not black."""
    from skimage.measure import label, regionprops

    inset = np.zeros(opaque.shape, bool)
    areas = sorted(regionprops(label(~opaque, connectivity=1)), key=lambda area: -area.num_pixels)
    for area in areas[1:]:
        inset[area.slice] |= area.extent > 0.97
    return inset


def density_against_glass(rgb: np.ndarray, opaque: np.ndarray) -> list[np.ndarray]:
    """Optical densities of red, green and blue against the glass; 0 in opaque areas."""
    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
    glass = []
    for c in range(3):
        # Brighter than nearly everything.
        counts = np.cumsum(np.bincount(rgb[..., c][~opaque], minlength=256))
        glass.append(int(np.searchsorted(counts, 0.95 * counts[-1])))
    if density[glass[1]] - density[max(glass[0], glass[2])] > COLOURED:
        glass = [max(glass)] * 3
    return [np.where(opaque, 0, (density - density[glass[c]])[rgb[..., c]]) for c in range(3)]


def _optical_density(rgb: np.ndarray, opaque: np.ndarray) -> tuple[np.ndarray, ...]:
    """Smoothed optical densities of red, green and blue against the glass, and the local contrast of green."""
    channels = density_against_glass(rgb, opaque)
    red, green, blue = (_blur(channel) for channel in channels)
    texture = np.sqrt(np.maximum(_blur(channels[1] ** 2) - green**2, 0))
    return red, green, blue, texture


def _blur(channel: np.ndarray) -> np.ndarray:
    """Two running means of 5 px."""
    return ndimage.uniform_filter(ndimage.uniform_filter(channel, 5), 5)


def _stain_chroma(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """How much more green is absorbed than the weaker of red and blue: by the stains, not by grays and green pens."""
    chroma = green - np.minimum(red, blue)
    # Blue pens absorb red far more than haematoxylin does.
    chroma -= 2 * np.maximum(red - 1.2 * green, 0)
    red_pen = (green > 0.1) & (blue > 0.85 * green) & (red < 0.35 * green)
    chroma[red_pen] = 0
    return np.maximum(chroma, 0)


def _clean(
    mask: np.ndarray, *, strong: np.ndarray, chroma: np.ndarray, green: np.ndarray, area_px: float
) -> np.ndarray:
    """Keep pieces that are large, partly of strong contrast and not gray; fill small holes in them."""
    from skimage.morphology import remove_small_holes

    labels, n = ndimage.label(mask)
    total = partial(np.bincount, labels.ravel(), minlength=n + 1)
    sizes = np.maximum(total(), 1)
    share_strong = total(strong.ravel()) / sizes
    colour = total(chroma.ravel()) / np.maximum(total(green.ravel()), 1e-6)
    # Smooth pink haze is not strong; bubbles, dust and marks on the glass have no colour.
    keep = (share_strong > 0.1) & (colour > 0.15)
    keep[0] = False
    keep &= sizes >= max(area_px, 0.01 * sizes[keep].max(initial=0))
    mask = keep[labels]
    return remove_small_holes(mask, max_size=int(np.ceil(area_px)) - 1) if mask.any() else mask


def fraction_at(mask: np.ndarray, scale: float, xy: np.ndarray, side_px: float) -> np.ndarray:
    """Share of tissue in the square of ``side_px`` around each position, ``float32``; beside the image there is none.

    ``xy`` and ``side_px`` are in pixels of level 0, ``scale`` of which make a pixel of the mask. Exact for any
    position: the integral of a mask is bilinear inside each of its pixels.

    Examples
    --------
    >>> mask = np.array([[True, False], [True, False]])
    >>> fraction_at(mask, 10.0, np.array([[10.0, 10.0], [5.0, 5.0], [0.0, 10.0]]), 10.0)
    array([0.5, 1. , 0.5], dtype=float32)
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=float).cumsum(axis=1)
    half = side_px / 2

    def up_to(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Tissue above and left of a point."""
        x, y = np.clip(x / scale, 0, mask.shape[1]), np.clip(y / scale, 0, mask.shape[0])
        i, j = np.minimum(x.astype(int), mask.shape[1] - 1), np.minimum(y.astype(int), mask.shape[0] - 1)
        u, v = x - i, y - j
        top = integral[j, i] * (1 - u) + integral[j, i + 1] * u
        bottom = integral[j + 1, i] * (1 - u) + integral[j + 1, i + 1] * u
        return top * (1 - v) + bottom * v

    x0, x1, y0, y1 = xy[:, 0] - half, xy[:, 0] + half, xy[:, 1] - half, xy[:, 1] + half
    tissue = up_to(x1, y1) - up_to(x0, y1) - up_to(x1, y0) + up_to(x0, y0)
    share = np.clip(tissue * (scale / side_px) ** 2, 0, 1)
    # Rounding of the sums must not make a spot valid.
    return np.where(share < 1e-6, 0, share).astype(np.float32)
