"""Novelty: how far a spot's features are from those of the spots that were trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from h2e._learners.standardization import mean_and_std
from h2e._learners.texture_features import texture_features

N_NEIGHBOURS = 5
MOST_SPOTS = 4000
"""So many training spots stand for all."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """Training spots in the space of standardized features, and the distance to them that is typical."""

    learner: str  # whose features they are
    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    x: np.ndarray  # (n, d) float32, standardized
    typical: float  # median distance of a training spot from the spots of other groups

    def of(self, x: np.ndarray) -> np.ndarray:
        """Log2 of the distance to the nearest training spots over the typical one, ``float32`` (n,): 1 is twice it."""
        if not len(x):
            return np.zeros(0, np.float32)
        distance = _distance(self.x, (_features(x) - self.center) / self.scale)
        return np.log2(np.maximum(distance, 1e-6 * self.typical) / self.typical).astype(np.float32)


def fit_novelty(learner: str, x: np.ndarray, groups: np.ndarray) -> Novelty:
    """Keep the training spots; typical is the distance between groups, of a single group that between its spots.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    >>> novelty = fit_novelty("texture", x, np.repeat(["A", "B"], 30))
    >>> bool(abs(np.median(novelty.of(x + 0.01))) < 1), bool(novelty.of(x + 50).min() > 3)
    (True, True)
    """
    few = np.unique(np.linspace(0, len(x) - 1, MOST_SPOTS).astype(int))
    features, groups = _features(x[few]), groups[few]
    center, scale = mean_and_std(features)
    z = ((features - center) / scale).astype(np.float32)
    names = np.unique(groups)
    if len(names) > 1:
        distances = [_distance(z[groups != name], z[groups == name]) for name in names]
    else:
        distances = [_distance(z[::2], z[1::2])] if len(z) > 1 else [np.ones(1)]
    typical = float(np.mean([np.median(each) for each in distances]))
    return Novelty(learner, center, scale, z, typical if typical > 0 else 1.0)


def _distance(known: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Mean distance of each row to the nearest known ones."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(known)), algorithm="brute").fit(known.astype(np.float64))
    return near.kneighbors(x.astype(np.float64))[0].mean(axis=1)


def _features(x: np.ndarray) -> np.ndarray:
    """Features as they are; of tiles, their texture."""
    return (texture_features(x) if x.ndim == 4 else x).astype(np.float64)
