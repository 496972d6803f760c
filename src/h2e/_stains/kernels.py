"""Compiled colour maps over (3, y, x) blocks: what a stain normalization does to each pixel.

The functions below are plain Python. They change the pixels inside ``boxes`` only, and there only what is neither
pale nor black: the change is weighed by the darkest and the brightest channel of the pixel, so that background stays
exactly as it is and no edge appears between it and pale tissue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from h2e._slide.compiled import compiled

LOOSE = {"error_model": "numpy", "fastmath": {"nnan", "ninf", "nsz"}}
"""The compiler may assume that there are no infinities. It may not reorder or fuse, so any split into chunks agrees."""


def map_density(block: np.ndarray, out: np.ndarray, boxes: np.ndarray, settings: tuple[np.ndarray, ...]) -> None:
    """Apply a map that is linear in optical density: ``matrix`` and ``offset`` on log2(intensity + 1).

    log2 is the exponent of a float and a polynomial (``logs``) of its mantissa, the power a polynomial (``powers``)
    and an exponent again. Without a branch or a table the compiler does many pixels at a time, which is twice as
    fast as nine tables of 256 factors.
    """
    matrix, offset, ramps, logs, powers = settings
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = matrix.ravel()
    c0, c1, c2 = offset
    pale_start, pale_slope, dark_start, dark_slope = ramps
    p0, p1, p2, p3, p4, p5, p6 = logs
    q0, q1, q2, q3, q4, q5 = powers
    zero, half, one, white = np.float32(0), np.float32(0.5), np.float32(1), np.float32(255)
    lowest, highest, lift = np.float32(-20), np.float32(9), np.float32(32)
    bits, bias, mantissa = np.int32(23), np.int32(127), np.int32(0x7FFFFF)
    exponent_0 = np.int32(0x3F800000)
    for y0, y1, x0, x1 in boxes:
        for y in range(y0, y1):
            red, green, blue = block[0, y, x0:x1], block[1, y, x0:x1], block[2, y, x0:x1]
            new_red, new_green, new_blue = out[0, y, x0:x1], out[1, y, x0:x1], out[2, y, x0:x1]
            for x in range(x1 - x0):
                r, g, b = np.float32(red[x]), np.float32(green[x]), np.float32(blue[x])
                i = np.float32(r + one).view(np.int32)
                j = np.float32(g + one).view(np.int32)
                k = np.float32(b + one).view(np.int32)
                u = np.int32((i & mantissa) | exponent_0).view(np.float32)
                v = np.int32((j & mantissa) | exponent_0).view(np.float32)
                w = np.int32((k & mantissa) | exponent_0).view(np.float32)
                u = (((((p6 * u + p5) * u + p4) * u + p3) * u + p2) * u + p1) * u + p0
                v = (((((p6 * v + p5) * v + p4) * v + p3) * v + p2) * v + p1) * v + p0
                w = (((((p6 * w + p5) * w + p4) * w + p3) * w + p2) * w + p1) * w + p0
                u += np.float32(np.int32((i >> bits) - bias))
                v += np.float32(np.int32((j >> bits) - bias))
                w += np.float32(np.int32((k >> bits) - bias))
                pale = min(max(pale_start - pale_slope * min(u, min(v, w)), zero), one)
                dark = min(max(dark_slope * max(r, max(g, b)) - dark_start, zero), one)
                weight = pale * dark
                s = min(max(a00 * u + a01 * v + a02 * w + c0, lowest), highest)
                t = min(max(a10 * u + a11 * v + a12 * w + c1, lowest), highest)
                z = min(max(a20 * u + a21 * v + a22 * w + c2, lowest), highest)
                # Rounds down, below 0 too.
                i = np.int32(np.int32(s + lift) - np.int32(32))
                j = np.int32(np.int32(t + lift) - np.int32(32))
                k = np.int32(np.int32(z + lift) - np.int32(32))
                s, t, z = s - np.float32(i), t - np.float32(j), z - np.float32(k)
                s = ((((q5 * s + q4) * s + q3) * s + q2) * s + q1) * s + q0
                t = ((((q5 * t + q4) * t + q3) * t + q2) * t + q1) * t + q0
                z = ((((q5 * z + q4) * z + q3) * z + q2) * z + q1) * z + q0
                s = min(s * np.int32((i + bias) << bits).view(np.float32) - one, white)
                t = min(t * np.int32((j + bias) << bits).view(np.float32) - one, white)
                z = min(z * np.int32((k + bias) << bits).view(np.float32) - one, white)
                new_red[x] = np.uint8(np.int32(max(r + weight * (s - r) + half, zero)))
                new_green[x] = np.uint8(np.int32(max(g + weight * (t - g) + half, zero)))
                new_blue[x] = np.uint8(np.int32(max(b + weight * (z - b) + half, zero)))


@cache
def polynomials() -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of log2 on [1, 2] and of 2 to the power of [0, 1], right to 5e-6 and 3e-7."""
    x = np.linspace(0, 1, 4001)
    log2 = np.polynomial.Polynomial.fit(x + 1, np.log2(x + 1), 6).convert().coef
    power = np.polynomial.Polynomial.fit(x, 2**x, 5).convert().coef
    return log2.astype(np.float32), power.astype(np.float32)


def map_lab(block: np.ndarray, out: np.ndarray, boxes: np.ndarray, tables: tuple[np.ndarray, ...]) -> None:
    """Apply a map that is affine in a Lab space.

    Pixels go through ``sums`` (linear light to cone or XYZ responses, as positions in ``forward``), ``forward`` (the
    nonlinearity), ``affine`` (3 × 4), ``backward`` (its inverse, tabled between ``limits``), ``mix`` (back to linear
    light, as positions in ``display``) and ``display`` (levels).
    """
    sums, forward, affine, backward, limits, mix, display, pale, dark = tables
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    low_end, steps = limits[0], limits[1]
    last_back, last_display = np.float32(len(backward) - 1), np.float32(len(display) - 1)
    for y0, y1, x0, x1 in boxes:
        red, green, blue = block[0, y0:y1, x0:x1], block[1, y0:y1, x0:x1], block[2, y0:y1, x0:x1]
        new_red, new_green, new_blue = out[0, y0:y1, x0:x1], out[1, y0:y1, x0:x1], out[2, y0:y1, x0:x1]
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                r, g, b = red[y, x], green[y, x], blue[y, x]
                weight = pale[min(r, min(g, b))] * dark[max(r, max(g, b))]
                if weight == zero:
                    new_red[y, x], new_green[y, x], new_blue[y, x] = r, g, b
                    continue
                keep = one - weight
                # Positions are unsigned, so that numba need not check for negative ones.
                f0 = forward[np.uint16(np.int32(sums[0, 0, r] + sums[0, 1, g] + sums[0, 2, b]))]
                f1 = forward[np.uint16(np.int32(sums[1, 0, r] + sums[1, 1, g] + sums[1, 2, b]))]
                f2 = forward[np.uint16(np.int32(sums[2, 0, r] + sums[2, 1, g] + sums[2, 2, b]))]
                g0 = (affine[0, 0] * f0 + affine[0, 1] * f1 + affine[0, 2] * f2 + affine[0, 3] - low_end) * steps
                g1 = (affine[1, 0] * f0 + affine[1, 1] * f1 + affine[1, 2] * f2 + affine[1, 3] - low_end) * steps
                g2 = (affine[2, 0] * f0 + affine[2, 1] * f1 + affine[2, 2] * f2 + affine[2, 3] - low_end) * steps
                h0 = backward[np.uint16(np.int32(min(max(g0, zero), last_back) + half))]
                h1 = backward[np.uint16(np.int32(min(max(g1, zero), last_back) + half))]
                h2 = backward[np.uint16(np.int32(min(max(g2, zero), last_back) + half))]
                u = min(max(mix[0, 0] * h0 + mix[0, 1] * h1 + mix[0, 2] * h2, zero), last_display)
                v = min(max(mix[1, 0] * h0 + mix[1, 1] * h1 + mix[1, 2] * h2, zero), last_display)
                w = min(max(mix[2, 0] * h0 + mix[2, 1] * h1 + mix[2, 2] * h2, zero), last_display)
                u = display[np.uint16(np.int32(u + half))]
                v = display[np.uint16(np.int32(v + half))]
                w = display[np.uint16(np.int32(w + half))]
                new_red[y, x] = np.uint8(np.int32(u + keep * (np.float32(r) - u) + half))
                new_green[y, x] = np.uint8(np.int32(v + keep * (np.float32(g) - v) + half))
                new_blue[y, x] = np.uint8(np.int32(w + keep * (np.float32(b) - w) + half))


@cache
def colour_map(kind: str) -> Callable[..., None]:
    """The compiled kernel of a kind of map, ``"density"`` or ``"lab"``."""
    return compiled(map_density if kind == "density" else map_lab, **LOOSE)


def boxes_of(mask: np.ndarray | None, ratio: float, origin: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Rectangles (y0, y1, x0, x1) that tile the tissue of a block.

    ``ratio`` is mask pixels per pixel of the block's level, ``origin`` the block's first row and column there.
    """
    height, width = shape
    mask = np.ones((1, 1), bool) if mask is None else mask
    rows = np.minimum(((origin[0] + np.arange(height) + 0.5) * ratio).astype(np.int64), mask.shape[0] - 1)
    columns = np.minimum(((origin[1] + np.arange(width) + 0.5) * ratio).astype(np.int64), mask.shape[1] - 1)
    part = mask[rows[0] : rows[-1] + 1, columns]
    if part.all():
        return np.array([[0, height, 0, width]], dtype=np.int64)
    edges = np.diff(part.astype(np.int8), axis=1, prepend=0, append=0)
    # Row by row, so starts and ends pair up.
    start_row, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    tops = np.searchsorted(rows, rows[0] + start_row, side="left")
    bottoms = np.searchsorted(rows, rows[0] + start_row, side="right")
    return np.column_stack([tops, bottoms, starts, ends]).astype(np.int64)
