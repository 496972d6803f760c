"""Score the whole procedure on groups that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from h2e import _keys
from h2e._ensemble import Spots, names_of
from h2e._fitting import Recipe, fit_members
from h2e._folds import Fold
from h2e._learners import Learner, learner_of
from h2e._stack import group_mean
from h2e.metrics import score
from h2e.tl._cohort import Cohort, open_cohort
from h2e.tl._train import Truth, folds_within, recipe_of, train, warn_of_siblings

if TYPE_CHECKING:
    from os import PathLike

    from spatialdata import SpatialData

BASELINES = ("mean", "coordinates", "texture")
"""The training mean, the spots at the same place on other slides, ridge on texture statistics."""


def evaluate(
    sdata: SpatialData,
    *,
    targets: str | Sequence[str] | None = None,
    obsm: str | None = None,
    n_targets: int = 35,
    learners: str | Learner | Sequence[str | Learner] = ("texture", "knn", "pls"),
    transform: str = "standardized",
    stack: str = "ridge",
    baselines: str | Sequence[str] = BASELINES,
    metrics: str | Sequence[str] = ("pearson", "spearman", "skill", "variance_ratio"),
    group_key: str | None = None,
    library_key: str | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
    image_key: str | Mapping[str, str] | None = None,
    tissue_mask_key: str | None = None,
    table_key: str = _keys.TABLE,
    um_per_px: float | Mapping[str, float] | None = None,
    run_dir: str | PathLike | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Repeat everything that :func:`h2e.tl.fit` does without each group, predict that group, and score it.

    Without the left-out group means: the choice of targets, the stain reference, the training of every model, its inner
    choices, and the stack. Each target is scored over the spots of each slide; see :func:`h2e.metrics.score` for
    the metrics and :func:`h2e.metrics.summarize` for means over slides, donors and targets.

    Parameters
    ----------
    sdata
        Slides, one table over all of them.
    targets
        Genes, or columns of ``obsm``, to predict. ``None``: all columns of ``obsm``, or without it genes that are
        chosen anew without each group.
    obsm
        Predict the columns of this frame of ``table.obsm`` in place of genes.
    n_targets
        How many genes to choose where ``targets=None``.
    learners
        As in :func:`h2e.tl.fit`. With several, each is scored alone as well.
    transform
        As in :func:`h2e.tl.fit`.
    stack
        As in :func:`h2e.tl.fit`.
    baselines
        Some of ``"mean"`` (of the training slides), ``"coordinates"`` (the mean of the nearest spots by
        position on the other slides) and ``"texture"`` (ridge on texture statistics, one model of all training spots).
    metrics
        Names of metrics, as in :func:`h2e.metrics.score`.
    group_key
        Column of ``table.obs`` with the groups (donors) to leave out; ``None`` leaves out slides, with a warning.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    layer
        Layer with the counts; ``None`` takes ``table.X``.
    log_normalized
        The values are log-normalized already.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    tissue_mask_key
        Labels or shapes with the tissue.
    table_key
        Table over all slides.
    um_per_px
        Size of a pixel in µm, or of each slide's.
    run_dir
        Folder that keeps each finished model; an interrupted run continues where it was.
    seed
        The same seed on the same machine gives the same scores.
    device
        For networks: ``"cpu"``, ``"cuda"``; ``None`` takes CUDA if there is one.
    progress
        Show progress bars.

    Returns
    -------
    A tidy DataFrame with the columns of :func:`h2e.metrics.score` and ``method``: ``"ensemble"``, each of several
    learners, and ``"baseline: …"``. Of a single slide ``group`` is the quarter left out, ``"within slide: …"``.

    Raises
    ------
    KeyError, ValueError
        As :func:`h2e.tl.fit`.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> scores = h2e.tl.evaluate(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> sorted(scores["method"].unique())
    ['baseline: coordinates', 'baseline: mean', 'baseline: texture', 'ensemble']
    """
    options = {"device": device, "run_dir": run_dir, "progress": progress, "seed": seed}
    recipe = recipe_of(learners, transform=transform, stack=stack, **options)
    baselines = [baselines] if isinstance(baselines, str) else list(baselines)
    unknown = sorted(set(baselines) - set(BASELINES))
    if unknown:
        msg = f"baselines {unknown} are not known; there are {list(BASELINES)}."
        raise ValueError(msg)
    cohort = open_cohort(
        sdata,
        table_key=table_key,
        image_key=image_key,
        tissue_mask_key=tissue_mask_key,
        library_key=library_key,
        group_key=group_key,
        um_per_px=um_per_px,
    )
    truth = Truth(cohort.table, targets, n_targets, obsm, layer, log_normalized)
    warn_of_siblings(cohort, group_key)
    folds = folds_within(cohort, np.arange(len(cohort.rows)), recipe.learners)
    parts = []
    for fold in tqdm(folds, disable=not progress, desc="left out"):
        values, baseline, predictions = held_out_predictions(cohort, truth, fold, recipe, baselines)
        groups = cohort.groups[fold.test]
        if len(cohort.slides) == 1:
            groups = np.full(len(fold.test), f"within slide: {fold.name}")
        rows = {"slides": cohort.names[fold.test], "groups": groups}
        for method, prediction in predictions.items():
            scores = score(prediction, values, **rows, baseline=baseline, metrics=metrics)
            parts.append(scores.assign(method=method))
    return pd.concat(parts, ignore_index=True)


def held_out_predictions(
    cohort: Cohort, truth: Truth, fold: Fold, recipe: Recipe, baselines: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
    """Of the spots left out: the truth, the mean of the training groups, and the prediction of each method."""
    values = truth.of(cohort, fold.train)
    reference, spacing_um = cohort.reference_of(fold.train), cohort.spacing_um(fold.train)
    beside = tuple(learner_of(name) for name in baselines)
    several = (*recipe.learners, *beside)
    x = cohort.look(several, reference=reference, spacing_um=spacing_um, progress=recipe.progress)
    own, every = names_of(recipe.learners), names_of(several)
    inner = folds_inside(cohort, fold.train, recipe.learners)
    settings = {"unit": truth.unit}
    seen = {name: x[name] for name in own}
    ensemble = train(cohort, seen, values, fold.train, inner, recipe, reference=reference, settings=settings)
    test = {name: array[fold.test] for name, array in x.items()}
    predictions = {"ensemble": ensemble.predict(test)[0]}
    if len(own) > 1:
        predictions |= {name: ensemble.predict_alone(test, name) for name in own}
    for name, learner in zip(every[len(own) :], beside, strict=True):  # one model of all training spots each
        spots = Spots(cohort.names, cohort.groups, {learner.name: x[name]}, values.to_numpy()).take(fold.train)
        transform = "log" if learner.name == "mean" else recipe.transform  # the mean is that of the unit scored in
        (member,), _, _ = fit_members(
            spots, [], replace(recipe, learners=(learner,), transform=transform, progress=False)
        )
        predictions[f"baseline: {learner.name}"] = member.predict(test[name])
    mean = group_mean(values.to_numpy()[fold.train], cohort.groups[fold.train])
    return values.iloc[fold.test], mean, predictions


def folds_inside(cohort: Cohort, spots: np.ndarray, learners: Sequence[Learner]) -> list[Fold]:
    """Folds among training spots; none if they are of one group, where the stack is the mean."""
    return folds_within(cohort, spots, learners) if len(np.unique(cohort.groups[spots])) > 1 else []
