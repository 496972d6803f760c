"""Ridge and partial least squares, whose settings and shrinkage are chosen by inner group folds.

Both need only sums of squares and products of features and targets, so many spots are replaced by fewer rows with the
same sums; ridge on wide features takes the sums themselves, in single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from h2e._learners.learner import Model
from h2e._learners.standardization import BLOCK, inner_folds, mean_and_std, shrinkage, standardize
from h2e._warnings import log

PENALTIES = np.array([1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
"""Ridge penalties, as shares of the trace of the Gram matrix (spots × features, as features have unit spread)."""

COMPONENTS = np.array([1, 2, 3, 5, 8, 12, 20])
"""Numbers of components of partial least squares."""

DEFAULT = 3
"""Position in both for one group, since folds of random spots would choose too little penalty."""

AS_GOOD = 0.2
"""Settings whose inner score is within this share of the best are averaged: few groups cannot tell them apart."""

WIDE = 2048
"""Features from which on, with more spots than features, ridge computes in ``float32`` and tries every second penalty: a
Gram matrix of 3 × 1,536 features takes 85 MB, and its factorization most of the time."""

LARGE = 1024
"""Equations from which on torch, whose import takes a second, solves them several times as fast as scipy."""

ROUNDING = 1e-10
"""Share of the variance that is added to each column, so that rounding errors leave no variance below 0."""

Path = Callable[[np.ndarray, np.ndarray, int, np.ndarray], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]
Three = tuple[np.ndarray, np.ndarray, np.ndarray]
Rows = np.ndarray | slice
Solved = tuple[Pair, Pair, np.ndarray]
Solve = Callable[[Rows, np.ndarray], Solved]


@dataclass(frozen=True)
class LinearModel(Model):
    """Standardize, clip, multiply."""

    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    coefficients: np.ndarray  # (d, targets)
    intercept: np.ndarray  # (targets,)
    settings: np.ndarray  # penalties or numbers of components that were chosen

    def predict(self, x: np.ndarray) -> np.ndarray:
        """``float32`` (n, targets)."""
        return (standardize(x, self.center, self.scale) @ self.coefficients + self.intercept).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields."""
        return dict(vars(self))


def fit_linear(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, kind: Literal["ridge", "pls"], setting: float | None = None
) -> LinearModel:
    """Ridge or partial least squares, the settings (the same for all targets) chosen by inner group folds.

    A setting is scored by the correlation of its predictions of left-out groups. Few groups cannot tell good settings
    apart, and the one that is ahead is often an extreme one: the coefficients of all about as good are averaged.
    Predictions are drawn towards the mean as far as those of left-out groups ask for it.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(40, 2))
    >>> model = fit_linear(x, x[:, :1], np.repeat(["A", "B"], 20), kind="ridge")
    >>> model.predict(x).shape, model.settings
    ((40, 1), array([1.e-05, 3.e-05, 1.e-04, 3.e-04, 1.e-03, 3.e-03, 1.e-02, 3.e-02, 1.e-01]))
    """
    path, settings = (ridge_path, PENALTIES) if kind == "ridge" else (pls_path, COMPONENTS)
    if setting is not None:
        settings = np.array([setting])
    elif len(np.unique(groups)) == 1:
        settings = settings[[DEFAULT]]
    mean, std = mean_and_std(y)
    y = (y - mean) / std
    wide = kind == "ridge" and WIDE <= x.shape[1] < len(x)
    if wide:
        y, settings = y.astype(np.float32), settings[::2]
    solve = _wide_ridge(x, y) if wide else partial(_solve, x, y, path)
    settings, factor = _choose(x, y, np.asarray(groups), solve, settings.astype(float))
    log.info("%s: averages %s, deviations from the mean times %.2f", kind, settings, factor)
    scaling, (middle, _), every = solve(slice(None), settings)
    coefficients = (every.mean(axis=0) * factor * std).astype(middle.dtype)
    return LinearModel(*scaling, coefficients, mean - middle @ coefficients, settings)


def ridge_path(a: np.ndarray, y: np.ndarray, n: int, penalties: np.ndarray) -> np.ndarray:
    """Coefficients (penalties, d, targets) of centred rows that stand for ``n``, from the smaller Gram matrix."""
    d = a.shape[1]
    if d > len(a):
        return a.T @ _penalized(a @ a.T, y, penalties * n * d)
    return _penalized(a.T @ a, a.T @ y, penalties * n * d)


def _penalized(gram: np.ndarray, right: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Solve with each penalty on the diagonal of a Gram matrix, (penalties, …)."""
    solved = []
    for penalty in penalties:
        penalized = gram.copy()
        penalized.flat[:: len(gram) + 1] += penalty
        if len(gram) < LARGE:
            solved.append(cho_solve(cho_factor(penalized, overwrite_a=True, check_finite=False), right))
        else:
            import torch

            factor = torch.linalg.cholesky(torch.from_numpy(penalized))
            solved.append(torch.cholesky_solve(torch.from_numpy(right), factor).numpy())
    return np.stack(solved)


def pls_path(a: np.ndarray, y: np.ndarray, n: int, components: np.ndarray) -> np.ndarray:
    """Coefficients (numbers of components, d, targets) of centred rows that stand for ``n``.

    By the modified kernel algorithm of Dayal and MacGregor (1997), which deflates nothing but the products of features
    and targets.
    """
    gram, right = a.T @ a, a.T @ y
    most = int(min(max(components), a.shape[1], n - 1))
    rotations, x_loadings, y_loadings = (np.zeros((size, most)) for size in (*a.shape[1:], *right.shape))
    least = 1e-9 * np.linalg.norm(right)
    for k in range(most):
        weights = right @ eigh(right.T @ right, subset_by_index=[y.shape[1] - 1] * 2)[1][:, 0]
        if (length := np.linalg.norm(weights)) <= least:
            break
        rotation = weights / length - rotations @ (x_loadings.T @ weights) / length
        product = gram @ rotation
        squares = rotation @ product
        rotations[:, k], x_loadings[:, k], y_loadings[:, k] = rotation, product / squares, rotation @ right / squares
        right -= squares * np.outer(x_loadings[:, k], y_loadings[:, k])
    return np.stack([rotations[:, :k] @ y_loadings[:, :k].T for k in components.astype(int)])


def _solve(x: np.ndarray, y: np.ndarray, path: Path, rows: Rows, settings: np.ndarray) -> Solved:
    """How some of the spots are standardized, their means, and the coefficients of each setting."""
    x, y = x[rows], y[rows]
    scaling = mean_and_std(x)
    middle, a, b = _fewer_rows(x, y, scaling)
    return scaling, (middle, y.mean(axis=0)), path(a, b, len(x), settings)


def _wide_ridge(x: np.ndarray, y: np.ndarray) -> Solve:
    """The same for ridge on wide features: from the Gram matrix of all spots without that of the others.

    Features are standardized and clipped by all spots, also where some of them are left out.
    """
    d, (center, scale) = x.shape[1], mean_and_std(x)
    scaling = center.astype(np.float32), scale.astype(np.float32)

    def gram(spots: np.ndarray) -> np.ndarray:
        total = np.zeros((d + y.shape[1] + 1,) * 2, np.float32)
        for block in np.array_split(spots, -(-len(spots) // BLOCK)):
            z = np.hstack([standardize(x[block], *scaling), y[block], np.ones((len(block), 1), np.float32)])
            total += z.T @ z
        return total

    whole = gram(np.arange(len(x)))

    def solve(rows: Rows, settings: np.ndarray) -> Solved:
        others = np.delete(np.arange(len(x)), rows)
        sums = whole - gram(others) if len(others) else whole.copy()
        n = sums[-1, -1]
        mean = sums[-1] / n
        sums -= n * np.outer(mean, mean)
        return scaling, (mean[:d], mean[d:-1]), _penalized(sums[:d, :d], sums[:d, d:-1], settings * n * d)

    return solve


def _choose(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, solve: Solve, settings: np.ndarray
) -> tuple[np.ndarray, float]:
    """The settings with about the best correlation over left-out groups, mean over targets, and how far to shrink."""
    scores = []
    for inner, outer in inner_folds(groups):
        scaling, about, coefficients = solve(inner, settings)
        scores += [_score(*_fewer_rows(x[rows], y[rows], scaling, about)[1:], coefficients) for rows in outer]
    if not scores:
        return settings, 1.0
    correlations, products, squares = map(np.stack, zip(*scores, strict=True))
    mean = correlations.mean(axis=0)
    chosen = mean >= mean.max() - AS_GOOD * abs(mean.max())
    return settings[chosen], shrinkage(products[:, chosen].mean(axis=1), squares[:, chosen][:, :, chosen].mean((1, 2)))


def _score(a: np.ndarray, y: np.ndarray, coefficients: np.ndarray) -> Three:
    """Correlation with the truth, mean over targets, of the predictions of each setting; and what tells how to shrink.

    The latter are sums over spots and targets, about the training mean: products with the truth, (settings,), and with
    the predictions of each setting, (settings, settings). The last row is the distance of the means, which correlations
    leave out.
    """
    predictions = a @ coefficients
    inside, truth = predictions[:, :-1], y[:-1]
    length = np.sqrt((inside**2).sum(axis=1) * (truth**2).sum(axis=0))
    correlations = (inside * truth).sum(axis=1) / np.where(length > 0, length, np.inf)
    flat = predictions.reshape(len(predictions), -1)
    return correlations.mean(axis=1), flat @ y.ravel(), flat @ flat.T


def _fewer_rows(x: np.ndarray, y: np.ndarray, scaling: Pair, about: Pair | None = None) -> Three:
    """The mean of standardized features; and features and targets of fewer rows, which stand for all spots.

    They have the same sums of squares and products about the means, the last one about means that are given. Where
    features are wide, and ``y`` in single precision, it is all rows.
    """
    d, n, width = x.shape[1], len(x), x.shape[1] + y.shape[1]
    reduce = n > width and y.dtype != np.float32
    total, gram, step = np.zeros(width), np.zeros((width, width)), max(BLOCK, width) if reduce else n
    for start in range(0, n, step):
        z = np.hstack([standardize(x[start : start + step], *scaling), y[start : start + step]])
        total += z.sum(axis=0)
        if reduce:
            gram += z.T @ z
    mean = (total / n).astype(z.dtype)
    if reduce:
        gram += ROUNDING * n * np.eye(width) - n * np.outer(mean, mean)
    level = np.sqrt(n) * (mean - (mean if about is None else np.concatenate(about)))
    rows = np.vstack([np.linalg.cholesky(gram).T if reduce else z - mean, level])
    return mean[:d], rows[:, :d], rows[:, d:]
