"""Where the tissue is: a mask of an image at low resolution."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from h2e._slide.image import Image, read_coarse

Tissue = tuple[np.ndarray, float]
"""A mask, and how many pixels of level 0 one of its pixels is wide."""

Method = Literal["otsu", "mean"]
METHODS = get_args(Method)
SIDE_PX = {"otsu": 1024, "mean": 2048}  # about the longest side of a mask; method-mean was made for images of 2000 px
COARSEST_UM = 16.0  # of a mask pixel, where µm are known: a sixth of a Visium spacing
AREA_UM2 = 50_000.0  # specks and holes smaller than this: 5,000 px of a 2000-px ST image, half a Visium spot's cell
AREA_FRAC = 1e-3  # the same as a share of the image, where µm are not known
BLACK = 40  # brightest channel of what lets no light through
COLOURED = (
    0.2  # optical density of green over that of red or blue: where even the brightest has it, no glass is in view
)
MIN_CONTRAST, MAX_CONTRAST = 0.03, 0.12  # below: noise of empty glass; above: tissue even where no glass is seen


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
    if method not in METHODS:
        msg = f"method must be one of {list(METHODS)}, got {method!r}."
        raise ValueError(msg)
    if scale is not None and not 1 <= scale <= max(image.shape):
        msg = (
            f"scale must be between 1 and {max(image.shape)} pixels of the image per pixel of the mask, got {scale!r}."
        )
        raise ValueError(msg)
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
    mask = closing(gray <= gray.mean(), disk(2))
    return remove_small_holes(mask, max_size=5000)


def otsu_mask(rgb: np.ndarray, *, area_px: float) -> np.ndarray:
    """Coloured like a stain and textured like tissue, both against the glass of this image; specks and small holes removed."""
    from skimage.filters import threshold_otsu

    opaque = _opaque(rgb)
    if opaque.all():
        return np.zeros(opaque.shape, bool)
    red, green, blue, texture = _optical_density(rgb, opaque)
    chroma = _stain_chroma(red, green, blue)
    contrast = np.sqrt(chroma * texture)
    seen = np.maximum(contrast[~opaque], 0.01)
    low, high = MIN_CONTRAST, MAX_CONTRAST
    if seen.max() > MIN_CONTRAST:  # glass and tissue lie decades apart, so the split between them is one of logarithms
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


def _opaque(rgb: np.ndarray) -> np.ndarray:
    """Large black areas with their soft edge: the frame of a scan, or what an image was cut out on."""
    from scipy import ndimage

    black = rgb.max(axis=-1) < BLACK
    if not black.any():
        return black
    labels, n = ndimage.label(black)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    sizes[0] = 0
    opaque = (sizes > 0.005 * black.size)[labels]  # a fold or a pigment is smaller
    return ndimage.binary_dilation(opaque, iterations=2) if opaque.any() else opaque


def _insets(opaque: np.ndarray) -> np.ndarray:
    """Pictures pasted on black, such as a thumbnail or a label: rectangles, other than the largest thing that is not black."""
    from scipy import ndimage

    inset = np.zeros(opaque.shape, bool)
    if not opaque.any():
        return inset
    labels, _ = ndimage.label(~opaque)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        window = labels[box]
        if i != sizes.argmax() and sizes[i] > 0.97 * window.size:
            inset[box] = True
    return inset


def _optical_density(rgb: np.ndarray, opaque: np.ndarray) -> tuple[np.ndarray, ...]:
    """Smoothed optical densities of red, green and blue against the glass, and the local contrast of green."""
    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
    glass = []
    for c in range(3):
        counts = np.bincount(rgb[..., c][~opaque], minlength=256)
        glass.append(int(np.searchsorted(np.cumsum(counts), 0.95 * counts.sum())))  # brighter than nearly everything
    if density[glass[1]] - density[max(glass[0], glass[2])] > COLOURED:
        glass = [max(glass)] * 3
    channels = []
    for c in range(3):
        channel = (density - density[glass[c]])[rgb[..., c]]
        channel[opaque] = 0
        channels.append(channel)
    red, green, blue = (_blur(channel) for channel in channels)
    texture = np.sqrt(np.maximum(_blur(channels[1] ** 2) - green**2, 0))
    return red, green, blue, texture


def _blur(channel: np.ndarray) -> np.ndarray:
    """Two running means of 5 px."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(uniform_filter(channel, 5), 5)


def _stain_chroma(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """How much more green is absorbed than the weaker of red and blue: eosin and haematoxylin do, grays and green pens do not."""
    chroma = green - np.minimum(red, blue)
    chroma -= 2 * np.maximum(red - 1.2 * green, 0)  # blue pens absorb red far more than haematoxylin does
    red_pen = (green > 0.1) & (blue > 0.85 * green) & (red < 0.35 * green)
    chroma[red_pen] = 0
    return np.maximum(chroma, 0)


def _clean(
    mask: np.ndarray, *, strong: np.ndarray, chroma: np.ndarray, green: np.ndarray, area_px: float
) -> np.ndarray:
    """Keep pieces that are large, partly of strong contrast and not gray; fill small holes in them."""
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    flat = labels.ravel()
    sizes = np.maximum(np.bincount(flat, minlength=n + 1), 1)
    share_strong = np.bincount(flat, strong.ravel(), minlength=n + 1) / sizes
    grayness = np.bincount(flat, chroma.ravel(), minlength=n + 1) / np.maximum(
        np.bincount(flat, green.ravel(), minlength=n + 1), 1e-6
    )
    keep = (share_strong > 0.1) & (grayness > 0.15)  # not: smooth pink haze; bubbles, dust and marks on the glass
    keep[0] = False
    largest = sizes[keep].max(initial=0)
    keep &= sizes >= max(area_px, 0.01 * largest)
    mask = keep[labels]
    holes, n = ndimage.label(~mask)
    sizes = np.bincount(holes.ravel(), minlength=n + 1)
    fill = sizes < area_px
    fill[0] = True
    return fill[holes] if mask.any() else mask
