"""Learners: what is trained on tiles or positions, behind one small interface.

A learner is a frozen dataclass of plain settings with

``name``, ``uses``
    what it is called; what ``x`` is: ``"tiles"`` or ``"xy"`` (positions in µm from the middle of the tissue).
``views``
    the ``View`` of each tile that it wants, empty for ``uses="xy"``.
``look(tiles) -> x``
    what it keeps of a batch of tiles (one array per view), row by row: features, or the tiles themselves.
``fit(x, y, groups, *, seed, progress, label) -> model``
    ``y`` float32 (n, targets); ``groups`` (n,) tells the donors, for its own inner choices.
``restore(arrays) -> model``
    the model that ``model.arrays()`` came from.

A model has ``predict(x) -> float32 (n, targets)``, ``arrays() -> dict of numpy arrays`` and ``history``, a list of dicts.
"""

from __future__ import annotations

import dataclasses
import json
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from h2e._learners.baselines import Coordinates, Mean
from h2e._learners.embedding import Embedding
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture
from h2e._slide.tiles import View

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

Learner = Multiscale | Texture | Embedding | Mean | Coordinates

LEARNERS: dict[str, type[Learner]] = {kind.name: kind for kind in (Multiscale, Texture, Embedding, Mean, Coordinates)}
"""Learners by name."""

DEFAULT_LEARNERS = ("texture", "knn", "pls", "embedding")
"""What is trained unless something else is asked for."""

HEADS = {"knn": Texture(head="knn"), "pls": Texture(head="pls")}
"""Names for texture features with another head than ridge."""


OF_MACHINE = ("cache", "device")
"""Settings that say where something is computed and not what: they are not stored."""


def learner_of(learner: str | Learner) -> Learner:
    """The learner of that name with its defaults, or the learner itself.

    Examples
    --------
    >>> learner_of("coordinates")
    Coordinates(k=8)
    """
    if isinstance(learner, str):
        if learner not in LEARNERS.keys() | HEADS.keys():
            msg = f"{learner!r} is no learner; there are {sorted([*LEARNERS, *HEADS])}, or pass an instance."
            raise ValueError(msg)
        return HEADS[learner] if learner in HEADS else LEARNERS[learner]()
    if not isinstance(learner, tuple(LEARNERS.values())):
        msg = f"a learner is one of the names {sorted([*LEARNERS, *HEADS])} or an instance of their classes, got {type(learner).__name__}."
        raise TypeError(msg)
    return learner


def label_of(learner: Learner) -> str:
    """What a learner is called among others: its name, or that of its head.

    Examples
    --------
    >>> label_of(Texture()), label_of(Texture(head="knn"))
    ('texture', 'knn')
    """
    head = getattr(learner, "head", "ridge")
    return head if learner.name == "texture" and head in HEADS else learner.name


def feature_key(learner: Learner) -> Learner:
    """The learner without the settings of its head: what two learners keep of tiles is the same if their eyes are.

    Examples
    --------
    >>> feature_key(Texture(head="knn", k=5)) == feature_key(Texture())
    True
    """
    if not hasattr(learner, "head"):
        return learner
    return dataclasses.replace(learner, head="ridge", k=30, setting=None)


def to_json(learner: Learner) -> str:
    """The settings of a learner as text.

    Examples
    --------
    >>> to_json(Coordinates(k=4))
    '{"name": "coordinates", "k": 4}'
    """
    settings = {f.name: getattr(learner, f.name) for f in dataclasses.fields(learner) if f.name not in OF_MACHINE}
    if not isinstance(settings.get("encoder", ""), str):
        settings["encoder"] = None  # code is not stored
    if "views" in settings:
        settings["views"] = [dataclasses.asdict(view) for view in learner.views]
    return json.dumps({"name": learner.name, **settings}, default=methodcaller("item"))  # numbers of numpy


def from_json(text: str, *, encoder: Callable[[np.ndarray], np.ndarray] | None = None) -> Learner:
    """The learner that ``to_json`` described; an encoder is code, is not stored, and must be passed again.

    Examples
    --------
    >>> from_json('{"name": "coordinates", "k": 4}')
    Coordinates(k=4)
    """
    settings: dict[str, Any] = json.loads(text)
    name = settings.pop("name", None)
    if name not in LEARNERS:
        msg = f"{name!r} is no learner; there are {sorted(LEARNERS)}."
        raise ValueError(msg)
    kind = LEARNERS[name]
    unknown = sorted(set(settings) - {f.name for f in dataclasses.fields(kind)})
    if unknown:
        msg = f"learner {name!r} has no settings {unknown}; was it saved by a newer version of h2e?"
        raise ValueError(msg)
    if "views" in settings:
        settings["views"] = tuple(View(**view) for view in settings["views"])
    if encoder is not None:
        settings["encoder"] = encoder
    return kind(**settings)
