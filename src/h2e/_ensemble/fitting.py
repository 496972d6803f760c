"""Train the models of an ensemble, each without its group, and the stack on their predictions of groups left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from math import comb
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from h2e._ensemble import store as _store
from h2e._ensemble.fold_models import ALL, FoldModel, Spots, in_one_piece, names_of
from h2e._ensemble.programmes import denoise_targets
from h2e._ensemble.runs import folder_of
from h2e._ensemble.stack import MIN_GROUPS, STACKS, Stack, StackKind, cross_fitted, fit_stack, for_averages
from h2e._ensemble.transforms import TRANSFORMS, Transform, TransformKind, fit_transform
from h2e._learners.folds import Fold, derive_seed
from h2e._learners.learner import Learner, Model, checked_arrays
from h2e._parallel import in_parallel, send
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from h2e._ensemble.mlp import MlpStack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitConfig:
    """How an ensemble is trained; the learners as :func:`learners_of` checks them."""

    learners: tuple[Learner, ...]
    transform: TransformKind
    stack: StackKind
    seed: int
    run_dir: str | PathLike | None = None
    progress: bool = True
    n_programmes: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("transform", self.transform, TRANSFORMS), ("stack", self.stack, STACKS)):
            refuse_if(value not in known, f"{name} must be one of {list(known)}, got {value!r}.")
        msg = f"n_programmes must be 0 or a number of components, got {self.n_programmes!r}."
        refuse_if(not isinstance(self.n_programmes, Integral) or self.n_programmes < 0, msg)
        msg = f"run_dir must be a folder, which may be new, got the file {str(self.run_dir)!r}."
        refuse_if(self.run_dir is not None and Path(self.run_dir).is_file(), msg, FileExistsError)


@dataclass(frozen=True, eq=False)
class FitResult:
    """What training gives."""

    members: list[FoldModel]
    stack: Stack | MlpStack
    # (learners, n, targets), each spot by a model that did not see its group; NaN without folds
    held_out: np.ndarray
    # (n, targets), the same of a stack that was fitted without the group's own; NaN if "in_sample"
    calibration: np.ndarray


def fit_members(spots: Spots, folds: Sequence[Fold], config: FitConfig, bar: tqdm | None = None) -> FitResult:
    """All models, the stack, and the held-out predictions.

    For each learner one model of every fold and one of all spots; without folds (one group) only the latter. ``bar``
    counts them where they are some of many.
    """
    kind = _stack_of(config, folds, spots.groups)
    if bar is not None:
        return _fit_all(_Trainer(spots, config, bar), folds, kind)
    with progress_of(config, [(folds, spots.groups)]) as own:
        return _fit_all(_Trainer(spots, config, own), folds, kind)


def progress_of(config: FitConfig, parts: Sequence[tuple[Sequence[Fold], np.ndarray]]) -> tqdm:
    """A bar over the models of several trainings, each the folds of its spots and their groups."""
    n = sum(n_models(config, *part) for part in parts)
    if any(_stack_of(config, *part) == "nested" for part in parts):
        log.warning("the nested stack needs %d models, each trained without one group or without two", n)
    return tqdm(total=n, disable=not config.progress, desc="models", unit="model", leave=False)


def n_models(config: FitConfig, folds: Sequence[Fold], groups: np.ndarray) -> int:
    """How many models are trained on spots of these groups, in these folds."""
    pairs = comb(len(folds), 2) if _stack_of(config, folds, groups) == "nested" else 0
    return len(config.learners) * (len(folds) + 1 + pairs)


def _stack_of(config: FitConfig, folds: Sequence[Fold], groups: np.ndarray) -> StackKind:
    """The stack that there are groups enough for."""
    return config.stack if folds and len(np.unique(groups)) >= MIN_GROUPS else "mean"


def _fit_all(trainer: _Trainer, folds: Sequence[Fold], kind: StackKind) -> FitResult:
    """The same with a trainer, which knows the spots and the settings, and a stack that there are groups enough for."""
    spots, seed = trainer.spots, trainer.config.seed
    names = trainer.names
    pairs = combinations(folds, 2) if kind == "nested" else ()
    trainer.train([*((fold,) for fold in folds), (), *pairs])
    held_out, members = np.full((len(names), *spots.y.shape), np.nan, np.float32), []
    for k, name in enumerate(names):
        for fold in folds:
            members.append(trainer.model(name, fold))
            held_out[k, fold.test] = members[-1].predict(spots.x[name][fold.test])
        members.append(trainer.model(name))
    inputs = held_out
    if kind == "in_sample":
        inputs = np.stack([trainer.model(name, fold).predict(spots.x[name]) for name in names for fold in folds])
    elif kind == "nested":
        inputs = _nested(trainer, folds)
    stack = for_averages(fit_stack(kind, inputs, spots.y, spots.groups, seed=seed), spots, members, names)
    calibration = held_out.mean(axis=0)
    if kind == "in_sample":
        calibration = np.full_like(calibration, np.nan)
    elif kind != "mean":
        calibration = cross_fitted(kind, inputs, spots.y, spots.groups, seed=seed)
    return FitResult(members, stack, held_out, calibration)


def _nested(trainer: _Trainer, folds: Sequence[Fold]) -> np.ndarray:
    """Inputs of the nested stack, (learners · folds, n, targets), each by a model that did not see the spot's group.

    In place of the model without group g stands, for the spots of group s, the one without both.
    """
    spots = trainer.spots
    inputs = np.empty((len(trainer.names), len(folds), *spots.y.shape), np.float32)
    for k, name in enumerate(trainer.names):
        for (i, fold), scored in product(enumerate(folds), folds):
            inputs[k, i, scored.test] = trainer.model(name, fold, scored).predict(spots.x[name][scored.test])
    return inputs.reshape(-1, *spots.y.shape)


@dataclass(eq=False)
class _Trainer:
    """Trains the models without each combination of folds once, since some stacks need the same one twice."""

    spots: Spots
    config: FitConfig
    bar: tqdm
    trained: dict[frozenset[str], dict[str, FoldModel]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the learners."""
        return names_of(self.config.learners)

    def train(self, left_out: Iterable[tuple[Fold, ...]]) -> None:
        """Train the models of all learners without each of these combinations of folds."""
        missing = {frozenset(fold.name for fold in folds): folds for folds in left_out}
        spots, config = send([self.spots, self.config])
        calls = [(folds, spots, config) for folds in missing.values()]
        trained = in_parallel(train_without, calls, bar=self.bar, sizes=[len(self.names)] * len(calls))
        self.trained = dict(zip(missing, trained, strict=True))

    def model(self, name: str, *left_out: Fold) -> FoldModel:
        """The model of a learner without some folds, which may be one named twice."""
        return self.trained[frozenset(fold.name for fold in left_out)][name]


def train_without(left_out: Sequence[Fold], spots: Spots, config: FitConfig) -> dict[str, FoldModel]:
    """The model of each learner without some folds, on memory that models share where they can; by name."""
    rows = _rows_without(left_out, len(spots.y))
    z, transform = _what_is_learned(spots, rows, config)
    held_out, models = " and ".join(sorted(fold.name for fold in left_out)) or ALL, {}
    for name, learner in zip(names_of(config.learners), config.learners, strict=True):
        # Read-only, since rows in one piece are no copy: other models are trained on the same memory.
        x = spots.x[name][rows]
        x.flags.writeable = False
        label = f"{name} without {held_out}" if held_out != ALL else f"{name} of all"
        # Who asks for a model does not matter: the seed depends on what it is trained on.
        seed = derive_seed(config.seed, name, *np.unique(spots.groups[rows]))
        model, history = _fit(learner, config, x, z, spots.groups[rows], seed=seed, label=label)
        models[name] = FoldModel(name, held_out, model, transform, history)
    return models


def _what_is_learned(spots: Spots, rows: np.ndarray | slice, config: FitConfig) -> tuple[np.ndarray, Transform]:
    """What the models of some spots are trained on, and the way back to the unit of the targets."""
    # Without x, since a selection of tiles would be a copy.
    some = replace(spots, x={}).take(rows)
    denoised = denoise_targets(some.y, some.genes, some.slides, config.n_programmes)
    z, transform = fit_transform(config.transform, denoised, some.slides, some.groups)
    # Limits are as measured: what models are trained on may be negative.
    return z, transform.within(some.y)


def _fit(
    learner: Learner, config: FitConfig, x: np.ndarray, z: np.ndarray, groups: np.ndarray, *, seed: int, label: str
) -> tuple[Model, list]:
    """One model and its history, from ``run_dir`` if it was trained before."""
    folder = folder_of(config.run_dir, learner, seed, groups, x, z)
    if folder and folder.exists():
        try:
            about, arrays = _store.load(folder)
        except (FileNotFoundError, ValueError) as error:
            log.warning("training %s again: %s", label, error)
        else:
            log.info("%s: taken from %s", label, folder)
            return learner.restore(arrays), about["history"]
    model = learner.fit(x, z, groups, seed=seed, progress=config.progress, label=label)
    arrays, history = checked_arrays(learner, model), list(model.history)
    if folder:
        # A full disk must not take this run with it.
        try:
            _store.save(folder, {"label": label, "history": history}, arrays, replace=True)
        except OSError as error:
            log.warning("%s is not kept in %s, and would be trained again: %s", label, folder.parent, error)
    return model, history


def _rows_without(folds: Sequence[Fold], n: int) -> np.ndarray | slice:
    """The training spots that some folds have in common."""
    rows = np.arange(n)
    for fold in folds:
        rows = np.intersect1d(rows, fold.train)
    return in_one_piece(rows)
