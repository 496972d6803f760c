"""Members of an ensemble: single trained models, each with the group that it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from h2e._ensemble.transforms import Transform
from h2e._learners.registry import Learner, label_of

ALL = "–"
"""In place of the group left out: the models of all groups."""

ENOUGH_GROUPS = 3
"""A model of fewer groups than this takes no part in predictions beside the model of all: measured, it makes them worse."""


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots as arrays: whose they are, what each learner sees of them, and the truth."""

    slides: np.ndarray  # (n,) names
    groups: np.ndarray  # (n,) names
    x: Mapping[str, np.ndarray]  # by name of learner, (n, …)
    y: np.ndarray  # (n, targets) float32
    genes: np.ndarray | sparse.csr_matrix | None = (
        None  # (n, all genes), log-normalized; None where targets are no genes
    )

    def take(self, rows: np.ndarray) -> Spots:
        """Some of the spots."""
        genes = None if self.genes is None else self.genes[rows]
        return Spots(self.slides[rows], self.groups[rows], {k: v[rows] for k, v in self.x.items()}, self.y[rows], genes)


@dataclass(frozen=True, eq=False)
class FoldModel:
    """One trained model."""

    learner: str
    held_out: str  # group, or ALL
    model: Any
    transform: Transform

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, targets) in the unit of the targets."""
        return self.transform.invert(self.model.predict(x))

    def tta_predictions(self, x: np.ndarray) -> np.ndarray:
        """(k, n, targets): what a network says of each turn and flip of the tiles, of which it predicts the mean; else one."""
        if not hasattr(self.model, "tta_predictions"):
            return self.predict(x)[None]
        return np.stack([self.transform.invert(z) for z in self.model.tta_predictions(x)])


def names_of(learners: Sequence[Learner]) -> list[str]:
    """A name for each learner; the second of a kind is numbered.

    Examples
    --------
    >>> from h2e._learners.texture import Texture
    >>> names_of([Texture(), Texture(head="knn"), Texture(setting=0.1)])
    ['texture', 'knn', 'texture 2']
    """
    kinds = [label_of(learner) for learner in learners]
    numbers = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [kind if number == 1 else f"{kind} {number}" for kind, number in zip(kinds, numbers, strict=True)]


def averaged_members(members: Sequence[FoldModel], learner: str, n_groups: int) -> list[FoldModel]:
    """The members of a learner whose mean is its prediction: those that saw enough groups."""
    enough = n_groups > ENOUGH_GROUPS
    return [member for member in members if member.learner == learner and (enough or member.held_out == ALL)]
