"""Compiled colour maps over (3, y, x) blocks: what a stain normalization does to each pixel.

The functions below are plain Python and are compiled by numba at first use (about half a second, then cached
on disk). They change the pixels inside ``boxes`` only, and there only what is neither pale nor black: ``pale``
and ``dark`` weigh the change by the darkest and the brightest channel of the pixel, so that background stays
exactly as it is and no edge appears between it and pale tissue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np


def map_density(
    block: np.ndarray,
    out: np.ndarray,
    boxes: np.ndarray,
    tables: np.ndarray,
    pale: np.ndarray,
    dark: np.ndarray,
    full: np.ndarray,
) -> None:
    """Apply a map that is linear in optical density.

    Each output channel is a product of powers of the three input channels, hence of three entries of ``tables``
    (channel out, channel in, value): neither logarithm nor exponential is left. The tables hold intensity + 1.
    """
    white, half, one = np.float32(255), np.float32(0.5), np.float32(1)
    full_pale, full_dark = full[0], full[1]
    for n in range(len(boxes)):
        y0, y1, x0, x1 = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        for y in range(y0, y1):
            for x in range(x0, x1):
                r, g, b = block[0, y, x], block[1, y, x], block[2, y, x]
                low, high = min(r, min(g, b)), max(r, max(g, b))
                if low <= full_pale and high >= full_dark:  # nearly all tissue: no weights to look up
                    v = tables[0, 0, r] * tables[0, 1, g] * tables[0, 2, b] - half
                    out[0, y, x] = np.uint8(np.int32(min(v, white)))
                    v = tables[1, 0, r] * tables[1, 1, g] * tables[1, 2, b] - half
                    out[1, y, x] = np.uint8(np.int32(min(v, white)))
                    v = tables[2, 0, r] * tables[2, 1, g] * tables[2, 2, b] - half
                    out[2, y, x] = np.uint8(np.int32(min(v, white)))
                else:
                    weight = pale[low] * dark[high]
                    for c in range(3):
                        old = np.float32(block[c, y, x])
                        v = min(tables[c, 0, r] * tables[c, 1, g] * tables[c, 2, b] - one, white)
                        out[c, y, x] = np.uint8(np.int32(max(old + weight * (v - old) + half, np.float32(0))))


def map_lab(
    block: np.ndarray,
    out: np.ndarray,
    boxes: np.ndarray,
    sums: np.ndarray,
    forward: np.ndarray,
    affine: np.ndarray,
    backward: np.ndarray,
    limits: np.ndarray,
    mix: np.ndarray,
    display: np.ndarray,
    pale: np.ndarray,
    dark: np.ndarray,
) -> None:
    """Apply a map that is affine in a Lab space.

    Pixels go through ``sums`` (linear light to cone or XYZ responses, as positions in ``forward``), ``forward`` (the
    nonlinearity), ``affine`` (3 × 4), ``backward`` (its inverse, tabled between ``limits``), ``mix`` (back to linear
    light, as positions in ``display``) and ``display`` (levels).
    """
    zero, half = np.float32(0), np.float32(0.5)
    low_end, steps = limits[0], limits[1]
    last_back, last_display = np.float32(len(backward) - 1), np.float32(len(display) - 1)
    for n in range(len(boxes)):
        y0, y1, x0, x1 = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        for y in range(y0, y1):
            for x in range(x0, x1):
                r, g, b = block[0, y, x], block[1, y, x], block[2, y, x]
                weight = pale[min(r, min(g, b))] * dark[max(r, max(g, b))]
                if weight == zero:
                    continue
                f0 = forward[np.int32(sums[0, 0, r] + sums[0, 1, g] + sums[0, 2, b])]
                f1 = forward[np.int32(sums[1, 0, r] + sums[1, 1, g] + sums[1, 2, b])]
                f2 = forward[np.int32(sums[2, 0, r] + sums[2, 1, g] + sums[2, 2, b])]
                g0 = (affine[0, 0] * f0 + affine[0, 1] * f1 + affine[0, 2] * f2 + affine[0, 3] - low_end) * steps
                g1 = (affine[1, 0] * f0 + affine[1, 1] * f1 + affine[1, 2] * f2 + affine[1, 3] - low_end) * steps
                g2 = (affine[2, 0] * f0 + affine[2, 1] * f1 + affine[2, 2] * f2 + affine[2, 3] - low_end) * steps
                h0 = backward[np.int32(min(max(g0, zero), last_back) + half)]
                h1 = backward[np.int32(min(max(g1, zero), last_back) + half)]
                h2 = backward[np.int32(min(max(g2, zero), last_back) + half)]
                for c in range(3):
                    u = mix[c, 0] * h0 + mix[c, 1] * h1 + mix[c, 2] * h2
                    v = display[np.int32(min(max(u, zero), last_display) + half)]
                    old = np.float32(block[c, y, x])
                    out[c, y, x] = np.uint8(np.int32(old + weight * (v - old) + half))


@cache
def compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """A kernel compiled by numba; it holds no lock, so dask's threads run in parallel."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(kernel)
    except RuntimeError:  # no folder where numba may keep what it compiled
        return numba.njit(nogil=True)(kernel)


def boxes_of(mask: np.ndarray | None, ratio: float, origin: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Rectangles (y0, y1, x0, x1) that tile the tissue of a block.

    ``ratio`` is mask pixels per pixel of the block's level, ``origin`` the block's first row and column there.
    """
    height, width = shape
    if mask is None:
        return np.array([[0, height, 0, width]], dtype=np.int64)
    rows = np.minimum(((origin[0] + np.arange(height) + 0.5) * ratio).astype(np.int64), mask.shape[0] - 1)
    columns = np.minimum(((origin[1] + np.arange(width) + 0.5) * ratio).astype(np.int64), mask.shape[1] - 1)
    part = mask[rows[0] : rows[-1] + 1, columns]
    if part.all():
        return np.array([[0, height, 0, width]], dtype=np.int64)
    edges = np.diff(part.astype(np.int8), axis=1, prepend=0, append=0)
    start_row, starts = np.nonzero(edges == 1)  # row by row, so starts and ends pair up
    ends = np.nonzero(edges == -1)[1]
    tops = np.searchsorted(rows, rows[0] + start_row, side="left")
    bottoms = np.searchsorted(rows, rows[0] + start_row, side="right")
    return np.column_stack([tops, bottoms, starts, ends]).astype(np.int64)
