"""The models of an ensemble, each with the group that it did not see, and the spots that they are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from h2e._ensemble.transforms import Transform
from h2e._learners.learner import Learner, Model
from h2e._statistics import Matrix
from h2e._warnings import refuse_if

ALL = "–"
"""In place of the group left out: the models of all groups."""

ENOUGH_GROUPS = 3
"""Models of fewer groups than this take no part in an average with the model of all: measured, they make it worse."""


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots as arrays: their slides and groups, what each learner sees of them, and their targets."""

    slides: np.ndarray  # (n,) names
    groups: np.ndarray  # (n,) names
    x: Mapping[str, np.ndarray]  # by name of learner, (n, …)
    y: np.ndarray  # (n, targets) float32
    # (n, all genes), log-normalized; None where targets are no genes
    genes: Matrix | None = None

    def take(self, rows: np.ndarray | slice) -> Spots:
        """Some of the spots; learners that share features share them still."""
        rows = in_one_piece(rows)
        genes = None if self.genes is None else self.genes[rows]
        taken = {key: features[rows] for key, features in {id(v): v for v in self.x.values()}.items()}
        x = {name: taken[id(features)] for name, features in self.x.items()}
        return Spots(self.slides[rows], self.groups[rows], x, self.y[rows], genes)


@dataclass(frozen=True, eq=False)
class FoldModel:
    """One trained model."""

    learner: str
    held_out: str  # group, or ALL
    model: Model
    transform: Transform
    history: Sequence[Mapping[str, float]] = ()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, targets) in the unit of the targets."""
        return self._invert(self.model.predict(x), len(x))

    def tta_predictions(self, x: np.ndarray) -> np.ndarray:
        """(k, n, targets): predictions of each turn and flip of the tiles, where the model makes them; else k is 1."""
        return np.stack([self._invert(z, len(x)) for z in self.model.tta_predictions(x)])

    def _invert(self, z: np.ndarray, n: int) -> np.ndarray:
        """Bring what a model predicts back to the unit of the targets."""
        z, shape = np.asarray(z), (n, self.transform.ranks.shape[1])
        wrong = f"shape {z.shape}" if z.shape != shape else "" if np.isfinite(z).all() else "NaN or infinite values"
        told = f"predictions of learner {self.learner!r} must be finite numbers of shape {shape}, got {wrong}."
        refuse_if(wrong, told)
        return self.transform.invert(z)


def names_of(learners: Sequence[Learner]) -> list[str]:
    """A name for each learner; the second of a kind is numbered.

    Examples
    --------
    >>> from h2e._learners.texture import Texture
    >>> names_of([Texture(), Texture(head="knn"), Texture(setting=0.1)])
    ['texture', 'knn', 'texture 2']
    """
    labels = [learner.label for learner in learners]
    numbered = [(label, labels[: i + 1].count(label)) for i, label in enumerate(labels)]
    return [label if number == 1 else f"{label} {number}" for label, number in numbered]


def in_one_piece(rows: np.ndarray | slice) -> np.ndarray | slice:
    """The same sorted rows as a slice, which copies nothing, where none between them is left out.

    Examples
    --------
    >>> in_one_piece(np.array([2, 3, 4])), in_one_piece(np.array([2, 4]))
    (slice(2, 5, None), array([2, 4]))
    """
    if isinstance(rows, slice) or len(rows) == 0 or (np.diff(rows) != 1).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1)


def averaged_members(members: Sequence[FoldModel], learner: str, n_groups: int) -> list[FoldModel]:
    """The models of a learner whose mean is its prediction: those that saw enough groups."""
    enough = n_groups > ENOUGH_GROUPS
    return [member for member in members if member.learner == learner and (enough or member.held_out == ALL)]
