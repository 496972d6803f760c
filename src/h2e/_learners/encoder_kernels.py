"""Compiled loops over maps with their channels last, for the packaged encoder; the functions are plain Python."""

from __future__ import annotations

import numpy as np

RUN = 512
"""Values in one run of a loop: some pixels, with all channels of each."""


def channel_sums(maps: np.ndarray, out: np.ndarray) -> None:
    """Add up maps (n, pixels, channels) and their squares over the pixels, (2, n, channels) ``float64`` that are 0."""
    for n in range(len(maps)):
        for pixel in range(maps.shape[1]):
            for c in range(maps.shape[2]):
                value = np.float64(maps[n, pixel, c])
                out[0, n, c] += value
                out[1, n, c] += value * value


def scaled_mish(maps: np.ndarray, scale: np.ndarray, shift: np.ndarray, powers: np.ndarray, out: np.ndarray) -> None:
    """Write mish(scale · map + shift) of maps (n, pixels · channels).

    ``scale`` and ``shift`` are (n, RUN), those of the channels again and again, so that one loop goes over many pixels.
    Mish is x · tanh(log(1 + eˣ)), here as a quotient; 2 to the fraction of an exponent is a polynomial (``powers``).
    Without a branch or a call the compiler computes many values at a time.
    """
    p0, p1, p2, p3, p4, p5 = powers
    lowest, highest, log2_e = np.float32(-40), np.float32(28), np.float32(1.4426950408889634)
    two, lift, bits, bias = np.float32(2), np.float32(64), np.int32(23), np.int32(63)
    for n in range(len(maps)):
        factor, offset = scale[n], shift[n]
        for start in range(0, maps.shape[1], len(factor)):
            before, after = maps[n, start : start + len(factor)], out[n, start : start + len(factor)]
            for i in range(len(before)):
                x = before[i] * factor[i] + offset[i]
                exponent = min(max(x * log2_e, lowest), highest) + lift
                whole = np.int32(exponent)
                f = exponent - np.float32(whole)
                power = ((((p5 * f + p4) * f + p3) * f + p2) * f + p1) * f + p0
                e = power * np.int32((whole + bias) << bits).view(np.float32)
                m = e * (e + two)
                after[i] = x * m / (m + two)
