"""From features to targets: ridge, partial least squares and nearest neighbours, settings chosen by inner group folds.

Features are standardized by the training spots and clipped: a slide of another stain or with another background must
not drive a linear model to values that it never saw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from h2e._learners.learner import Learner, Model
from h2e._statistics import unit_deviations

log = logging.getLogger(__name__)

Head = Literal["ridge", "knn", "pls"]
HEADS = get_args(Head)

CLIP = 4.0
"""Standard deviations beyond which a feature says no more."""

PENALTIES = np.array([1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
"""Ridge penalties, as shares of the trace of the Gram matrix (spots × features, as features have unit spread)."""

COMPONENTS = (1, 2, 3, 5, 8, 12, 20)
"""Numbers of components of partial least squares."""

N_FOLDS = 6
"""At most so many inner folds; beyond, groups are merged."""

AS_GOOD = 0.2
"""Settings whose inner score is within this share of the best are averaged: few groups cannot tell them apart."""

DEFAULT = {"ridge": 3, "pls": 3}
"""Positions in PENALTIES and COMPONENTS for one group, since folds of random spots would choose too little penalty."""

Path = Callable[[np.ndarray, np.ndarray], np.ndarray]


class HeadLearner(Learner):
    """A learner whose features go to ridge, partial least squares or nearest neighbours; nothing in it is random."""

    head: Head
    k: int
    setting: float | None

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            msg = f"head must be one of {list(HEADS)}, got {self.head!r}."
            raise ValueError(msg)
        if self.k < 1:
            msg = f"k must be at least 1, got {self.k}."
            raise ValueError(msg)

    @property
    def feature_key(self) -> Learner:
        """The learner with the default head: features do not depend on it."""
        return replace(self, head="ridge", k=30, setting=None)  # type: ignore[type-var]

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> Model:
        """Fit the head."""
        check_training(x, y, groups)
        if self.head == "knn":
            return fit_nearest(x, y, k=self.k)
        return fit_linear(x, y, groups, kind=self.head, setting=self.setting)

    def restore(self, arrays: dict[str, np.ndarray]) -> Model:
        """Make the model of these arrays."""
        return NearestModel.restore(arrays) if self.head == "knn" else LinearModel(**arrays)


class ArrayModel(Model):
    """A model whose fields are arrays."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields."""
        return dict(vars(self))


@dataclass(frozen=True)
class LinearModel(ArrayModel):
    """Standardize, clip, multiply."""

    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    coefficients: np.ndarray  # (d, targets)
    intercept: np.ndarray  # (targets,)
    settings: np.ndarray  # penalties or numbers of components that were chosen

    def predict(self, x: np.ndarray) -> np.ndarray:
        """``float32`` (n, targets)."""
        return (standardize(x, self.center, self.scale) @ self.coefficients + self.intercept).astype(np.float32)


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
        from sklearn.neighbors import NearestNeighbors

        if not len(x):
            return np.zeros((0, self.y.shape[1]), np.float32)
        algorithm = "kd_tree" if self.x.shape[1] < 8 else "brute"
        near = NearestNeighbors(n_neighbors=min(self.k, len(self.x)), algorithm=algorithm)
        near.fit(self.x.astype(np.float64))
        query = standardize(x, self.center, self.scale, clip=self.clip)
        return self.y[near.kneighbors(query, return_distance=False)].mean(1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields, the two numbers in one array."""
        numbers = np.array([self.k, self.clip], np.float64)
        return {"center": self.center, "scale": self.scale, "x": self.x, "y": self.y, "numbers": numbers}

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray]) -> NearestModel:
        """Make the model of these arrays."""
        k, clip = arrays["numbers"]
        return cls(arrays["center"], arrays["scale"], arrays["x"], arrays["y"], int(k), float(clip))


def fit_nearest(x: np.ndarray, y: np.ndarray, *, k: int) -> NearestModel:
    """Keep the standardized training spots."""
    center, scale = mean_and_std(x)
    kept = standardize(x, center, scale).astype(np.float32)
    return NearestModel(center, scale, kept, np.asarray(y, np.float32), k, CLIP)


def fit_linear(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, kind: Literal["ridge", "pls"], setting: float | None = None
) -> LinearModel:
    """Ridge or partial least squares, the settings (the same for all targets) chosen by inner group folds.

    A setting is scored by the correlation of its predictions of left-out groups. Few groups cannot tell good settings
    apart, and the one that is ahead is often an extreme one: the coefficients of all about as good are averaged.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(40, 2))
    >>> model = fit_linear(x, x[:, :1], np.repeat(["A", "B"], 20), kind="ridge")
    >>> model.predict(x).shape, model.settings
    ((40, 1), array([1.e-05, 3.e-05, 1.e-04, 3.e-04, 1.e-03, 3.e-03, 1.e-02, 3.e-02, 1.e-01]))
    """
    y = np.asarray(y, np.float64)
    path, settings = (ridge_path, PENALTIES) if kind == "ridge" else (pls_path, np.array(COMPONENTS, float))
    if setting is None:
        settings = settings[_choose(x, y, np.asarray(groups), path, DEFAULT[kind])]
        log.info("%s: averages %s", kind, settings)
    else:
        settings = np.array([setting], float)
    center, scale = mean_and_std(x)
    a = standardize(x, center, scale)
    middle, mean = a.mean(0), y.mean(0)
    coefficients = path(a - middle, y - mean, settings).mean(axis=0)
    return LinearModel(center, scale, coefficients, mean - middle @ coefficients, settings)


def ridge_path(a: np.ndarray, y: np.ndarray, penalties: np.ndarray = PENALTIES) -> np.ndarray:
    """Coefficients (penalties, d, targets) of centred data, from one decomposition of the smaller Gram matrix."""
    n, d = a.shape
    if d <= n:
        values, basis = np.linalg.eigh(a.T @ a)
    else:
        values, left = np.linalg.eigh(a @ a.T)
        keep = values > values[-1] * 1e-10
        values, basis = values[keep], a.T @ left[:, keep] / np.sqrt(values[keep])
    projected = basis.T @ (a.T @ y)
    values = np.maximum(values, 0)
    return np.stack([basis @ (projected / (values + p * n * d)[:, None]) for p in penalties])


def pls_path(a: np.ndarray, y: np.ndarray, components: np.ndarray = np.array(COMPONENTS)) -> np.ndarray:
    """Coefficients (numbers of components, d, targets) of centred data, from one fit with the most components."""
    from sklearn.cross_decomposition import PLSRegression

    path = np.zeros((len(components), a.shape[1], y.shape[1]))
    std = y.std(0)
    varies = std > 1e-6 * std.max()
    if varies.any() and np.abs(a).max() > 1e-6:
        most = int(min(max(components), a.shape[1], len(a) - 1))
        pls = PLSRegression(most, scale=False, max_iter=5000, tol=1e-5).fit(a, y[:, varies] / std[varies])
        for coefficients, k in zip(path, components.astype(int), strict=True):
            coefficients[:, varies] = pls.x_rotations_[:, :k] @ pls.y_loadings_[:, :k].T * std[varies]
    return path


def mean_and_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; 1 where it is constant."""
    x = np.asarray(x, np.float64)
    center, scale = x.mean(0), x.std(0)
    return center, np.where(scale > 1e-6 * (1 + np.abs(center)), scale, 1.0)


def standardize(x: np.ndarray, center: np.ndarray, scale: np.ndarray, *, clip: float = CLIP) -> np.ndarray:
    """Center, scale and clip."""
    if x.ndim != 2 or x.shape[1] != len(center):
        msg = f"the model was trained on {len(center)} features per spot, got an array of shape {x.shape}."
        raise ValueError(msg)
    return np.clip((np.asarray(x, np.float64) - center) / scale, -clip, clip)


def check_training(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
    """Raise unless there is something to learn, row by row."""
    if len(x) == 0 or not len(x) == len(y) == len(groups) or np.ndim(y) != 2:
        shapes = f"{np.shape(x)}, {np.shape(y)} and {np.shape(groups)}"
        msg = f"x, y (spots × targets) and groups must be of the same spots, got {shapes}."
        raise ValueError(msg)
    for name, values in {"x": x, "y": y}.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            msg = f"{name} must be finite; drop the spots without a measurement or features first."
            raise ValueError(msg)


def _choose(x: np.ndarray, y: np.ndarray, groups: np.ndarray, path: Path, default: int) -> np.ndarray:
    """Positions of the settings with about the best correlation over left-out groups, mean over targets and groups."""
    from sklearn.model_selection import GroupKFold

    n_folds = min(N_FOLDS, len(np.unique(groups)))
    if n_folds == 1:
        return np.array([default])
    scores = []
    for inner, outer in GroupKFold(n_folds).split(x, groups=groups):
        center, scale = mean_and_std(x[inner])
        a = standardize(x[inner], center, scale)
        coefficients = path(a - a.mean(0), y[inner] - y[inner].mean(0))
        for group in np.unique(groups[outer]):
            rows = groups == group
            predictions = standardize(x[rows], center, scale) @ coefficients  # (settings, n, targets)
            correlations = (unit_deviations(predictions) * unit_deviations(y[rows])).sum(axis=1)
            scores.append(correlations.mean(axis=1))
    mean = np.mean(scores, axis=0)
    return np.flatnonzero(mean >= mean.max() - AS_GOOD * abs(mean.max()))
