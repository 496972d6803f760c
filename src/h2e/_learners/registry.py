"""The learners of h2e by name, and the settings of any learner as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from h2e._learners.baselines import Coordinates, Mean
from h2e._learners.embedding import Embedding
from h2e._learners.encoders import Encoder, MissingEncoder
from h2e._learners.known_encoders import SHELL
from h2e._learners.learner import OF_MACHINE, Learner, check_interface
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture
from h2e._slide.tiles import View
from h2e._warnings import refuse, refuse_if

LearnerName = Literal["texture", "knn", "pls", "embedding", "multiscale", "mean", "coordinates"]

LEARNERS: dict[str, type[Learner]] = {kind.name: kind for kind in (Multiscale, Texture, Embedding, Mean, Coordinates)}
"""Classes by the name that is stored."""

HEADS: dict[str, Learner] = {head: Texture(head=head) for head in ("knn", "pls")}
"""Names for texture features with another head than ridge."""

NAMES = sorted([*LEARNERS, *HEADS])

DEFAULT_LEARNERS: tuple[LearnerName, ...] = ("texture", "knn", "pls", "embedding")
"""What is trained unless something else is asked for."""


def learner_of(learner: str | Learner) -> Learner:
    """Give the learner of that name with its defaults, or the learner itself if it has all that it needs.

    Examples
    --------
    >>> learner_of("coordinates")
    Coordinates(k=8)
    """
    if isinstance(learner, str) and learner in NAMES:
        return HEADS[learner] if learner in HEADS else LEARNERS[learner]()
    if not isinstance(learner, Learner):
        wrong, kind = (repr(learner), ValueError) if isinstance(learner, str) else (type(learner).__name__, TypeError)
        refuse(f"learner must be one of {NAMES} or an instance of h2e.tl.Learner, got {wrong}.", kind)
    check_interface(learner)
    if learner.name in NAMES and type(learner) is not LEARNERS.get(learner.name):
        msg = f"name of learner {type(learner).__name__} must be one that no learner of h2e has, got {learner.name!r}."
        raise ValueError(msg)
    to_json(learner)
    return learner


def with_settings(learner: Learner, **settings: Any) -> Learner:
    """A copy of a learner with other values of some of its fields."""
    return dataclasses.replace(learner, **settings)  # type: ignore[type-var]  # learners are checked to be dataclasses


def to_json(learner: Learner) -> str:
    """Write the settings of a learner as text.

    Examples
    --------
    >>> to_json(Coordinates(k=4))
    '{"name": "coordinates", "k": 4}'
    """

    def plain(value: object) -> Any:
        if isinstance(value, View):
            return dataclasses.asdict(value)
        if isinstance(value, np.generic):
            return value.item()
        msg = f"settings of learner {learner.name!r} must be numbers, strings, views or tuples of them, got "
        msg += f"{type(value).__name__}; leave code and data out of them by a method settings of your own."
        raise TypeError(msg)

    return json.dumps({"name": learner.name, **learner.settings()}, default=plain)


def from_json(text: str, learners: Mapping[str, Callable[..., Learner]] | None = None) -> Learner:
    """Make the learner that ``to_json`` described: one of h2e, or one of those that the user passes by name.

    What a file says of the machine is ignored, and of encoders only the one that comes with h2e is taken.

    Examples
    --------
    >>> from_json('{"name": "coordinates", "k": 4}')
    Coordinates(k=4)
    """
    settings = {key: _tuples(value) for key, value in json.loads(text).items() if key not in OF_MACHINE}
    name = settings.pop("name", None)
    make = LEARNERS.get(name) or (learners or {}).get(name)
    if make is None:
        msg = f"learner must be one of {sorted(LEARNERS)} or be passed, got {name!r} in the file; "
        refuse(msg + f"a file does not choose code: h2e.Ensemble.load(folder, learners={{{name!r}: its class}}).")
    unknown = set(settings) - set(LEARNERS[name]().settings()) if name in LEARNERS else set()
    refuse_if(unknown, f"learner {name!r} has no settings {sorted(unknown)}; was it saved by a newer version of h2e?")
    if "views" in settings:
        settings["views"] = tuple(View(**view) for view in settings["views"])
    if settings.get("encoder", SHELL) != SHELL and settings.get("obsm") is None:
        stored = settings["encoder"]
        stored = {"name": stored, "px": settings["px"]} if isinstance(stored, str) else stored
        settings["encoder"] = MissingEncoder(Encoder(**stored) if stored else None)
    learner = learner_of(make(**settings))
    refuse_if(learner.name != name, f"learners[{name!r}] must make a learner of that name, got {learner.name!r}.")
    return learner


def _tuples(value: Any) -> Any:
    """Turn lists into the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
