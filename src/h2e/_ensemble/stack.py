"""Stacks: how several predictions of a spot become one, learned from out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from h2e._ensemble.fold_models import FoldModel, Spots, averaged_members
from h2e._learners.folds import derive_seed, validation_group
from h2e._statistics import center_by_slide, group_mean

if TYPE_CHECKING:
    from h2e._ensemble.mlp import MlpStack

StackKind = Literal["mean", "ridge", "mlp", "in_sample", "nested"]
STACKS: tuple[StackKind, ...] = get_args(StackKind)
"""The plain mean over learners; non-negative weights per target, shrunk towards the mean; a multilayer perceptron; and
the same perceptron on predictions of the model of every fold, also for spots that it was trained on, or only for
others."""

PER_MODEL = ("in_sample", "nested")
"""Stacks whose inputs are the models of every fold; those of others are the learners, each the mean of its models."""

MIN_GROUPS = 3
"""With fewer groups there is nothing to choose on, and every stack is the mean."""

PENALTIES = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])


FEW_SPOTS = 512
"""So many training spots tell how much less an average of models varies than one of them."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Weights of the learners, per target: ``center + Σ weights · (prediction − center)``."""

    kind: str
    center: np.ndarray  # (targets,)
    weights: np.ndarray  # (learners, targets)

    def combine(self, predictions: np.ndarray) -> np.ndarray:
        """(learners, n, targets) → (n, targets), ``float32``."""
        return (self.center + np.einsum("lnt,lt->nt", predictions - self.center, self.weights)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The centre and the weights."""
        return {"center": self.center, "weights": self.weights}


def fit_stack(
    kind: StackKind, predictions: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int = 0
) -> Stack | MlpStack:
    """Learn a stack from out-of-fold predictions.

    The penalty of the ridge is chosen by leaving groups out once more, among the out-of-fold predictions; the plain
    mean is one of the candidates and is kept unless a ridge beats it. With fewer than ``MIN_GROUPS`` groups the stack
    is the mean. The perceptron stops by the error of a group that it is not trained on; as ``"in_sample"``, as in the
    method's source, by that of a fifth of the spots at random.

    Parameters
    ----------
    kind
        One of ``STACKS``.
    predictions
        (inputs, n, targets), each for spots whose group the model did not see (but for ``"in_sample"``).
    y
        (n, targets), the truth in the same unit.
    groups
        (n,) group of each spot; groups weigh the same, whatever their number of spots.
    """
    names = np.unique(groups)
    if kind == "mean" or len(names) < MIN_GROUPS:
        return _mean_stack(predictions, y, groups)
    if kind == "ridge":
        return _best_ridge(predictions, y, groups)
    from h2e._ensemble.mlp import fit_mlp

    validation = validation_group(groups)
    if kind == "in_sample":
        validation = np.random.default_rng(derive_seed(seed, "in_sample")).random(len(y)) < 0.2
    return fit_mlp(kind, predictions, y, validation, seed=derive_seed(seed, kind, *names))


def cross_fitted(
    kind: StackKind, predictions: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Predictions of each group by a stack that is fitted without the group, (n, targets)."""
    out = np.empty(y.shape, np.float32)
    for name in np.unique(groups):
        inner, outer = groups != name, groups == name
        stack = fit_stack(kind, predictions[:, inner], y[inner], groups[inner], seed=seed)
        out[outer] = stack.combine(predictions[:, outer])
    return out


def restore_stack(kind: str, arrays: dict[str, np.ndarray]) -> Stack | MlpStack:
    """Make the stack of these arrays."""
    if "center" in arrays:
        return Stack(kind, arrays["center"], arrays["weights"])
    from h2e._ensemble.mlp import MlpStack

    return MlpStack(kind, arrays)


def _best_ridge(predictions: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Stack:
    """The ridge of the best penalty by groups left out, or the mean if none beats it."""
    fits: list[Callable[..., Stack]] = [_mean_stack, *(partial(_ridge_stack, penalty=p) for p in PENALTIES)]
    errors = np.zeros((len(fits), y.shape[1]))
    for name in np.unique(groups):
        inner, outer = groups != name, groups == name
        for error, fit in zip(errors, fits, strict=True):
            stack = fit(predictions[:, inner], y[inner], groups[inner])
            error += ((stack.combine(predictions[:, outer]) - y[outer]) ** 2).mean(axis=0)
    variance = np.maximum(y.var(axis=0), 1e-12)
    return fits[int((errors / variance).mean(axis=1).argmin())](predictions, y, groups)


def _mean_stack(predictions: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Stack:
    """Every learner weighs the same."""
    return Stack("mean", group_mean(y, groups), np.full((len(predictions), y.shape[1]), 1 / len(predictions)))


def _ridge_stack(predictions: np.ndarray, y: np.ndarray, groups: np.ndarray, penalty: float) -> Stack:
    """Non-negative least squares per target, with a ridge towards the mean over learners."""
    from scipy.optimize import nnls

    center = group_mean(y, groups)
    n_learners, _, n_targets = predictions.shape
    # Groups weigh the same, whatever their number of spots.
    _, code, size = np.unique(groups, return_inverse=True, return_counts=True)
    root = np.sqrt(1 / (len(size) * size[code]))
    weights = np.empty((n_learners, n_targets))
    for t in range(n_targets):
        x = (predictions[:, :, t] - center[t]) * root
        scale = np.sqrt(penalty * max((x**2).sum() / n_learners, 1e-12))
        design = np.vstack([x.T, scale * np.eye(n_learners)])
        target = np.concatenate([(y[:, t] - center[t]) * root, np.full(n_learners, scale / n_learners)])
        weights[:, t] = nnls(design, target)[0]
    return Stack("ridge", center, weights)


def for_averages(
    stack: Stack | MlpStack, spots: Spots, members: Sequence[FoldModel], names: Sequence[str]
) -> Stack | MlpStack:
    """A stack that was fitted on predictions of single models, for the averages of models that it combines.

    An average has the covariance with the truth that the single models have, but less variance. Least-squares weights
    are covariance over variance, so they are divided by the ratio of the variances.
    """
    if not isinstance(stack, Stack) or stack.kind == "mean":
        return stack
    return replace(stack, weights=stack.weights / averaging_ratio(spots, members, names))


def averaging_ratio(spots: Spots, members: Sequence[FoldModel], names: Sequence[str]) -> np.ndarray:
    """Variance within slides of the average of a learner's models over that of one of them, (learners, targets)."""
    few = np.unique(np.linspace(0, len(spots.y) - 1, FEW_SPOTS).astype(int))
    slides, n_groups = spots.slides[few], len(np.unique(spots.groups))
    ratio = np.ones((len(names), spots.y.shape[1]))
    for k, name in enumerate(names):
        averaged = averaged_members(members, name, n_groups)
        each = center_by_slide(np.stack([member.predict(spots.x[name][few]) for member in averaged]), slides)
        single, average = (each**2).mean(axis=(0, 1)), (each.mean(axis=0) ** 2).mean(axis=0)
        ratio[k] = np.where(single > 0, average / np.where(single > 0, single, 1), 1)
    return np.clip(ratio, 0.5, 1)
