"""Estimate the stains from pixels of tissue: Macenko, Vahadane, Reinhard, each robust to what is not stained tissue."""

from __future__ import annotations

import numpy as np

from h2e._stains.reference import Method, StainReference
from h2e._stains.spaces import to_lab

FEW = 200
"""Pixels below which there is nothing to estimate."""

BETA = 0.15
"""Optical density below which nothing is stained."""


def density(rgb: np.ndarray, background: float = 240.0) -> np.ndarray:
    """Optical density of 8-bit values, float64."""
    return -np.log((np.arange(256) + 1.0) / background)[rgb]


def estimate_stains(
    rgb: np.ndarray,
    method: Method = "macenko",
    *,
    background: float = 240.0,
    percentile: float = 99.0,
    space: str = "cielab",
    robust: bool = True,
) -> StainReference | None:
    """The stains of pixels (n, 3); ``None`` where fewer than 200 of them are stained tissue.

    ``robust`` drops pixels that cannot be haematoxylin and eosin (see ``stained``) and lays Macenko's plane through
    the origin, as optical density is additive: the plane around the mean, which most programs take, misses the mean
    colour, and what it misses differs between slides. Without it Macenko is theirs.
    """
    od = density(rgb, background)
    if robust:
        keep = stained(od)
        rgb, od = rgb[keep], od[keep]
    if len(od) < FEW:
        return None
    if method == "reinhard":
        lab = to_lab(rgb, space)
        mean, std = tuple(lab.mean(axis=0)), tuple(np.maximum(lab.std(axis=0), 1e-3))
        return StainReference(method, background, mean=mean, std=std, space=space, n_pixels=len(od))
    strong = od[(od >= BETA).all(axis=1)]
    # So pale that one channel or another absorbs next to nothing everywhere.
    if len(strong) < FEW:
        strong = od
    stains = macenko_vectors(strong, centred=not robust)
    if method == "vahadane":
        stains = vahadane_vectors(strong[:: len(strong) // 20_000 + 1], stains)
    amounts = np.maximum(np.percentile(od @ np.linalg.pinv(stains), percentile, axis=0), 0.02)
    return StainReference(method, background, tuple(stains), tuple(amounts), percentile=percentile, n_pixels=len(od))


def stained(od: np.ndarray) -> np.ndarray:
    """Which pixels can be haematoxylin and eosin, by their optical density.

    Both absorb green most. So blood, bile and brown pigment (blue absorbed more than green), blue and green ink
    (red absorbed much more than green), black ink, borders and dust (all absorbed alike and strongly) drop out,
    and so does what is denser than three interquartile ranges above the third quartile: folds.
    """
    red, green, blue = od.T
    total = od.sum(axis=1)
    ink = (red > 1.5 * green + 0.05) | ((red > 1.1 * green + 0.05) & (blue < 0.3 * green))
    colour = ~ink & (blue < 0.85 * green + 0.05)
    grey = (od.max(axis=1) - od.min(axis=1)) < 0.12 * total / 3
    black = od.min(axis=1) > 2.3
    keep = (od.max(axis=1) >= BETA) & colour & ~grey & ~black
    if keep.any():
        low, high = np.percentile(total[keep], [25, 75])
        keep &= total <= high + 3 * (high - low)
    return keep


def macenko_vectors(od: np.ndarray, alpha: float = 1.0, *, centred: bool = False) -> np.ndarray:
    """Haematoxylin and eosin as the extreme directions in the plane of most variance, (2, 3)."""
    plane = np.linalg.eigh(np.cov(od.T) if centred else od.T @ od)[1][:, [2, 1]]
    # So that no angle crosses ±π.
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    projected = od @ plane
    angles = np.percentile(np.arctan2(projected[:, 1], projected[:, 0]), [alpha, 100 - alpha])
    return ordered((plane @ np.array([np.cos(angles), np.sin(angles)])).T)


def vahadane_vectors(od: np.ndarray, start: np.ndarray, *, sparsity: float = 0.1, n_iter: int = 100) -> np.ndarray:
    """Two non-negative unit vectors whose sparse, non-negative combinations are nearest to ``od``, (2, 3).

    Alternates exact codes (with two atoms each of the four supports has a closed form) and block coordinate descent
    on the vectors, from Macenko's.
    """
    vectors = np.maximum(start, 1e-6)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for _ in range(n_iter):
        codes = sparse_codes(od, vectors, sparsity)
        gram, cross = codes.T @ codes, codes.T @ od
        before = vectors.copy()
        for j in (0, 1):
            if gram[j, j] > 0:
                vectors[j] = np.maximum(vectors[j] + (cross[j] - gram[j] @ vectors) / gram[j, j], 0)
                vectors[j] /= max(np.linalg.norm(vectors[j]), 1e-12)
        if np.abs(vectors - before).max() < 1e-6:
            break
    return ordered(vectors)


def sparse_codes(od: np.ndarray, vectors: np.ndarray, sparsity: float) -> np.ndarray:
    """Non-negative codes that minimize half the squared error plus ``sparsity`` times their sum, (n, 2)."""
    overlap = float(vectors[0] @ vectors[1])
    raw = od @ vectors.T - sparsity
    # Either atom by itself, and both.
    alone = np.maximum(raw, 0)
    both = (raw - overlap * raw[:, ::-1]) / (1 - overlap**2)
    first = alone[:, 0] >= alone[:, 1]
    single = np.where(np.column_stack([first, ~first]), alone, 0)
    return np.where((both > 0).all(axis=1, keepdims=True), both, single)


def ordered(stains: np.ndarray) -> np.ndarray:
    """Unit vectors, haematoxylin first: it absorbs more of the red."""
    stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return stains[np.argsort(-stains[:, 0])]
