"""Stacks: how the predictions of several learners become one, learned from out-of-fold predictions only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STACKS = ("mean", "ridge")
"""The plain mean over learners; non-negative weights per target, shrunk towards the mean."""

PENALTIES = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Weights of the learners, per target: ``center + Σ weights · (prediction − center)``."""

    kind: str
    center: np.ndarray  # (targets,)
    weights: np.ndarray  # (learners, targets)

    def combine(self, predictions: np.ndarray) -> np.ndarray:
        """(learners, n, targets) → (n, targets), ``float32``."""
        return (self.center + np.einsum("lnt,lt->nt", predictions - self.center, self.weights)).astype(np.float32)


def fit_stack(kind: str, predictions: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Stack:
    """Learn a stack from out-of-fold predictions.

    The penalty of the ridge is chosen by leaving groups out once more, among the out-of-fold predictions; the plain mean
    is one of the candidates and is kept unless a ridge beats it. With fewer than three groups there is nothing to
    choose on, and the stack is the mean.

    Parameters
    ----------
    predictions
        (learners, n, targets), each for spots whose group the model did not see.
    y
        (n, targets), the truth in the same unit.
    groups
        (n,) group of each spot; groups weigh the same, whatever their number of spots.
    """
    if kind not in STACKS:
        msg = f"stack {kind!r} is not one of {list(STACKS)}."
        raise ValueError(msg)
    mean = _mean_stack(predictions, y, groups)
    names = np.unique(groups)
    if kind == "mean" or len(names) < 3:
        return mean
    errors = np.zeros((len(PENALTIES) + 1, y.shape[1]))
    for name in names:
        inner, outer = groups != name, groups == name
        candidates = [_mean_stack(predictions[:, inner], y[inner], groups[inner])]
        candidates += [_ridge_stack(predictions[:, inner], y[inner], groups[inner], p) for p in PENALTIES]
        for i, stack in enumerate(candidates):
            errors[i] += ((stack.combine(predictions[:, outer]) - y[outer]) ** 2).mean(axis=0)
    variance = np.maximum(y.var(axis=0), 1e-12)
    best = int((errors / variance).mean(axis=1).argmin())
    return mean if best == 0 else _ridge_stack(predictions, y, groups, PENALTIES[best - 1])


def _mean_stack(predictions: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Stack:
    """Every learner weighs the same."""
    n_learners = len(predictions)
    weights = np.full((n_learners, y.shape[1]), 1 / n_learners)
    return Stack("mean", group_mean(y, groups), weights)


def _ridge_stack(predictions: np.ndarray, y: np.ndarray, groups: np.ndarray, penalty: float) -> Stack:
    """Non-negative least squares per target, with a ridge towards the mean over learners."""
    from scipy.optimize import nnls

    center = group_mean(y, groups)
    n_learners, _, n_targets = predictions.shape
    size = {name: (groups == name).sum() for name in np.unique(groups)}
    root = np.sqrt(np.array([1 / (len(size) * size[g]) for g in groups]))  # groups weigh the same
    weights = np.empty((n_learners, n_targets))
    for t in range(n_targets):
        x = (predictions[:, :, t] - center[t]) * root
        scale = np.sqrt(penalty * max((x**2).sum() / n_learners, 1e-12))
        design = np.vstack([x.T, scale * np.eye(n_learners)])
        target = np.concatenate([(y[:, t] - center[t]) * root, np.full(n_learners, scale / n_learners)])
        weights[:, t] = nnls(design, target)[0]
    return Stack("ridge", center, weights)


def group_mean(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean over groups of the mean of their spots, per target."""
    return np.mean([y[groups == name].mean(axis=0) for name in np.unique(groups)], axis=0)
