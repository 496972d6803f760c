"""Averaging a window over area to another size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from h2e._slide.compiled import compiled


@cache
def weights(side: int, px: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``px`` pixels, the first of ``side`` source pixels that it averages, and their weights (k, px).

    Shrinking weighs each source pixel by its overlap, enlarging interpolates linearly.
    """
    source, ratio = np.arange(side), side / px
    if ratio >= 1:
        left = np.arange(px)[:, None] * ratio
        dense = np.minimum(source + 1, left + ratio) - np.maximum(source, left)
    else:
        centre = np.clip((np.arange(px)[:, None] + 0.5) * ratio - 0.5, 0, side - 1)
        dense = 1 - np.abs(centre - source)
    dense[dense < 1e-9] = 0
    k = int((dense > 0).sum(axis=1).max())
    first = np.minimum((dense > 0).argmax(axis=1), side - k)
    parts = np.take_along_axis(dense, first[:, None] + np.arange(k), axis=1)
    parts /= parts.sum(axis=1, keepdims=True)
    return first.astype(np.uint32), np.ascontiguousarray(parts.T, np.float32)


@cache
def resample() -> Callable:
    """Compile the separable weighted average of a window; rows first, so that both passes run along memory."""

    @partial(compiled, fastmath=True)
    def average(source: np.ndarray, y0: int, x0: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
        k, px = weights.shape
        side = first[-1] + k
        row, total = np.empty(side, np.float32), np.empty(px, np.float32)
        for c in range(3):
            for i in range(px):
                row[:] = 0
                for a in range(k):
                    weight = weights[a, i]
                    line = source[c, y0 + first[i] + a, x0 : x0 + side]
                    for x in range(side):
                        row[x] += weight * np.float32(line[x])
                # Half is added, so that cutting off rounds.
                total[:] = 0.5
                for b in range(k):
                    for j in range(px):
                        total[j] += weights[b, j] * row[first[j] + np.uint32(b)]
                for j in range(px):
                    out[c, i, j] = np.uint8(np.int32(total[j]))

    return average
