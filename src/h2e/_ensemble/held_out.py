"""Train on the spots of a fold, and predict those that it leaves out by every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from h2e._ensemble.baselines import DOMAIN_FEATURES, baseline_predictions, domains_of, learners_beside
from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.extraction import Extracted, Features
from h2e._ensemble.fitting import FitConfig, n_models, progress_of
from h2e._ensemble.fold_models import Spots, names_of
from h2e._ensemble.stack import PER_MODEL, fit_stack, for_averages
from h2e._ensemble.training import train
from h2e._learners.folds import Fold
from h2e._parallel import active_client, in_parallel, send
from h2e._sdata.target_spec import TargetSpec
from h2e._statistics import group_mean

Folds = Sequence[tuple[Fold, Sequence[Fold]]]
"""Folds, each with those of its training spots."""

LEVELS = (0.8, 0.9)
"""Intervals whose coverage is measured."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The spots of a group left out: the truth, and what was predicted without the group."""

    truth: pd.DataFrame
    mean: np.ndarray  # (targets,) of the training groups
    domains: np.ndarray | None  # of the tissue, by texture, where they are asked for
    predictions: dict[str, np.ndarray]  # by method
    half_widths: dict[float, np.ndarray]  # of the ensemble's intervals, by level; empty where nothing calibrates them
    counts: tuple[np.ndarray, np.ndarray] | None  # raw, of the targets and, (n,), of all genes


def every_fold(
    features: Features, spec: TargetSpec, folds: Folds, config: FitConfig, then: Callable[..., Any]
) -> list[Any]:
    """Train on the spots of each fold, in the folds nested in it, predict those that it leaves out, and do ``then``.

    On a cluster a fold is a task, which is sent features, and no pixels.
    """
    learners, on_cluster = (*config.learners, *learners_beside(config).values()), active_client() is not None
    parts = [(inner, features.cohort.groups[fold.train]) for fold, inner in folds]
    with progress_of(config, parts) as bar:
        how = partial(_of_fold, then=then, config=config, bar=bar)
        if on_cluster:
            how = partial(_of_fold, then=then, config=replace(config, progress=False))
            spec = replace(spec, cohort=features.cohort.without_pixels())
        (spec,) = send([spec])

        def calls() -> Iterator[tuple]:
            last, sent = None, None
            for fold, inner in folds:
                extracted = features.of(learners, fold.train)
                if extracted is not last:
                    last, (sent,) = extracted, send([extracted])
                yield spec, sent, fold, inner

        counted = bar if on_cluster else tqdm(disable=True)
        return in_parallel(how, calls(), bar=counted, sizes=[n_models(config, *part) for part in parts])


def _of_fold(
    spec: TargetSpec, extracted: Extracted, fold: Fold, inner: Sequence[Fold], *, then: Callable[..., Any], **how: Any
) -> Any:
    """What is done with the predictions of the spots that a fold leaves out."""
    features = Features(spec.cohort, given=extracted)
    return then(spec, fold, held_out_predictions(features, spec, fold, inner, **how))


def held_out_predictions(
    features: Features, spec: TargetSpec, fold: Fold, inner: Sequence[Fold], config: FitConfig, bar: tqdm | None = None
) -> HeldOut:
    """Train on the spots of a fold, in ``inner`` folds, and predict those that it leaves out by each method."""
    cohort, beside = features.cohort, learners_beside(config)
    ensemble, values, x = train(features, spec, fold.train, inner, config, beside=tuple(beside.values()), bar=bar)
    own, every = names_of(config.learners), names_of((*config.learners, *beside.values()))
    spots = Spots(cohort.names, cohort.groups, {name: x[name] for name in own}, values.to_numpy(np.float32))
    test = spots.take(fold.test).x
    predictions = {"ensemble": ensemble.predict(test)[0]}
    if len(own) > 1:
        predictions |= {name: ensemble.predict_alone(test, name) for name in own}
        predictions |= _without_each(ensemble, spots.take(fold.train), predictions, config)
    by_baseline = {name: x[label] for name, label in zip(beside, every[len(own) :], strict=True)}
    spots, domains = replace(spots, x=by_baseline), None
    if DOMAIN_FEATURES in by_baseline:
        domains = domains_of(by_baseline[DOMAIN_FEATURES][fold.test], cohort.names[fold.test])
    counts = spec.counts(values.columns)
    totals = None if counts is None else counts[1]
    predictions |= baseline_predictions(spots, fold, config, domains=domains, totals=totals)
    widths = {level: width for level in LEVELS if (width := ensemble.half_width(level)) is not None}
    mean = group_mean(values.to_numpy()[fold.train], cohort.groups[fold.train])
    if counts is not None:
        counts = counts[0][fold.test], counts[1][fold.test]
    return HeldOut(values.iloc[fold.test], mean, domains, predictions, widths, counts)


def _without_each(
    ensemble: Ensemble, spots: Spots, predictions: Mapping[str, np.ndarray], config: FitConfig
) -> dict[str, np.ndarray]:
    """The ensemble without each of its learners, whose stack is fitted anew; empty for stacks of single models."""
    if ensemble.stack.kind in PER_MODEL:
        return {}
    combined, names = {}, names_of(ensemble.learners)
    for name in names:
        rest = [other for other in names if other != name]
        inputs = ensemble.held_out[[names.index(other) for other in rest]]
        stack = fit_stack(config.stack, inputs, spots.y, spots.groups, seed=config.seed)
        stack = for_averages(stack, spots, ensemble.members, rest)
        combined[f"without {name}"] = stack.combine(np.stack([predictions[other] for other in rest]))
    return combined
