"""Train the models of an ensemble, each without its group, and the stack on their predictions of groups left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import reduce
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
from h2e._ensemble.stack import MIN_GROUPS, STACKS, Stack, StackKind, cross_fitted, fit_stack, for_averages
from h2e._ensemble.transforms import TRANSFORMS, Transform, TransformKind, denoise_targets, fit_transform
from h2e._learners.folds import Fold, derive_seed
from h2e._learners.learner import Learner, Model, checked_arrays
from h2e._learners.registry import DEFAULT_LEARNERS, learner_of
from h2e._parallel import in_parallel, send
from h2e._warnings import announce, log, refuse_if

if TYPE_CHECKING:
    from h2e._ensemble.mlp import MlpStack

SPOTS_A_SECOND, SPOTS_A_MODEL, TILES_A_NETWORK = 100, 4000, 20
"""In a second on one core: spots described by one kind of features, of which the default learners have two; spots that
a model is trained on; tiles that a network is trained on, each once an epoch."""


@dataclass(frozen=True)
class FitConfig:
    """How an ensemble is trained, the learners as :func:`learners_of` checks them, and what it is scored beside."""

    learners: tuple[Learner, ...]
    transform: TransformKind
    stack: StackKind
    seed: int
    run_dir: str | PathLike | None = None
    progress: bool = True
    n_programmes: int = 0
    baselines: Sequence[str] = ()
    domains: bool = False  # whether scores need domains of the tissue

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
    kind, names = _stack_of(config, folds, spots.groups), names_of(config.learners)
    pairs = combinations(folds, 2) if kind == "nested" else ()
    with progress_of(config, [(folds, spots.groups)]) if bar is None else nullcontext(bar) as counted:
        model = _train_all(spots, config, [*((fold,) for fold in folds), (), *pairs], counted)
    held_out, members = np.full((len(names), *spots.y.shape), np.nan, np.float32), []
    for k, name in enumerate(names):
        for fold in folds:
            members.append(model(name, fold))
            held_out[k, fold.test] = members[-1].predict(spots.x[name][fold.test])
        members.append(model(name))
    inputs = held_out
    if kind == "in_sample":
        inputs = np.stack([model(name, fold).predict(spots.x[name]) for name in names for fold in folds])
    elif kind == "nested":
        # For the spots of group s, the model without g and s stands in place of the one without group g.
        inputs = np.empty((len(names), len(folds), *spots.y.shape), np.float32)
        for (k, name), (i, fold), scored in product(enumerate(names), enumerate(folds), folds):
            inputs[k, i, scored.test] = model(name, fold, scored).predict(spots.x[name][scored.test])
        inputs = inputs.reshape(-1, *spots.y.shape)
    stack = fit_stack(kind, inputs, spots.y, spots.groups, seed=config.seed)
    calibration = held_out.mean(axis=0)
    if kind == "in_sample":
        calibration = np.full_like(calibration, np.nan)
    elif kind != "mean":
        calibration = cross_fitted(kind, inputs, spots.y, spots.groups, seed=config.seed)
    return FitResult(members, for_averages(stack, spots, members, names), held_out, calibration)


def announce_models(
    doing: str, spots: int, slides: int, learners: Sequence[Learner], n: int, *, passes: int = 1, progress: bool
) -> None:
    """Say that ``n`` models are trained, or used to predict, on spots that are read so many times."""
    from dask.system import cpu_count

    # A network predicts eight views of a tile, each in half the time that training on it takes.
    epochs = [4 if doing == "predict" else one.epochs for one in learners if hasattr(one, "epochs")]
    kinds = {one.feature_key for one in learners if one.uses == "tiles"}
    seconds = passes * len(kinds) * spots / SPOTS_A_SECOND / min(slides, cpu_count())
    seconds += n * spots * (1 / SPOTS_A_MODEL + sum(epochs) / len(learners) / TILES_A_NETWORK)
    others = kinds - {learner_of(name).feature_key for name in DEFAULT_LEARNERS}
    but = " without a GPU" if epochs else ", and what other features take" if others else ""
    what = f"{doing}: {spots:,} spots of {slides} slide{'s' * (slides > 1)}, {n} models{but}"
    announce(what, seconds, progress=progress)


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


def _train_all(
    spots: Spots, config: FitConfig, left_out: Iterable[tuple[Fold, ...]], bar: tqdm
) -> Callable[..., FoldModel]:
    """Train all learners without each of these combinations of folds, once, since some stacks need a model twice.

    Returns what finds the model of a learner, by name, without some folds, which may be one named twice.
    """
    without = {frozenset(fold.name for fold in folds): folds for folds in left_out}
    sent = send([spots, config])
    calls = [(folds, *sent) for folds in without.values()]
    trained = in_parallel(train_without, calls, bar=bar, sizes=[len(config.learners)] * len(calls))
    models = dict(zip(without, trained, strict=True))
    return lambda name, *folds: models[frozenset(fold.name for fold in folds)][name]


def train_without(left_out: Sequence[Fold], spots: Spots, config: FitConfig) -> dict[str, FoldModel]:
    """The model of each learner without some folds, on memory that models share where they can; by name."""
    rows = in_one_piece(reduce(np.intersect1d, [fold.train for fold in left_out], np.arange(len(spots.y))))
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
    folder = _store.folder_of(config.run_dir, learner, seed, groups, x, z)
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
