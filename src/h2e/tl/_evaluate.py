"""Score the whole procedure on groups that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._ensemble.baselines import BASELINES, BaselineName
from h2e._ensemble.extraction import Features
from h2e._ensemble.fitting import FitConfig, announce_models
from h2e._ensemble.held_out import HeldOut, every_fold
from h2e._ensemble.stack import StackKind
from h2e._ensemble.training import check_cohort, folds_within, inner_folds, learners_of
from h2e._ensemble.transforms import TransformKind
from h2e._learners.folds import Fold
from h2e._learners.learner import Learner
from h2e._learners.registry import DEFAULT_LEARNERS, LearnerName
from h2e._sdata import keys as _keys
from h2e._sdata.cohort import Cohort, open_cohort, size_of
from h2e._sdata.keys import Keys
from h2e._sdata.provenance import get_provenance
from h2e._sdata.target_spec import TargetSpec, warn_of_choices
from h2e._warnings import refuse_if
from h2e.metrics import ceiling
from h2e.metrics._choice import LIMITED, check_metrics
from h2e.metrics._score import score_methods

if TYPE_CHECKING:
    from spatialdata import SpatialData

COUNTS = ("counts", "totals")
"""What is there where targets are genes whose values are counts."""


def evaluate(
    sdata: SpatialData,
    *,
    group_key: str | None = None,
    targets: str | Sequence[str] | None = None,
    obsm: str | None = None,
    learners: LearnerName | Learner | Sequence[LearnerName | Learner] = DEFAULT_LEARNERS,
    layer: str | None = None,
    log_normalized: bool = False,
    um_per_px: float | Mapping[str, float] | None = None,
    run_dir: str | PathLike | None = None,
    baselines: BaselineName | Sequence[BaselineName] = BASELINES,
    metrics: str | Sequence[str] | None = None,
    return_predictions: bool = False,
    n_folds: int | None = None,
    n_targets: int = 35,
    transform: TransformKind = "mixed",
    n_programmes: int = 10,
    stack: StackKind = "mean",
    library_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    tissue_mask_key: str | None = None,
    normalized_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Repeat everything that :func:`h2e.tl.fit` does without each group, predict that group, and score it.

    Without the left-out group means: the choice of targets, the stain reference, the training of every model, its inner
    choices, and the stack. Each target is scored over the spots of each slide; see :func:`h2e.metrics.score` for
    the metrics and :func:`h2e.metrics.summarize` for means over slides, donors and targets.

    Parameters
    ----------
    sdata
        Slides, one table over all of them.
    group_key
        Column of ``table.obs`` with the groups (donors) to leave out; ``None`` leaves out slides, with a warning.
    targets
        Genes, or columns of ``obsm`` or ``obs``, to predict, as in :func:`h2e.tl.fit`. ``None``: all columns of
        ``obsm``, or without it genes that are chosen anew without each group. A warning tells of named genes that
        :func:`h2e.pp.select_targets` or an ensemble chose on groups that are scored.
    obsm
        Predict the columns of this frame of ``table.obsm`` in place of genes.
    learners
        As in :func:`h2e.tl.fit`. With several, each is scored alone as well, and so is the ensemble without it.
    layer
        Layer with the counts; ``None`` takes ``table.X``.
    log_normalized
        The values are log-normalized already.
    um_per_px
        As in :func:`h2e.tl.fit`.
    run_dir
        Folder that keeps each finished model; an interrupted run continues where it was.

    Other Parameters
    ----------------
    baselines
        Some of ``"mean"`` (of the training slides); ``"coordinates"`` (the mean of the nearest spots by position on
        the other slides); ``"texture"`` and ``"knn"`` (ridge and nearest neighbours on texture statistics, one model
        of all training spots, on genes as measured); ``"shuffled"`` (texture ridge, each target shuffled within each
        slide); and the oracles, which know what is scored: ``"domains"`` (k-means of the texture of the slide that
        is scored, each cluster's mean measured on one half of its spots and scored on the other; ``"domains by chance"``
        is the same with the clusters shuffled over the spots) and, where there are raw counts, ``"depth"`` (the total
        count of each scored spot, with the slope that it has on the training slides).
    metrics
        Names of metrics, ``"all"`` or ``None``, as in :func:`h2e.metrics.score`. Domains are those of the baseline.
    return_predictions
        Return the ensemble's predictions, too.
    n_folds
        Leave out several groups at a time, in so many folds of about as many spots: ``n`` groups are ``n²`` models a
        learner one by one, and ``n_folds (n_folds + 1)`` so, each of fewer groups than :func:`h2e.tl.fit` trains on.
    n_targets
        How many genes to choose where ``targets=None``.
    transform
        As in :func:`h2e.tl.fit`.
    n_programmes
        As in :func:`h2e.tl.fit`; baselines are trained on the genes as measured.
    stack
        As in :func:`h2e.tl.fit`.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    tissue_mask_key
        Labels or shapes with the tissue.
    normalized_key
        Normalized image that models see, a name or a mapping from image to it; by default ``"{image}_normalized"``,
        or what else :func:`h2e.pp.normalize_stains` made of the image.
    table_key
        Table over all slides.
    seed
        The same seed on the same machine gives the same scores.
    device
        For networks: ``"cpu"``, ``"cuda"``, ``"mps"``; ``None`` takes CUDA if there is one.
    progress
        As in :func:`h2e.tl.fit`.

    Returns
    -------
    A tidy DataFrame with the columns of :func:`h2e.metrics.score` and ``method``: ``"ensemble"``, each of several
    learners, ``"without …"`` it, ``"baseline: …"``, ``"oracle: …"``, which knows what is scored, and, where there are raw
    counts, ``"ceiling"``, what a perfect prediction would reach (:func:`h2e.metrics.ceiling`). Of the ensemble also
    ``coverage_80`` and ``coverage_90``, the share of truths inside its intervals, and ``width_80`` and ``width_90``, how
    wide these are in the unit of the targets; they come from the training groups (with a single one there are none).
    Of a single slide ``group`` is the quarter left out, ``"within slide: …"``.

    With ``return_predictions`` also a DataFrame with a row per row of the table, which ``table.obsm`` takes as it is: each
    spot as predicted without its group, and NaN where it has no tissue or where a target was not chosen.

    Raises
    ------
    KeyError, ValueError
        As :func:`h2e.tl.fit`.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> scores = h2e.tl.evaluate(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> sorted(scores["method"].unique())[:3]
    ['baseline: coordinates', 'baseline: kNN on texture', 'baseline: mean']
    """
    baselines = [baselines] if isinstance(baselines, str) else list(baselines)
    unknown = sorted(set(baselines) - set(BASELINES))
    refuse_if(unknown, f"baselines must be some of {list(BASELINES)}, got {unknown}.")
    named = [] if metrics is None or metrics == "all" else [metrics] if isinstance(metrics, str) else list(metrics)
    if metrics not in (None, "all"):
        check_metrics(named, missing=() if obsm is None else COUNTS)
    trained, domains = learners_of(learners, device), not named or "within_domain" in named
    config = FitConfig(trained, transform, stack, seed, run_dir, progress, n_programmes, baselines, domains)
    keys = Keys(table_key, image_key, tissue_mask_key, normalized_key, library_key, group_key, um_per_px)
    n_spots, n_slides, n_groups = size_of(sdata, keys)
    outer = n_folds or n_groups
    inner = 0 if n_slides == 1 or n_groups == 2 else n_folds or n_groups - 1
    # Normalized images are brought to another reference without each group, and are read anew.
    passes, n = outer if get_provenance(sdata, _keys.STAINS) else 1, len(config.learners) * outer * (inner + 1)
    what = "evaluate" if n_folds is None else f"evaluate, {n_groups} groups in {n_folds} folds"
    what += " (fewer models: n_folds=8)" if n_folds is None and n_groups > 16 else ""
    announce_models(what, n_spots, n_slides, config.learners, n, passes=passes, progress=progress)
    spec = TargetSpec(open_cohort(sdata, keys), targets, n_targets, obsm, layer, log_normalized).with_values()
    cohort = spec.cohort
    if named and (spec.in_obs or log_normalized):
        check_metrics(named, missing=COUNTS if spec.in_obs else COUNTS[1:])
    check_cohort(cohort, spec, group_key)
    warn_of_choices(spec)
    folds = folds_within(cohort, np.arange(len(cohort.rows)), config.learners, n_folds)
    _refuse_few_spots(cohort, folds)
    if set(named) & set(LIMITED):
        check_metrics(named, truth=spec.measured(folds[0].train))
    nested = [(fold, inner_folds(cohort, fold, config.learners, n_folds)) for fold in folds]
    done = every_fold(Features(cohort, progress), spec, nested, config, partial(_scores, metrics=metrics))
    parts, predictions = zip(*done, strict=True)
    scores = pd.concat(parts, ignore_index=True)
    return (scores, pd.concat(predictions).reindex(cohort.table.obs_names)) if return_predictions else scores


def _refuse_few_spots(cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Refuse, before anything is trained, slides and quarters of a slide that cannot be scored."""
    for fold in folds:
        for slide, n in zip(*np.unique(cohort.names[fold.test], return_counts=True), strict=True):
            part = f"slide '{slide}'" if len(cohort.slides) > 1 else f"quarter {fold.name!r} of slide '{slide}'"
            msg = f"{part} has {n} spots on tissue; a correlation needs 3. Drop the slide, or leave out other groups."
            refuse_if(n < 3, msg)


def _scores(
    spec: TargetSpec, fold: Fold, held_out: HeldOut, *, metrics: str | Sequence[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of each method, of the ensemble's intervals, and the ceiling; and the ensemble's predictions."""
    truth, cohort = held_out.truth, spec.cohort
    slides, groups, xy = cohort.names[fold.test], cohort.groups[fold.test], cohort.xy_um[fold.test]
    if len(cohort.slides) == 1:
        groups = np.full(len(fold.test), f"within slide: {fold.name}")
    # Without totals is only asked whether counts are above 0.
    counts, totals = held_out.counts or (None if spec.genes is None else truth.to_numpy(), None)
    options = {"baseline": held_out.mean, "domains": held_out.domains, "counts": counts, "totals": totals, "xy": xy}
    scores = score_methods(held_out.predictions, truth, slides=slides, groups=groups, metrics=metrics, **options)
    scored, parts = set(scores["metric"]), [scores]
    error = np.abs(held_out.predictions["ensemble"] - truth.to_numpy())
    for slide in np.unique(slides):
        rows = slides == slide
        about = {"group": groups[rows][0], "slide": slide, "target": truth.columns, "n_spots": rows.sum()}
        values = {
            ("ensemble", f"{name}_{level:.0%}".rstrip("%")): value
            for level, width in held_out.half_widths.items()
            for name, value in (("coverage", (error[rows] <= width).mean(axis=0)), ("width", 2 * width))
        }
        if counts is not None and totals is not None:
            for metric, equal in (("pearson", False), ("pearson_equal_depth", True)):
                if metric in scored:
                    values["ceiling", metric] = ceiling(counts[rows], totals=totals[rows], equal_depth=equal)
        for (method, metric), value in values.items():
            parts.append(pd.DataFrame(about | {"method": method, "metric": metric, "value": value}))
    own = pd.DataFrame(held_out.predictions["ensemble"], truth.index, truth.columns)
    return pd.concat(parts, ignore_index=True), own
