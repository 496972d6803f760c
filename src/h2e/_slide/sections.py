"""Whether two slides show one section under their spots, whatever their names, resolution, orientation and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations

import numpy as np
from scipy.fft import irfft2, next_fast_len
from scipy.spatial import KDTree

from h2e._slide.image import read_coarse
from h2e._slide.orientation import orient
from h2e._slide.registration import REACH, correlate, spectra
from h2e._slide.slide import Slide
from h2e._slide.tissue import fraction_at

SAME_SECTION, FEW_CELLS = 0.85, 1.0
"""Correlation of the tissue under the spots from which it is one section, and what is taken from it, by the root of the
number of cells, because few are alike somewhere on any two slides. Measured on eleven real slides and fifty synthetic
ones of 12 spots and more: copies (a half and a third of the resolution, JPEG of quality 30, other light and colours,
moved, turned, with 80 % of the spots) have 0.86 and more; other slides 0.82 and less, the real ones 0.71, pieces of them
0.81, sections of one block 0.53. A piece of half of the spots has 0.85 and more where it holds twenty; spots moved by
0.3 spacings are not always recognized."""

WORTH_A_LOOK = 0.45
"""Covariance, as a share of the smaller variance, below which the means of each overlap need not be known."""

CELL, MAX_CELLS = 0.5, 192
"""Side of a cell in spacings, and so many a side suffice: else it is doubled. Cells of copies cover the same tissue."""

MIN_OVERLAP = 0.45
"""Share of the larger slide that must overlap. What a smaller crop shows, layers or a rim, other slides have somewhere."""


def same_sections(slides: Sequence[Slide]) -> list[tuple[str, str]]:
    """Names of pairs of slides that show one section: on one image by the places of their spots, else by its pixels."""
    pairs = [(a.name, b.name) for a, b in combinations(slides, 2) if a.image is b.image and _share_places(a, b)]
    cells, read = {slide: _cell_of(slide) for slide in slides}, cache(read_coarse)
    for cell in sorted(set(cells.values())) if len({slide.image for slide in slides}) > 1 else ():
        # One of a quarter of the extent has too little of the tissue.
        some = [slide for slide in slides if cells[slide] in (cell, cell / 2)]
        sections = [_section(slide, cell, read) for slide in some]
        size = [next_fast_len(2 * max(max(density.shape) for density, _ in sections), real=True)] * 2
        known: list[np.ndarray] = []
        for slide, (density, under) in zip(some, sections, strict=True):
            turned = [spectra(orient(density, k), orient(under, k), size) for k in range(8)]
            for other, spectrum in zip(some, known, strict=False):
                asked = other.image is not slide.image and cell in (cells[slide], cells[other])
                if asked and _similarity(spectrum, turned, size) >= SAME_SECTION:
                    pairs.append((other.name, slide.name))
            known.append(turned[0])
    return pairs


def _share_places(one: Slide, other: Slide) -> bool:
    """Whether most spots of one of two slides on an image lie on spots of the other."""
    near = 0.5 * max(one.spacing_px, other.spacing_px)
    return any((KDTree(a.xy).query(b.xy)[0] < near).mean() > 0.5 for a, b in ((one, other), (other, one)))


def _cell_of(slide: Slide) -> float:
    """Side of the cells that a slide is cut into, in spacings."""
    extent = float(np.ptp(slide.xy, axis=0).max()) / slide.spacing_px
    return CELL * 2.0 ** np.ceil(np.log2(max(extent / CELL / MAX_CELLS, 1)))


def _section(slide: Slide, cell: float, read: Callable[..., tuple[np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Optical density under the spots of a slide less its mean, and which cells are under spots, (y, x) each."""
    side = cell * slide.spacing_px
    rgb, scale = read(slide.image, max(1.0, side / 2))
    # Between 0 and 1, as shares of tissue are.
    density = 1 - np.log(rgb.astype(np.float32) + 1).mean(axis=-1) / np.log(256)
    low = slide.xy.min(axis=0) - side
    columns, rows = (np.arange(int(n) + 2) for n in (slide.xy.max(axis=0) - low) / side)
    centres = low + side * (np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2) + 0.5)
    under = KDTree(slide.xy).query(centres)[0] < max(REACH * slide.spacing_px, side)
    # Windows overlap by a third, so that a copy may lie between the cells.
    values = fraction_at(density, scale, centres, 1.5 * side)
    values = np.where(under, values - values[under].mean(), 0)
    return values.reshape(len(rows), len(columns)), under.reshape(len(rows), len(columns))


def _similarity(one: np.ndarray, turned: Sequence[np.ndarray], size: Sequence[int]) -> float:
    """The best correlation of two sections over all shifts, and orientations of the second, in which enough overlap."""
    n_one, n_other, power_one, power_other = (s[k, 0, 0].real for k in (1, 2) for s in (one, turned[0]))
    enough = MIN_OVERLAP * max(n_one, n_other)
    best = 0.0
    for other in turned if enough <= min(n_one, n_other) else ():
        product = irfft2(one[0] * other[0].conj(), size)
        if product.max() > WORTH_A_LOOK * min(power_one, power_other):
            correlation, n = correlate(one, other, size)
            best = max(best, float((correlation - FEW_CELLS / np.sqrt(n))[n >= enough].max(initial=0.0)))
    return best
