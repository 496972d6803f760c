"""Nearest neighbours in the space of standardized features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from h2e._learners.learner import Model
from h2e._learners.standardization import CLIP, inner_folds, mean_and_std, shrinkage, standardize

BLOCK = 2**23
"""Distances that are in memory at a time."""

MOST = 10_000
"""Training spots that are kept of each group: 5,000 cost 0.003 of Pearson against 15,000, at a third of the time."""

QUERIES = 500
"""About so many spots of each group tell by their neighbours in the others how far to shrink."""


@dataclass(frozen=True)
class NearestModel(Model):
    """The mean of the ``k`` nearest training spots."""

    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    x: np.ndarray  # (n, d) float32, standardized
    y: np.ndarray  # (n, targets) float32
    k: int
    clip: float = np.inf

    def predict(self, x: np.ndarray) -> np.ndarray:
        """``float32`` (n, targets)."""
        step, out = max(1, BLOCK // len(self.x)), np.zeros((len(x), self.y.shape[1]), np.float32)
        for start in range(0, len(x), step):
            query = standardize(x[start : start + step], self.center, self.scale, clip=self.clip)
            out[start : start + step] = self._mean_of_nearest(query.astype(np.float32), min(self.k, len(self.x)))
        return out

    def _mean_of_nearest(self, query: np.ndarray, k: int) -> np.ndarray:
        """The mean of the nearest training spots, and of others at exactly the distance of the last of them."""
        if query.shape[1] < 8:
            return self.y[self._tree.kneighbors(query, k, return_distance=False)].mean(axis=1)
        # The length of the query is the same for all, and left out.
        distance = self._half_squares - query @ self.x.T
        near = distance <= np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
        return near.astype(np.float32) @ self.y / near.sum(axis=1, dtype=np.float32)[:, None]

    @cached_property
    def _tree(self) -> Any:
        """Training spots by place."""
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(algorithm="kd_tree").fit(self.x.astype(np.float64))

    @cached_property
    def _half_squares(self) -> np.ndarray:
        """Half the squared length of each training spot."""
        return np.einsum("nd,nd->n", self.x, self.x) / 2

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields, the two numbers in one array."""
        numbers = np.array([self.k, self.clip], np.float64)
        return {"center": self.center, "scale": self.scale, "x": self.x, "y": self.y, "numbers": numbers}

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray]) -> NearestModel:
        """Make the model of these arrays."""
        k, clip = arrays["numbers"]
        return cls(arrays["center"], arrays["scale"], arrays["x"], arrays["y"], int(k), float(clip))


def fit_nearest(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, k: int) -> NearestModel:
    """Keep the standardized training spots, at most ``MOST`` of each group, and their targets.

    The latter are drawn towards the mean as far as predictions of left-out groups ask for it.
    """
    center, scale = mean_and_std(x)
    rng = np.random.default_rng(0)
    each = [rng.permutation(np.flatnonzero(groups == name))[:MOST] for name in np.unique(groups)]
    kept = np.sort(np.concatenate(each))
    z = standardize(x[kept], center, scale).astype(np.float32)
    mean, std = mean_and_std(y)
    y, products, squares = ((y[kept] - mean) / std).astype(np.float32), [], []
    for inner, outer in inner_folds(groups[kept]):
        model, middle = NearestModel(center, scale, z[inner], y[inner], k, CLIP), y[inner].mean(axis=0)
        for rows in outer:
            some = rows[:: max(1, len(rows) // QUERIES)]
            p = model.predict(x[kept[some]]) - middle
            products.append((p * (y[some] - middle)).sum())
            squares.append((p**2).sum())
    factor = shrinkage(np.array(products), np.array(squares))
    return NearestModel(center, scale, z, (mean + factor * std * y).astype(np.float32), k, CLIP)
