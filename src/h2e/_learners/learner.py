"""The interface of what learns: subclass ``Learner`` and ``Model``, and h2e trains, scores and stores your model."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from h2e._slide.tiles import View
from h2e._warnings import refuse, refuse_if

Uses = Literal["tiles", "xy", "obsm"]

OF_MACHINE = ("cache", "device")
"""Settings of the machine, not of the model; they are not stored."""


class Model(ABC):
    """A trained model, as :meth:`Learner.fit` returns it."""

    history: Sequence[Mapping[str, float]] = ()
    """For each epoch a dict of ``"epoch"``, ``"loss"`` and ``"seconds"``; empty where nothing is trained in epochs."""

    @abstractmethod
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict each spot, whatever other spots there are.

        Parameters
        ----------
        x
            What :meth:`Learner.fit` got, of other spots.

        Returns
        -------
        Finite numbers, spots × columns of the ``y`` that the model was trained on.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Give all that :meth:`Learner.restore` needs, as arrays of numbers by name."""

    def tta_predictions(self, x: np.ndarray) -> np.ndarray:
        """Predict several versions of each spot (test-time augmentation), of which :meth:`predict` gives the mean.

        Parameters
        ----------
        x
            As for :meth:`predict`.

        Returns
        -------
        Versions × spots × columns; by default one version. Their standard deviation is part of ``obsm["h2e_std"]``.
        """
        return np.asarray(self.predict(x))[None]


class Learner(ABC):
    """How a model is trained: what it sees of a spot, and how it learns from it.

    A learner of your own is a frozen dataclass that derives from this class. Its fields are its settings: numbers,
    strings, views, or tuples of them, which are stored with the ensemble as JSON. Fields called ``cache`` and
    ``device`` belong to the machine and are not stored. :doc:`/learners` shows one from beginning to end.

    Examples
    --------
    >>> import h2e
    >>> h2e.tl.Texture(head="knn", k=5).settings()["k"]
    5
    """

    name: str
    """Name in scores and in files, an identifier that no learner of h2e has."""

    uses: Uses
    """Input of the model, one of ``"tiles"``, ``"xy"`` (µm from the middle of the tissue), ``"obsm"`` (features)."""

    views: tuple[View, ...] = ()
    """With ``uses = "tiles"``: the squares of the image that are cut out around each spot."""

    obsm: str | None = None
    """With ``uses = "obsm"``: the key of ``table.obsm`` that holds the features."""

    @property
    def label(self) -> str:
        """What it is called among the learners of one ensemble; by default its name."""
        return self.name

    @property
    def feature_key(self) -> Learner:
        """A learner that extracts the same features, one for all that do; by default each for itself."""
        return self

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Turn the tiles of a batch of spots into what the model is trained on; needed with ``uses = "tiles"``.

        Parameters
        ----------
        tiles
            For each view an array of spots × 3 × px × px, ``uint8``.

        Returns
        -------
        A row (of any shape) per spot, which must not depend on the other spots of the batch.
        """
        raise NotImplementedError

    @abstractmethod
    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int, progress: bool, label: str) -> Model:
        """Train a model.

        Parameters
        ----------
        x
            Features of the training spots, a row per spot; read-only, for other models are trained on the same memory.
        y
            What to predict, spots × columns, ``float32``: values that ``transform`` made of the targets.
        groups
            Name of the group (donor) of each spot, for choices by groups that are left out.
        seed
            The same for the same training spots.
        progress
            Whether to show a progress bar.
        label
            What to call the bar.

        Returns
        -------
        The model.
        """

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray]) -> Model:
        """Make the model again that :meth:`Model.arrays` described.

        Parameters
        ----------
        arrays
            What :meth:`Model.arrays` gave.

        Returns
        -------
        A model that predicts the same.
        """

    def settings(self) -> dict[str, Any]:
        """Give the settings that are stored; by default all fields but ``cache`` and ``device``."""
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names if name not in OF_MACHINE}


def check_interface(learner: Learner) -> None:
    """Raise unless a learner has all that h2e needs, and can be stored and told from others."""
    kind, name, uses = type(learner), getattr(learner, "name", None), getattr(learner, "uses", None)
    try:
        hash((learner, dataclasses.fields(learner)))  # type: ignore[arg-type]
    except TypeError as error:
        msg = f"learner {kind.__name__} must be a frozen dataclass, @dataclass(frozen=True), with settings that can be "
        msg += f"hashed, such as tuples in place of lists, got {error}."
        raise TypeError(msg) from error
    if not isinstance(name, str) or not name.isidentifier() or name == "ensemble":
        refuse(f"name of learner {kind.__name__} must be an identifier other than 'ensemble', got {name!r}.")
    known = list(get_args(Uses))
    refuse_if(uses not in known, f"uses of learner {name!r} must be one of {known}, got {uses!r}.")
    has = {
        "views": uses != "tiles" or learner.views,
        "extract_features": uses != "tiles" or kind.extract_features is not Learner.extract_features,
        "obsm": uses != "obsm" or learner.obsm,
    }
    if lacking := [part for part in has if not has[part]]:
        refuse(f"learner {name!r} must have {' and '.join(lacking)}, since its uses is {uses!r}.", TypeError)


def checked_features(learner: Learner, tiles: list[np.ndarray]) -> np.ndarray:
    """Extract features, and raise unless they are numbers, a row per spot."""
    x, n = np.asarray(learner.extract_features(tiles)), len(tiles[0])
    if x.ndim < 2 or len(x) != n or x.dtype.kind not in "biuf" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
        msg = f"extract_features of learner {learner.name!r} must return finite numbers, a row for each of {n} spots, "
        refuse(msg + f"got {x.dtype} {x.shape}.")
    return x


def checked_arrays(learner: Learner, model: Model) -> dict[str, np.ndarray]:
    """Give the arrays of a trained model, and raise unless they can be stored."""
    if not isinstance(model, Model):
        refuse(f"fit of learner {learner.name!r} must return an h2e.tl.Model, got {type(model).__name__}.", TypeError)
    arrays = model.arrays()
    if wrong := [key for key, a in arrays.items() if not isinstance(a, np.ndarray) or a.dtype.kind not in "biuf"]:
        msg = f"arrays of a model of learner {learner.name!r} must be numpy arrays of numbers, but {wrong} are not."
        raise TypeError(msg)
    return arrays
