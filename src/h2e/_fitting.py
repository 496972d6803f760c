"""Train the members of an ensemble, each without its group, and the stack on what they say of the groups left out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from h2e import _store
from h2e._ensemble import ALL, Member, Spots, names_of
from h2e._folds import Fold, seed_of
from h2e._learners import Learner, to_json
from h2e._stack import Stack, fit_stack
from h2e._transforms import fit_transform

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How an ensemble is trained."""

    learners: tuple[Learner, ...]
    transform: str
    stack: str
    seed: int
    run_dir: Path | None = None
    progress: bool = True


def fit_members(spots: Spots, folds: Sequence[Fold], recipe: Recipe) -> tuple[list[Member], Stack, np.ndarray]:
    """All members, the stack, and the held-out predictions (n, targets), the mean over the learners.

    For each learner one model of every fold and one of all spots. Without folds (one group) only the latter.
    """
    members = []
    held_out = np.full((len(recipe.learners), *spots.y.shape), np.nan, np.float32)
    for k, (name, learner) in enumerate(zip(names_of(recipe.learners), recipe.learners, strict=True)):
        for fold in folds:
            member = _fit_one(name, learner, spots.take(fold.train), fold.name, recipe)
            held_out[k, fold.test] = member.predict(spots.x[name][fold.test])
            members.append(member)
        members.append(_fit_one(name, learner, spots, ALL, recipe))
    stack = fit_stack(recipe.stack if folds else "mean", held_out, spots.y, spots.groups)
    return members, stack, held_out.mean(axis=0)


def _fit_one(name: str, learner: Learner, spots: Spots, held_out: str, recipe: Recipe) -> Member:
    """One model, from ``run_dir`` if it was trained before."""
    x = spots.x[name]
    z, transform = fit_transform(recipe.transform, spots.y, spots.slides, spots.groups)
    seed = seed_of(recipe.seed, held_out, name)
    label = f"{name} without {held_out}" if held_out != ALL else f"{name} of all"
    folder = None
    if recipe.run_dir is not None:
        folder = recipe.run_dir / _digest(learner, seed, x, z, spots.groups)
        try:
            about, arrays = _store.load(folder)
        except FileNotFoundError:
            pass
        except ValueError as error:
            log.warning("training %s again: %s", label, error)
        else:
            log.info("%s: taken from %s", label, folder)
            return Member(name, held_out, replace(learner.restore(arrays), history=about["history"]), transform)
    model = learner.fit(x, z, spots.groups, seed=seed, progress=recipe.progress, label=label)
    if folder is not None:
        _store.save(folder, {"label": label, "history": model.history}, model.arrays())
    return Member(name, held_out, model, transform)


def _digest(learner: Learner, seed: int, *arrays: np.ndarray) -> str:
    """Name of a training run: what it is trained on, and how."""
    found = hashlib.sha256(f"{version('h2e')} {to_json(learner)} {seed}".encode())
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes() if array.dtype != object else "\0".join(array).encode())
    return found.hexdigest()[:32]
