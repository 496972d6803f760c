"""Learners that look at no pixel: what any other must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from h2e._learners.heads import check_training
from h2e._learners.learner import Learner, Model
from h2e._learners.nearest import NearestModel
from h2e._statistics import group_mean
from h2e._warnings import refuse_if


@dataclass(frozen=True)
class MeanModel(Model):
    """The same values everywhere."""

    mean: np.ndarray  # (targets,)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """One row per row of ``x``."""
        return np.tile(self.mean, (len(x), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """The mean."""
        return {"mean": self.mean}


@dataclass(frozen=True)
class Mean(Learner):
    """The mean of each target over the training spots, every group weighing the same.

    Examples
    --------
    >>> model = Mean().fit(np.zeros((3, 2)), np.array([[1.0], [3.0], [5.0]]), np.array(["A", "A", "B"]))
    >>> model.predict(np.zeros((1, 2)))
    array([[3.5]], dtype=float32)
    """

    name = "mean"
    uses = "xy"

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> MeanModel:
        """Average ``y``."""
        check_training(x, y, groups)
        return MeanModel(group_mean(y, np.asarray(groups)).astype(np.float32))

    def restore(self, arrays: dict[str, np.ndarray]) -> MeanModel:
        """Make the model of these arrays."""
        return MeanModel(arrays["mean"])


@dataclass(frozen=True)
class Coordinates(Learner):
    """The mean of the ``k`` training spots that lie nearest on their slides: how far does position alone go?

    Examples
    --------
    >>> xy, y = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[1.0], [3.0]])
    >>> Coordinates(k=1).fit(xy, y, np.array(["A", "B"])).predict(np.array([[2.0, 1.0]]))
    array([[1.]], dtype=float32)
    """

    name = "coordinates"
    uses = "xy"
    k: int = 8

    def __post_init__(self) -> None:
        refuse_if(self.k < 1, f"k must be at least 1, got {self.k}.")

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> NearestModel:
        """Keep the spots."""
        check_training(x, y, groups)
        n_columns = x.shape[1]
        return NearestModel(np.zeros(n_columns), np.ones(n_columns), x.astype(np.float32), y.astype(np.float32), self.k)

    def restore(self, arrays: dict[str, np.ndarray]) -> NearestModel:
        """Make the model of these arrays."""
        return NearestModel.restore(arrays)
