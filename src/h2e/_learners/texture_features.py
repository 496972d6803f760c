"""Colour, stain and texture statistics of tiles: what a frozen, fast and readable description of H&E can say.

``texture_features`` describes each tile by itself and by arithmetic of a fixed order, whatever the batch.
"""

from __future__ import annotations

import functools

import numpy as np

from h2e._learners import texture_kernels
from h2e._slide.compiled import fast
from h2e._warnings import refuse

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
N_LEVELS, SMALLEST = 5, 8
"""Octaves of the texture pyramid, and the side of the smallest image that has one."""

# Optical densities of haematoxylin, eosin and a residual (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
UNMIX = np.ascontiguousarray(np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)).T, np.float32)
"""What the optical density of each colour adds to the concentration of each stain, (stain, colour)."""

STAIN_NAMES = ("haematoxylin", "eosin", "residual")
PAIRS = ((0, 1), (0, 2), (1, 2))
OF_OCTAVE = ("blob sd", "blob skew", "blob peak", "blob share", "edge", "coherence")

BLACK = 40
"""Pixels with all channels below this are background."""

LUMEN = 216
"""Pixels with all channels above this are no tissue."""

FAINT = 1e-3
"""Contrast in stain concentration that counts as none; keeps logarithms and quotients finite."""

BATCH = 8
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
        refuse(f"tiles must be uint8 of shape (n, 3, p, p), got {tiles.dtype} {tiles.shape}.")
    if not len(tiles):
        return np.empty((0, len(feature_names(tiles.shape[-1]))), np.float32)
    return np.concatenate([_describe(tiles[i : i + BATCH]) for i in range(0, len(tiles), BATCH)])


@functools.cache
def feature_names(px: int) -> list[str]:
    """Names of the features of tiles of that side, in order."""
    maps = ("red", "green", "blue", *STAIN_NAMES, "saturation")
    names = [f"{name} {what}" for name in maps for what in ("mean", "sd", *(f"q{100 * q:02.0f}" for q in QUANTILES))]
    names += [f"{STAIN_NAMES[i]} with {STAIN_NAMES[j]}" for i, j in PAIRS] + ["lumen share"]
    return names + [f"{stain} {name}" for stain in STAIN_NAMES[:2] for name in octave_names(px)]


def octave_names(px: int) -> list[str]:
    """Names of the features of the octaves of one stain of tiles of that side, in order."""
    return [f"octave {level} {what}" for level in range(N_LEVELS) if px >> level >= SMALLEST for what in OF_OCTAVE]


def stain_maps(tiles: np.ndarray) -> np.ndarray:
    """Concentrations of haematoxylin, eosin and the residual in a fixed stain basis: (n, 3, p, p) ``float32``.

    Examples
    --------
    >>> abs(stain_maps(np.full((1, 3, 1, 1), 255, np.uint8))).ravel()
    array([0., 0., 0.], dtype=float32)
    """
    return _planes(tiles)[0][:, :3]


def octave_features(tiles: np.ndarray) -> np.ndarray:
    """Those of the features that say how coarse the pattern of each tile is, ``float32``, (n, d).

    Six for each octave of haematoxylin, then of eosin.
    """
    return np.concatenate([_octaves(_planes(tiles[i : i + BATCH])[0]) for i in range(0, len(tiles), BATCH)])


def _describe(tiles: np.ndarray) -> np.ndarray:
    """All features of a few tiles, (n, d)."""
    planes, counts = _planes(tiles)
    n, n_pixels = len(tiles), tiles.shape[-1] ** 2
    at = np.round(np.array(QUANTILES) * (n_pixels - 1)).astype(int)
    # Of colours all is in the counts of their 256 bytes.
    colours, shares = np.arange(256) / 255, counts / n_pixels
    mean = shares[:, :3] @ colours
    sd = np.sqrt(np.maximum(shares[:, :3] @ colours**2 - mean**2, 0))
    quantiles = colours[(counts[:, :3].cumsum(axis=2)[..., None, :] > at[:, None]).argmax(axis=3)]
    sums, flat = np.empty((n, 5, 4)), planes.reshape(n, 4, -1)
    fast(texture_kernels.products)(flat, sums)
    middle = sums[:, 0] / n_pixels
    covariance = sums[:, 1:] / n_pixels - middle[:, :, None] * middle[:, None]
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    moments = np.stack([np.hstack([mean, middle]), np.hstack([sd, spread])], axis=2)
    maps = np.concatenate([moments, np.hstack([quantiles, _ranked(flat, at)])], axis=2)
    together = [covariance[:, i, j] / np.maximum(spread[:, i] * spread[:, j], 1e-4) for i, j in PAIRS]
    lumen = shares[:, 3, LUMEN + 1 :].sum(axis=1)
    return np.column_stack([maps.reshape(n, -1), *together, lumen, _octaves(planes)]).astype(np.float32)


def _ranked(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The values of these ranks along the last axis, (…, k), as if it were sorted."""
    rows = values.reshape(-1, values.shape[-1])
    ranks = np.append(ranks, rows.shape[1])
    some, at = np.empty_like(rows), np.empty((len(rows), len(ranks)), np.int64)
    fast(texture_kernels.around_ranks)(rows, rows.min(axis=1), rows.max(axis=1), ranks, some, at)
    found = [np.sort(few[: where[-1]])[where[:-1]] for few, where in zip(some, at, strict=True)]
    return np.reshape(found, (*values.shape[:-1], -1))


def _planes(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Three stains and saturation, (n, 4, p, p), and the counts of red, green, blue and the least of them, (n, 4, 256)."""
    planes = np.empty((len(tiles), 4, *tiles.shape[2:]), np.float32)
    counts = np.zeros((len(tiles), 4, 256), np.int64)
    densities = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    fast(texture_kernels.stain_planes)(np.ascontiguousarray(tiles), densities, UNMIX, BLACK, planes, counts)
    return planes, counts


def _octaves(planes: np.ndarray) -> np.ndarray:
    """Per stain and octave of a pyramid: strength and asymmetry of blobs, strength and direction of edges, (n, d)."""
    image = np.ascontiguousarray(planes[:, :2]).reshape(-1, *planes.shape[2:])
    means = np.empty((len(image), sum(image.shape[-1] >> level >= SMALLEST for level in range(N_LEVELS)), 8))
    for level in range(means.shape[1]):
        fast(texture_kernels.octave)(image, means[:, level])
        half = np.empty((len(image), *(side // 2 for side in image.shape[1:])), np.float32)
        fast(texture_kernels.halve)(image, half)
        image = half
    s2, s3, s4, share, edge, xx, yy, xy = np.moveaxis(means, -1, 0)
    sd = np.sqrt(s2)
    blobs = [np.log(sd + FAINT), s3 / (sd + FAINT) ** 3, s4**0.25 / (sd + FAINT), share]
    coherence = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + FAINT**2)
    return np.stack([*blobs, np.log(edge + FAINT), coherence], axis=-1).reshape(len(planes), -1).astype(np.float32)
