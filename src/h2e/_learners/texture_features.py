"""Colour, stain and texture statistics of tiles: what a frozen, fast and readable description of H&E can say.

``texture_features`` describes each tile by itself and by arithmetic of a fixed order, whatever the batch.
"""

from __future__ import annotations

import functools
from itertools import combinations

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
N_LEVELS = 5
"""Octaves of the texture pyramid; small tiles have fewer."""

# Optical densities of haematoxylin, eosin and a residual (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAIN_NAMES = ("haematoxylin", "eosin", "residual")

BLACK = 40
"""Pixels with all channels below this are background."""

FAINT = 1e-3
"""Contrast in stain concentration that counts as none; keeps logarithms and quotients finite."""

BATCH = 16
"""Tiles at a time: the working set stays in the cache of the processor."""


def texture_features(tiles: np.ndarray) -> np.ndarray:
    """Describe each tile by statistics of its colours, stains and texture.

    Parameters
    ----------
    tiles
        ``uint8``, (n, 3, p, p), RGB.

    Returns
    -------
    ``float32``, (n, d); finite for every input, also for a black or white tile. ``d`` depends on ``p`` only; the names
    are those of ``feature_names(p)``.

    Examples
    --------
    >>> texture_features(np.zeros((2, 3, 32, 32), np.uint8)).shape
    (2, 89)
    >>> feature_names(32)[:3]
    ['red mean', 'red sd', 'red q05']
    """
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.shape[2] != tiles.shape[3]:
        msg = f"tiles must be uint8 of shape (n, 3, p, p), got {tiles.dtype} {tiles.shape}."
        raise ValueError(msg)
    out = np.empty((len(tiles), len(feature_names(tiles.shape[-1]))), np.float32)
    for start in range(0, len(tiles), BATCH):
        out[start : start + BATCH] = np.stack(list(_describe(tiles[start : start + BATCH]).values()), axis=1)
    return out


@functools.cache
def feature_names(px: int) -> list[str]:
    """Names of the features of tiles of that side, in order."""
    return list(_describe(np.zeros((1, 3, px, px), np.uint8)))


def stain_maps(tiles: np.ndarray) -> np.ndarray:
    """Concentrations of haematoxylin, eosin and the residual in a fixed stain basis: (n, 3, p, p) ``float32``.

    Examples
    --------
    >>> stain_maps(np.full((1, 3, 1, 1), 255, np.uint8)).ravel()
    array([0., 0., 0.], dtype=float32)
    """
    unmix = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)).T  # (stain, colour)
    density = -np.log((np.arange(256) + 1) / 256)
    # One table per stain and colour saves a logarithm per pixel.
    tables = (unmix[:, :, None] * density).astype(np.float32)
    return np.stack([sum(table[c][tiles[:, c]] for c in range(3)) for table in tables], axis=1)


def octave_features(tiles: np.ndarray) -> np.ndarray:
    """Those of the features that say how coarse the pattern of each tile is, ``float32``, (n, d).

    Six for each octave of haematoxylin, then of eosin.
    """
    stains = stain_maps(_without_black(tiles))
    octaves = _octaves("haematoxylin", stains[:, 0]) | _octaves("eosin", stains[:, 1])
    return np.stack(list(octaves.values()), axis=1)


def _without_black(tiles: np.ndarray) -> np.ndarray:
    """Black pixels become white: no stain is black, but cut-outs, borders and pen are, which are not tissue."""
    return np.where(tiles.max(axis=1, keepdims=True) < BLACK, np.uint8(255), tiles)


def _describe(tiles: np.ndarray) -> dict[str, np.ndarray]:
    """All features of a few tiles, by name."""
    tiles = _without_black(tiles)
    colours, stains = tiles.astype(np.float32) / 255, stain_maps(tiles)
    top, bottom = colours.max(1), colours.min(1)
    saturation = (top - bottom) / np.maximum(top, 1 / 255)
    maps = [*colours.swapaxes(0, 1), *stains.swapaxes(0, 1), saturation]
    out: dict[str, np.ndarray] = {}
    for name, values in zip(("red", "green", "blue", *STAIN_NAMES, "saturation"), maps, strict=True):
        out |= _moments(name, values)
    out |= _correlations(stains)
    out["lumen share"] = (bottom > 0.85).mean((1, 2))
    return out | _octaves("haematoxylin", stains[:, 0]) | _octaves("eosin", stains[:, 1])


def _moments(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, standard deviation and quantiles over the pixels of each tile."""
    flat = np.sort(values.reshape(len(values), -1), axis=1)
    at = np.round(np.array(QUANTILES) * (flat.shape[1] - 1)).astype(int)
    out = {f"{name} mean": flat.mean(1), f"{name} sd": flat.std(1)}
    return out | {f"{name} q{round(100 * q):02d}": flat[:, i] for q, i in zip(QUANTILES, at, strict=True)}


def _correlations(stains: np.ndarray) -> dict[str, np.ndarray]:
    """Correlation over pixels of each two stains; 0 where one is constant."""
    flat = stains.reshape(*stains.shape[:2], -1)
    centred = flat - flat.mean(2, keepdims=True)
    std = np.sqrt((centred**2).mean(2))
    out = {}
    for (i, one), (j, other) in combinations(enumerate(STAIN_NAMES), 2):
        covariance = (centred[:, i] * centred[:, j]).mean(1)
        out[f"{one} with {other}"] = covariance / np.maximum(std[:, i] * std[:, j], 1e-4)
    return out


def _octaves(name: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """Per octave of a pyramid: strength and asymmetry of blobs, strength and direction of edges."""
    out: dict[str, np.ndarray] = {}
    for level in range(N_LEVELS):
        if image.shape[-1] < 8:
            break
        smooth = _smooth(image)
        band = (image - smooth)[:, 2:-2, 2:-2]
        dx = (image[:, 2:-2, 3:-1] - image[:, 2:-2, 1:-3]) / 2
        dy = (image[:, 3:-1, 2:-2] - image[:, 1:-3, 2:-2]) / 2
        edge = np.sqrt(dx * dx + dy * dy)
        # Products, since powers are slow.
        square = band * band
        sd = np.sqrt(square.mean((1, 2)))
        key = f"{name} octave {level}"
        out[f"{key} blob sd"] = np.log(sd + FAINT)
        out[f"{key} blob skew"] = (square * band).mean((1, 2)) / (sd + FAINT) ** 3
        out[f"{key} blob peak"] = (square * square).mean((1, 2)) ** 0.25 / (sd + FAINT)
        out[f"{key} blob share"] = (band > sd[:, None, None]).mean((1, 2))
        out[f"{key} edge"] = np.log(edge.mean((1, 2)) + FAINT)
        xx, yy, xy = (dx * dx).mean((1, 2)), (dy * dy).mean((1, 2)), (dx * dy).mean((1, 2))
        out[f"{key} coherence"] = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + FAINT**2)
        image = _halve(image)
    return out


def _halve(image: np.ndarray) -> np.ndarray:
    """Mean of each 2 × 2 pixels; an odd last row or column is left out."""
    height, width = image.shape[1] // 2 * 2, image.shape[2] // 2 * 2
    rows = image[:, 0:height:2, :width] + image[:, 1:height:2, :width]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) / 4


def _smooth(image: np.ndarray) -> np.ndarray:
    """Binomial blur by (1, 4, 6, 4, 1) / 16 along both axes, edges repeated."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (2, 2), (2, 2)], mode="edge")
    a, b, c, d, e = (padded[:, k : k + height] for k in range(5))
    padded = (a + e) + 4 * (b + d) + 6 * c
    a, b, c, d, e = (padded[:, :, k : k + width] for k in range(5))
    return ((a + e) + 4 * (b + d) + 6 * c) / 256
