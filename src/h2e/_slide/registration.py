"""How far, and with what evidence, a set of spots lies beside the tissue: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from h2e._slide.tissue import fraction_at

CELLS = 8
"""Grid cells per spot spacing; the peak is then interpolated to a few hundredths of a spacing."""

RIM = 1.5
"""How far from the spots, in spacings, the absence of spots counts as evidence."""

REACH = 0.72
"""Half of the diagonal of a spot's cell, in spacings: nearer than this to a spot, no gap is left between spots."""


class Placement(NamedTuple):
    """The best placement of the spots: ``xy`` goes to ``centre + zoom · R(rotation) (xy − centre) + shift``."""

    shift: tuple[float, float]  # (x, y) in spacings
    rotation_deg: float
    zoom: float
    score_before: float  # correlation of 'under spots' with 'tissue' where the spots are now
    score: float  # at the best placement
    runner_up: float  # the best score more than one spacing away from the best shift


def place(
    mask: np.ndarray,
    scale: float,
    xy: np.ndarray,
    spacing: float,
    *,
    max_shift: float = 3.0,
    max_rotation_deg: float = 0.0,
    max_zoom: float = 0.0,
) -> Placement:
    """Shift spots such that 'under spots' and 'tissue' correlate best, over all shifts up to ``max_shift`` spacings.

    ``xy`` and ``spacing`` are in pixels of level 0, as many of which as ``scale`` make a pixel of the mask. All shifts
    are compared at once, by Fourier transforms, so the result does not depend on where the search starts. Rotations
    and zooms are tried one by one, first on a coarse grid of cells, then finer.
    """
    centre = xy.mean(axis=0)
    extent = float(np.ptp(xy, axis=0).max()) / spacing + 2 * (max_shift + RIM)
    # Bins by the hundred thousand need no finer grid, and a few of them none that is much finer than the mask.
    cells = int(np.clip(min(1500 / extent, 2 * spacing / scale), 2, CELLS))
    turn, zoom = 0.0, 1.0
    if max_rotation_deg or max_zoom:
        few = max(2, cells // 2)
        tissue = cells_of(mask, scale, spacing / few)
        turn, zoom = _turn_and_zoom(tissue, xy, spacing, max_shift, few, (max_rotation_deg, max_zoom))
    fine = cells_of(mask, scale, spacing / cells)
    scores = correlations(fine, _turned(xy, centre, turn, zoom), spacing, max_shift, cells)
    middle = scores.shape[0] // 2
    before = scores[middle, middle]
    if (turn, zoom) != (0.0, 1.0):
        before = correlations(fine, xy, spacing, 0, cells).max()
    peak, score = _peak(scores)
    yy, xx = np.indices(scores.shape)
    away = np.hypot(xx - peak[0], yy - peak[1]) > cells
    runner_up = scores[away].max() if away.any() else -1.0
    shift = (peak - middle) / cells
    return Placement((float(shift[0]), float(shift[1])), turn, zoom, float(before), float(score), float(runner_up))


def _turn_and_zoom(
    tissue: np.ndarray, xy: np.ndarray, spacing: float, max_shift: float, cells: int, limits: tuple[float, float]
) -> tuple[float, float]:
    """The rotation and zoom whose best shift is best: in steps of a degree and a percent, then of a quarter of that."""
    centre, best, span = xy.mean(axis=0), (0.0, 1.0), limits
    for step in ((1.0, 0.01), (0.25, 0.0025)):
        turns, zooms = (_about(*values) for values in zip(best, span, step, strict=True))
        pairs = [(turn, zoom) for turn in turns for zoom in zooms]
        near = [to for to in pairs if abs(to[0]) <= limits[0] + 1e-9 and abs(to[1] - 1) <= limits[1] + 1e-9]
        turned = (_turned(xy, centre, *to) for to in near)
        scores = [correlations(tissue, at, spacing, max_shift, cells, trim=True).max() for at in turned]
        best = near[int(np.argmax(scores))]
        span = (min(limits[0], step[0]), min(limits[1], step[1]))
    return best


def _about(value: float, span: float, step: float) -> list[float]:
    """Values around one, in steps."""
    n = round(span / step)
    return (value + step * np.arange(-n, n + 1)).tolist()


def _turned(xy: np.ndarray, centre: np.ndarray, turn: float, zoom: float) -> np.ndarray:
    """Positions rotated by degrees and stretched about a centre."""
    return centre + (xy - centre) @ (zoom * rotation(turn)).T


def rotation(degrees: float) -> np.ndarray:
    """2 × 2 matrix of a rotation from x towards y."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


def cells_of(mask: np.ndarray, scale: float, cell_px: float) -> np.ndarray:
    """Share of tissue in square cells of ``cell_px`` pixels of level 0."""
    n_y, n_x = (int(np.ceil(n * scale / cell_px)) for n in mask.shape)
    centres = np.stack(np.meshgrid(np.arange(n_x), np.arange(n_y)), axis=-1).reshape(-1, 2) + 0.5
    return fraction_at(mask, scale, centres * cell_px, cell_px).reshape(n_y, n_x)


def correlations(
    tissue: np.ndarray, xy: np.ndarray, spacing: float, max_shift: float, cells: int, *, trim: bool = False
) -> np.ndarray:
    """Correlation of 'under spots' and tissue for each shift, (y, x) in cells, over spots and rim on the image."""
    near, under, low = _footprint(xy * cells / spacing, cells, trim=trim)
    reach = int(np.ceil(max_shift * cells))
    size = [next_fast_len(n + 2 * reach, real=True) for n in near.shape]
    # Cells beside the image say nothing.
    tissue, on_image = (_window(array, low - reach, size) for array in (tissue, np.ones_like(tissue)))
    score, n = correlate(spectra(tissue, on_image, size), spectra(under, near, size), size)
    return np.where(n > 0.5 * near.sum(), score, -1.0)[: 2 * reach + 1, : 2 * reach + 1]


def spectra(values: np.ndarray, known: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Fourier transforms of values, 0 where they are not known, of where they are, and of their squares, (3, …)."""
    values = values.astype(float)
    return rfft2(np.stack([values, known, values**2]), size)


def correlate(one: np.ndarray, other: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each shift of the second: the correlation where both are known, and in how many cells they are."""
    n, x, y, xx, yy, xy = irfft2(one[[1, 0, 1, 2, 1, 0]] * other[[1, 1, 0, 1, 2, 0]].conj(), size)
    n = np.maximum(n, 1)
    power = (xx - x**2 / n) * (yy - y**2 / n)
    return (xy - x * y / n) / np.sqrt(np.maximum(power, 1e-9 * n**2)), n


def _footprint(at: np.ndarray, cells: int, *, trim: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells that the spots and their rim cover, those under spots, and the (x, y) of the first cell."""
    margin = int(np.ceil(RIM * cells)) + 1
    low = np.floor(at.min(axis=0)).astype(int) - margin
    high = np.ceil(at.max(axis=0)).astype(int) + margin
    x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    distance, _ = KDTree(at).query(np.column_stack([x.ravel(), y.ravel()]) + 0.5, distance_upper_bound=RIM * cells)
    distance = distance.reshape(x.shape)
    under = distance < REACH * cells
    # On average tissue ends half a spacing from the last spot. That matters for sizes; for shifts, all of it is a
    # clearer outline.
    if trim:
        under = distance_transform_edt(under) - 0.5 > (REACH - 0.5) * cells
    return np.isfinite(distance), under, low


def _window(array: np.ndarray, low: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A window of an array from (x, y) ``low`` on, (y, x) ``size``, 0 beside the array."""
    out = np.zeros(size)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(low + size[::-1], array.shape[::-1])
    if x1 > x0 and y1 > y0:
        out[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = array[y0:y1, x0:x1]
    return out


def _peak(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """The best shift (x, y) in cells, interpolated by a parabola along each axis, and its score."""
    y, x = np.unravel_index(np.argmax(scores), scores.shape)
    at = np.array([x, y], float)
    for axis, line, i in ((0, scores[y], x), (1, scores[:, x], y)):
        if 0 < i < len(line) - 1:
            before, here, after = line[i - 1 : i + 2]
            bend = before - 2 * here + after
            at[axis] += 0.5 * (before - after) / bend if bend < 0 else 0.0
    return at, float(scores[y, x])
