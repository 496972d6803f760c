"""How good the image of a slide is: sharpness, saturation and hue of its tissue, seen at a coarse level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter

from h2e._slide.image import Image, read_coarse
from h2e._slide.slide import Slide, by_image
from h2e._slide.tissue import Tissue, density_against_glass, opaque_areas
from h2e._warnings import warn

PIXEL_UM = 8.0
"""Largest pixel of what is read. Details of 4 to 8 µm are compared with those of 8 to 16 µm: every slide shows them, and
one slide read with pixels of 1.4 and of 5.5 µm is equally sharp to 0.1."""

SIGMAS_UM = (4.0, 8.0, 16.0)
"""Blurs whose differences are those details."""

FEW = 200
"""Fewer pixels of tissue tell nothing."""

HUES = (220.0, 345.0)
"""Hue of the tissue of an H&E, blue-violet to pink. Eleven slides (her2st, mob, visium_mini) have 243° to 296°, nine
pictures of other laboratories, from bluish and faded to reddish ones, 260° to 322°; a DAB stain has 33°."""

TURN = 4.0
"""Degrees by which dense tissue may be redder than the rest. Nuclei make it bluer: by 6° to 22° on those slides, by 1°
(mostly fat) to 28° on those pictures. Exchanging red and blue changes the sign, so the half of the gap that is on the
side of the H&E is left to tissue with blood, and to red muscle."""

TOLERANCES = {"on_tissue": 0.1, "sharpness": 0.6, "saturation": 0.2, "hue": 40.0}
"""Differences between slides that are never odd. Slides of her2st differ by at most 0, 0.3, 0.1 and 16°, of mob by
less; a blur of 4 µm (standard deviation) takes away 0.4 of the sharpness, one of 6 µm 0.8."""

MADS, ENOUGH = 3.5, 5
"""A slide is odd where it is this many (normalized) median absolute deviations from the median of so many slides; of
fewer nothing can be said."""


class Quality(NamedTuple):
    """Figures of the tissue of an image; NaN where they are not known."""

    sharpness: float = np.nan  # log2 of the contrast of details of 4 to 8 µm over that of 8 to 16 µm
    saturation: float = np.nan  # of its mean colour, against the glass: 0 gray, 1 pure
    hue: float = np.nan  # of its mean colour, in degrees: 0 red, 120 green, 240 blue, 300 magenta
    turn: float = np.nan  # by how many degrees its dense half is redder (below 0: bluer) than all of it

    def known(self) -> dict[str, float]:
        """The figures that slides are compared in, where they are known, as JSON can hold them."""
        return {name: float(v) for name, v in self._asdict().items() if name in TOLERANCES and np.isfinite(v)}


def measure_quality(image: Image, tissue: Tissue, um_per_px: float | None) -> Quality:
    """Figures of an image, from one reading of it; without the size of a pixel its sharpness is not known."""
    mask, mask_scale = tissue
    rgb, scale = read_coarse(image, mask_scale if um_per_px is None else PIXEL_UM / um_per_px)
    opaque = opaque_areas(rgb)
    row, column = (((np.arange(n) + 0.5) * scale / mask_scale).astype(int) for n in opaque.shape)
    inside = mask[np.ix_(row.clip(max=mask.shape[0] - 1), column.clip(max=mask.shape[1] - 1))] & ~opaque
    if inside.sum() < FEW:
        return Quality()
    # What is beside the tissue is blurred into it as far as this.
    margin = 0 if um_per_px is None else int(4 * max(SIGMAS_UM) / (scale * um_per_px)) + 1
    box = tuple(slice(max(along.start - margin, 0), along.stop + margin) for along in find_objects(inside * 1)[0])
    density, inside = np.stack([channel[box] for channel in density_against_glass(rgb, opaque)]), inside[box]
    absorbed = density[:, inside]
    total, mean = absorbed.sum(axis=0), absorbed.mean(axis=1)
    dense = total >= np.median(total)
    if dense.all() or np.ptp(mean) < 1e-3:
        return Quality(saturation=0.0)
    more = absorbed[:, dense].mean(axis=1) - absorbed[:, ~dense].mean(axis=1)
    # Tissue of one density has no dense part.
    turn = (hue_of(more) - hue_of(mean) + 180) % 360 - 180 if np.ptp(more) > 0.02 else np.nan
    sharpness = np.nan if um_per_px is None else sharpness_of(density.mean(axis=0), inside, scale * um_per_px)
    return Quality(sharpness, float(1 - np.exp(-np.ptp(mean))), hue_of(mean), turn)


def hue_of(absorbed: np.ndarray) -> float:
    """Hue, in degrees, of the light that is left where so much red, green and blue is absorbed.

    Examples
    --------
    >>> hue_of(np.array([0, 1, 1])), hue_of(np.array([1, 1, 0])), hue_of(np.array([0, 1, 0]))
    (0.0, 240.0, 300.0)
    """
    red, green, blue = -np.asarray(absorbed, float)
    return round(float(np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360), 3)


def sharpness_of(density: np.ndarray, inside: np.ndarray, px_um: float) -> float:
    """Contrast of fine over that of coarser details in the sharpest tenth of the tissue; NaN if pixels are larger."""
    if px_um > PIXEL_UM * 1.01:
        return np.nan
    # A pixel is a blur by itself.
    sigmas = [np.sqrt(sigma**2 - px_um**2 / 12) / px_um for sigma in SIGMAS_UM]
    bands = np.diff([gaussian_filter(density, sigma)[inside] for sigma in sigmas], axis=0)
    fine, coarse = np.percentile(np.abs(bands), 90, axis=1).clip(1e-6)
    return float(np.log2(fine / coarse))


def measure_slides(slides: Sequence[Slide]) -> dict[str, Quality]:
    """Figures of each slide, by its name; an image is read once. The slides know their tissue."""
    images = by_image(slides).items()
    figures = {key: measure_quality(one.image, one.require_tissue(), one.um_per_px) for key, one in images}
    return {slide.name: figures[slide.image.key] for slide in slides}


def unlike_he(quality: Quality) -> str:
    """In words, how the colours of tissue differ from those of an H&E; empty if they do not.

    Examples
    --------
    >>> unlike_he(Quality(hue=33.0, turn=1.0))
    'its tissue has the hue 33°'
    >>> unlike_he(Quality(hue=280.0, turn=-9.0))
    ''
    """
    if quality.hue < HUES[0] or quality.hue > HUES[1]:
        return f"its tissue has the hue {quality.hue:.0f}°"
    return f"its dense tissue is redder than the rest by {quality.turn:.0f}° of hue" if quality.turn > TURN else ""


def warn_of_colours(figures: Mapping[str, Quality]) -> None:
    """Warn, once, of slides whose colours are not those of an H&E."""
    if unlike := [f"{name}: {words}" for name, figure in figures.items() if (words := unlike_he(figure))]:
        msg = f"these slides do not have the colours of an H&E: {'; '.join(unlike)}. The hue of an H&E is between "
        msg += f"{HUES[0]:.0f}° and {HUES[1]:.0f}°, and nuclei make dense tissue bluer. Is it another stain, or are "
        msg += "red and blue exchanged (BGR)? Then reverse the order of the channels, or their names."
        warn(msg)


def odd_ones(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Which values lie far from the others of a cohort, (n,); none where there are too few to tell.

    Examples
    --------
    >>> odd_ones(np.array([1.0, 1.1, 0.9, 1.0, 3.0, np.nan]), 0.5).tolist()
    [False, False, False, False, True, False]
    """
    distance = np.abs(values - np.nanmedian(values)) if np.isfinite(values).sum() >= ENOUGH else np.zeros(len(values))
    return distance > max(MADS * 1.4826 * float(np.nanmedian(distance)), tolerance)
