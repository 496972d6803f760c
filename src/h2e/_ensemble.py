"""The ensemble: models that each left one group out, models of all groups, and the stack that combines the learners."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e import _store
from h2e._learners import Learner, from_json, label_of, to_json
from h2e._stack import Stack
from h2e._transforms import Transform
from h2e.pp._stain_reference import StainReference

if TYPE_CHECKING:
    from os import PathLike

log = logging.getLogger(__name__)

ALL = "–"
"""In place of the group left out: the models of all groups."""

TRANSFORM = ("ranks", "values", "limits")
"""Arrays of a transform."""

HISTORY = {"learner": object, "held_out": object, "epoch": int, "loss": float, "seconds": float}
"""Columns of ``Ensemble.history``."""

ENOUGH_GROUPS = 3
"""A model of fewer groups than this takes no part in predictions beside the model of all: measured, it makes them worse."""


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots as arrays: whose they are, what each learner sees of them, and the truth."""

    slides: np.ndarray  # (n,) names
    groups: np.ndarray  # (n,) names
    x: Mapping[str, np.ndarray]  # by name of learner, (n, …)
    y: np.ndarray  # (n, targets) float32

    def take(self, rows: np.ndarray) -> Spots:
        """Some of the spots."""
        return Spots(self.slides[rows], self.groups[rows], {k: v[rows] for k, v in self.x.items()}, self.y[rows])


@dataclass(frozen=True, eq=False)
class Member:
    """One trained model."""

    learner: str
    held_out: str  # group, or ALL
    model: Any
    transform: Transform

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, targets) in the unit of the targets."""
        return self.transform.invert(self.model.predict(x))


def names_of(learners: Sequence[Learner]) -> list[str]:
    """A name for each learner; the second of a kind is numbered.

    Examples
    --------
    >>> from h2e._learners import Texture
    >>> names_of([Texture(), Texture(head="knn"), Texture(setting=0.1)])
    ['texture', 'knn', 'texture 2']
    """
    kinds = [label_of(learner) for learner in learners]
    numbers = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [kind if number == 1 else f"{kind} {number}" for kind, number in zip(kinds, numbers, strict=True)]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What :func:`h2e.tl.fit` returns: everything that a prediction needs, and the held-out predictions.

    ``loo`` holds the held-out predictions of the training spots, indexed by region and instance: each the mean over
    the learners of models that did not see the spot's group. ``history`` is a tidy table of training losses.
    """

    targets: tuple[str, ...]
    learners: tuple[Learner, ...]
    members: tuple[Member, ...]
    stack: Stack
    loo: pd.DataFrame
    training: pd.DataFrame  # per training spot: slide, group
    thumbnails: Mapping[str, np.ndarray]  # by region, mean colours of parts of its image
    history: pd.DataFrame
    spacing_um: float
    reference: StainReference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain numbers and strings

    def __repr__(self) -> str:
        groups = sorted(self.training["group"].unique())
        learners = " + ".join(names_of(self.learners))
        return (
            f"Ensemble of {len(self.members)} models ({learners}; stack: {self.stack.kind}) for {len(self.targets)} targets, "
            f"trained on {len(self.training)} spots of {self.training['slide'].nunique()} slides, leaving out {groups}"
        )

    def predict(self, x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and spread (standard deviation over the models), both (n, targets), in the unit of the targets."""
        means, every = [], []
        for name in names_of(self.learners):
            mean, predictions = self._of_learner(x[name], name)
            means.append(mean)
            every.extend(predictions)
        return self.stack.combine(np.stack(means)), np.std(every, axis=0)

    def predict_alone(self, x: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """What one learner says, (n, targets)."""
        return self._of_learner(x[name], name)[0]

    def _of_learner(self, x: np.ndarray, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """Mean over the models of one learner that saw enough groups, and what each of its models says."""
        members = [member for member in self.members if member.learner == name]
        predictions = [member.predict(x) for member in members]
        enough = self.training["group"].nunique() > ENOUGH_GROUPS
        heard = [p for m, p in zip(members, predictions, strict=True) if enough or m.held_out == ALL]
        return np.mean(heard, axis=0), predictions

    def save(self, folder: str | PathLike) -> None:
        """Write the ensemble to a new folder: ``ensemble.json`` and ``weights.safetensors``.

        Parameters
        ----------
        folder
            Must not exist, be empty, or hold an ensemble, which is replaced.

        Examples
        --------
        >>> import h2e, tempfile
        >>> ensemble = h2e.tl.fit(h2e.datasets.toy_cohort(), learners="mean", group_key="donor", progress=False)
        >>> folder = tempfile.mkdtemp()
        >>> ensemble.save(folder)
        >>> h2e.Ensemble.load(folder).targets == ensemble.targets
        True
        """
        arrays = {"stack/center": self.stack.center, "stack/weights": self.stack.weights, "loo": self.loo.to_numpy()}
        arrays |= {f"thumbnail/{region}": colours for region, colours in self.thumbnails.items()}
        for i, member in enumerate(self.members):
            parts = {key: getattr(member.transform, key) for key in TRANSFORM}
            parts |= {f"model/{key}": value for key, value in member.model.arrays().items()}
            arrays |= {f"{i}/{key}": value for key, value in parts.items()}
        about = {
            "targets": list(self.targets),
            "learners": [to_json(learner) for learner in self.learners],
            "members": [[m.learner, m.held_out, m.transform.kind] for m in self.members],
            "stack": self.stack.kind,
            "index": [[str(region), str(instance)] for region, instance in self.loo.index],
            "training": self.training.reset_index(drop=True).to_dict("list"),
            "history": self.history.to_dict("list"),
            "spacing_um": self.spacing_um,
            "reference": None if self.reference is None else self.reference.to_dict(),
            "settings": dict(self.settings),
        }
        _store.save(Path(folder), about, arrays)
        log.info("wrote ensemble to %s", folder)

    @classmethod
    def load(cls, folder: str | PathLike, *, encoders: Mapping[str, Any] | None = None) -> Ensemble:
        """Read an ensemble that :meth:`save` wrote; nothing is unpickled.

        Parameters
        ----------
        folder
            What :meth:`save` wrote.
        encoders
            The encoder of each learner that has one, by the learner's name: code is not stored.

        Raises
        ------
        FileNotFoundError
            There is no ensemble.
        ValueError
            A file is damaged, changed, or of a newer format.
        """
        about, arrays = _store.load(Path(folder))
        names = names_of([from_json(text) for text in about["learners"]])
        unknown = sorted(set(encoders or {}) - set(names))
        if unknown:
            msg = f"encoders {unknown} belong to no learner of the ensemble; it has {names}."
            raise ValueError(msg)
        pairs = zip(about["learners"], names, strict=True)
        learners = tuple(from_json(text, encoder=(encoders or {}).get(name)) for text, name in pairs)
        by_name = dict(zip(names_of(learners), learners, strict=True))
        members = []
        for i, (name, held_out, kind) in enumerate(about["members"]):
            prefix = f"{i}/model/"
            own = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            transform = Transform(kind, **{key: arrays[f"{i}/{key}"] for key in TRANSFORM})
            members.append(Member(name, held_out, by_name[name].restore(own), transform))
        index = pd.MultiIndex.from_tuples([tuple(pair) for pair in about["index"]], names=["region", "instance"])
        return cls(
            targets=tuple(about["targets"]),
            learners=learners,
            members=tuple(members),
            stack=Stack(about["stack"], arrays["stack/center"], arrays["stack/weights"]),
            loo=pd.DataFrame(arrays["loo"], index=index, columns=about["targets"]),
            training=pd.DataFrame(about["training"], index=index),
            thumbnails={k.removeprefix("thumbnail/"): a for k, a in arrays.items() if k.startswith("thumbnail/")},
            history=pd.DataFrame(about["history"]).astype(HISTORY),
            spacing_um=about["spacing_um"],
            reference=None if about["reference"] is None else StainReference.from_dict(about["reference"]),
            settings=about["settings"],
        )
