"""Train the members of an ensemble, each without its group, and the stack on what they say of the groups left out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import combinations
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from h2e._ensemble import store as _store
from h2e._ensemble.fold_models import ALL, FoldModel, Spots, averaged_members, names_of
from h2e._ensemble.programmes import denoise_targets
from h2e._ensemble.stack import Stack, cross_fitted, fit_stack
from h2e._ensemble.transforms import fit_transform
from h2e._learners.folds import Fold, derive_seed
from h2e._learners.registry import Learner, to_json
from h2e._statistics import center_by_slide

if TYPE_CHECKING:
    from h2e._ensemble.mlp import MlpStack

log = logging.getLogger(__name__)

FEW_SPOTS = 512
"""So many training spots tell how much less an average of models varies than one of them."""


@dataclass(frozen=True)
class FitConfig:
    """How an ensemble is trained."""

    learners: tuple[Learner, ...]
    transform: str
    stack: str
    seed: int
    run_dir: Path | None = None
    progress: bool = True
    n_programmes: int = 0


@dataclass(frozen=True, eq=False)
class FitResult:
    """What training gives."""

    members: list[FoldModel]
    stack: Stack | MlpStack
    held_out: np.ndarray  # (learners, n, targets), each spot by a model that did not see its group; NaN without folds
    calibration: (
        np.ndarray
    )  # (n, targets), the same of a stack that was fitted without the group's own; NaN if "in_sample"


def fit_members(spots: Spots, folds: Sequence[Fold], recipe: FitConfig) -> FitResult:
    """All members, the stack, and the held-out predictions.

    For each learner one model of every fold and one of all spots. Without folds (one group) only the latter.
    """
    n_models = len(folds) + 1 + (comb(len(folds), 2) if recipe.stack == "nested" else 0)
    with tqdm(total=n_models * len(recipe.learners), disable=not recipe.progress, desc="models", leave=False) as bar:
        return _fit_all(_Trainer(spots, recipe, bar), folds)


def _fit_all(trainer: _Trainer, folds: Sequence[Fold]) -> FitResult:
    """The same with a trainer, which knows the spots and the recipe."""
    spots, recipe = trainer.spots, trainer.recipe
    names = names_of(recipe.learners)
    held_out = np.full((len(names), *spots.y.shape), np.nan, np.float32)
    members = []
    for k, name in enumerate(names):
        for fold in folds:
            member = trainer.model(name, fold)
            held_out[k, fold.test] = member.predict(spots.x[name][fold.test])
            members.append(member)
        members.append(trainer.model(name))
    if not folds:
        return FitResult(members, fit_stack("mean", held_out, spots.y, spots.groups), held_out, held_out.mean(axis=0))
    kind = recipe.stack if len(np.unique(spots.groups)) > 2 else "mean"
    inputs = held_out
    if kind == "in_sample":
        inputs = np.stack([trainer.model(name, fold).predict(spots.x[name]) for name in names for fold in folds])
    elif kind == "nested":
        inputs = _nested(trainer, names, folds)
    stack = fit_stack(kind, inputs, spots.y, spots.groups, seed=recipe.seed)
    stack = for_averages(stack, spots, members, names)
    calibration = held_out.mean(axis=0)
    if kind == "in_sample":
        calibration = np.full_like(calibration, np.nan)
    elif kind != "mean":
        calibration = cross_fitted(kind, inputs, spots.y, spots.groups, seed=recipe.seed)
    return FitResult(members, stack, held_out, calibration)


def _nested(trainer: _Trainer, names: Sequence[str], folds: Sequence[Fold]) -> np.ndarray:
    """Inputs of the nested stack, (learners · folds, n, targets): those of a spot are by models that did not see its group.

    In place of the model without group g stands, for the spots of group s, the one without both.
    """
    spots = trainer.spots
    inputs = np.empty((len(names), len(folds), *spots.y.shape), np.float32)
    for k, name in enumerate(names):
        for i, fold in enumerate(folds):
            inputs[k, i, fold.test] = trainer.model(name, fold).predict(spots.x[name][fold.test])
        for (i, one), (j, other) in combinations(enumerate(folds), 2):
            member = trainer.model(name, one, other)
            inputs[k, i, other.test] = member.predict(spots.x[name][other.test])
            inputs[k, j, one.test] = member.predict(spots.x[name][one.test])
    return inputs.reshape(-1, *spots.y.shape)


def for_averages(
    stack: Stack | MlpStack, spots: Spots, members: Sequence[FoldModel], names: Sequence[str]
) -> Stack | MlpStack:
    """A stack that was fitted on what single models say, for the averages of a learner's models that it combines."""
    if not isinstance(stack, Stack) or stack.kind == "mean":
        return stack
    return stack.of_averages(averaging_ratio(spots, members, names))


def averaging_ratio(spots: Spots, members: Sequence[FoldModel], names: Sequence[str]) -> np.ndarray:
    """Variance within slides of the average of a learner's models over that of one of them, (learners, targets)."""
    few = np.unique(np.linspace(0, len(spots.y) - 1, FEW_SPOTS).astype(int))
    slides, n_groups = spots.slides[few], len(np.unique(spots.groups))
    ratio = np.ones((len(names), spots.y.shape[1]))
    for k, name in enumerate(names):
        averaged = averaged_members(members, name, n_groups)
        if len(averaged) < 2:
            continue
        each = center_by_slide(np.stack([member.predict(spots.x[name][few]) for member in averaged]), slides)
        single, average = (each**2).mean(axis=(0, 1)), (each.mean(axis=0) ** 2).mean(axis=0)
        ratio[k] = np.where(single > 0, average / np.where(single > 0, single, 1), 1)
    return np.clip(ratio, 0.5, 1)


@dataclass(eq=False)
class _Trainer:
    """Trains each model once: some stacks ask for the same one twice."""

    spots: Spots
    recipe: FitConfig
    bar: tqdm
    trained: dict[tuple[str, ...], FoldModel] = field(default_factory=dict)

    def model(self, name: str, *left_out: Fold) -> FoldModel:
        """The model of a learner without some folds."""
        key = (name, *sorted(fold.name for fold in left_out))
        if key not in self.trained:
            rows = np.arange(len(self.spots.y))
            for fold in left_out:
                rows = np.intersect1d(rows, fold.train)
            held_out = " and ".join(key[1:]) or ALL
            self.bar.set_postfix_str(f"{name}, {held_out}")
            learner = self.recipe.learners[names_of(self.recipe.learners).index(name)]
            self.trained[key] = _fit_one(name, learner, self.spots.take(rows), held_out, self.recipe)
            self.bar.update()
        return self.trained[key]


def _fit_one(name: str, learner: Learner, spots: Spots, held_out: str, recipe: FitConfig) -> FoldModel:
    """One model, from ``run_dir`` if it was trained before."""
    x = spots.x[name]
    y = denoise_targets(spots.y, spots.genes, spots.slides, recipe.n_programmes)
    z, transform = fit_transform(recipe.transform, y, spots.slides, spots.groups)
    transform = transform.within(spots.y)  # as measured: what models are trained on may be negative
    seed = derive_seed(
        recipe.seed, name, *np.unique(spots.groups)
    )  # of what is trained on: who asks for it does not matter
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
            return FoldModel(name, held_out, replace(learner.restore(arrays), history=about["history"]), transform)
    model = learner.fit(x, z, spots.groups, seed=seed, progress=recipe.progress, label=label)
    if folder is not None:
        _keep(folder, {"label": label, "history": model.history}, model.arrays())
    return FoldModel(name, held_out, model, transform)


def _keep(folder: Path, about: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    """Store a model for the next run; a full disk must not take this one with it."""
    try:
        _store.save(folder, about, arrays)
    except OSError as error:
        log.warning("%s is not kept in %s, and would be trained again: %s", about["label"], folder.parent, error)


def _digest(learner: Learner, seed: int, *arrays: np.ndarray) -> str:
    """Name of a training run: what it is trained on, and how."""
    found = hashlib.sha256(f"{version('h2e')} {to_json(learner)} {seed}".encode())
    for array in arrays:
        array = array if array.dtype.kind != "U" else array.astype(object)  # of any width
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes() if array.dtype != object else "\0".join(array).encode())
    return found.hexdigest()[:32]
