"""Learners that look at no pixel: what any other must beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from h2e._learners.heads import NearestModel, check_y
from h2e._slide.tiles import View


@dataclass(frozen=True)
class MeanModel:
    """The same values everywhere."""

    mean: np.ndarray  # (targets,)
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """One row per row of ``x``."""
        return np.tile(self.mean, (len(x), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """What to store."""
        return {"mean": self.mean}


@dataclass(frozen=True)
class Mean:
    """The mean of each target over the training spots, every group weighing the same.

    Examples
    --------
    >>> model = Mean().fit(np.zeros((3, 2)), np.array([[1.0], [3.0], [5.0]]), np.array(["A", "A", "B"]))
    >>> model.predict(np.zeros((1, 2)))
    array([[3.5]], dtype=float32)
    """

    name: ClassVar[str] = "mean"
    uses: ClassVar[str] = "xy"
    views: ClassVar[tuple[View, ...]] = ()

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> MeanModel:
        """Average ``y``."""
        check_y(x, y, groups)
        groups = np.asarray(groups)
        means = [y[groups == group].mean(0, dtype=np.float64) for group in np.unique(groups)]
        return MeanModel(np.mean(means, axis=0).astype(np.float32))

    def restore(self, arrays: dict[str, np.ndarray]) -> MeanModel:
        """The model that the arrays came from."""
        return MeanModel(arrays["mean"])


@dataclass(frozen=True)
class Coordinates:
    """The mean of the ``k`` training spots that lie nearest on their slides: how far does position alone go?

    Examples
    --------
    >>> xy, y = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[1.0], [3.0]])
    >>> Coordinates(k=1).fit(xy, y, np.array(["A", "B"])).predict(np.array([[2.0, 1.0]]))
    array([[1.]], dtype=float32)
    """

    name: ClassVar[str] = "coordinates"
    uses: ClassVar[str] = "xy"
    views: ClassVar[tuple[View, ...]] = ()
    k: int = 8

    def __post_init__(self) -> None:
        if self.k < 1:
            msg = f"coordinates needs k ≥ 1 neighbours, got {self.k}."
            raise ValueError(msg)

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> NearestModel:
        """Keep the spots."""
        check_y(x, y, groups)
        n_columns = x.shape[1]
        return NearestModel(np.zeros(n_columns), np.ones(n_columns), x.astype(np.float32), y.astype(np.float32), self.k)

    def restore(self, arrays: dict[str, np.ndarray]) -> NearestModel:
        """The model that the arrays came from."""
        return NearestModel.restore(arrays)
