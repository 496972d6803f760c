"""From features to targets: ridge, partial least squares and nearest neighbours, settings chosen by inner group folds.

Features are standardized by the training spots and clipped, and what is not predictable is drawn towards the mean.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from h2e._learners.learner import Learner, Model
from h2e._learners.linear import LinearModel, fit_linear
from h2e._learners.nearest import NearestModel, fit_nearest
from h2e._warnings import refuse, refuse_if

Head = Literal["ridge", "knn", "pls"]
HEADS = get_args(Head)


class HeadLearner(Learner):
    """A learner whose features go to ridge, partial least squares or nearest neighbours; nothing in it is random."""

    head: Head
    k: int
    setting: float | None

    def __post_init__(self) -> None:
        refuse_if(self.head not in HEADS, f"head must be one of {list(HEADS)}, got {self.head!r}.")
        refuse_if(self.k < 1, f"k must be at least 1, got {self.k}.")

    @property
    def feature_key(self) -> Learner:
        """The learner with the default head: features do not depend on it."""
        return replace(self, head="ridge", k=30, setting=None)  # type: ignore[type-var]

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> Model:
        """Fit the head."""
        check_training(x, y, groups)
        if self.head == "knn":
            return fit_nearest(x, y, groups, k=self.k)
        return fit_linear(x, y, groups, kind=self.head, setting=self.setting)

    def restore(self, arrays: dict[str, np.ndarray]) -> Model:
        """Make the model of these arrays."""
        return NearestModel.restore(arrays) if self.head == "knn" else LinearModel(**arrays)


def check_training(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
    """Raise unless there is something to learn, row by row."""
    if len(x) == 0 or not len(x) == len(y) == len(groups) or np.ndim(y) != 2:
        shapes = f"{np.shape(x)}, {np.shape(y)} and {np.shape(groups)}"
        refuse(f"x, y (spots × targets) and groups must be of the same spots, got {shapes}.")
    for name, values in {"x": x, "y": y}.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            refuse(f"{name} must be finite; drop the spots without a measurement or features first.")
