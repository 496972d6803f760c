"""All metrics of all slides in one tidy table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from h2e._warnings import refuse_if

from ._checks import align, check_order, check_pair, in_order, labels, matrix, per_spot, positions
from ._choice import DRAWN, METRICS, PER_SPOT, choose

ALL_TARGETS = "(all targets)"
"""``target`` of the metrics that are taken over the targets of a spot."""

COLUMNS = ["group", "slide", "target", "metric", "value", "n_spots"]
"""Columns of the table of scores."""


def score(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    slides: ArrayLike,
    groups: ArrayLike | None = None,
    baseline: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    totals: ArrayLike | None = None,
    xy: ArrayLike | None = None,
    domains: ArrayLike | None = None,
    metrics: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score each target over the spots of each slide; spots of several slides are never pooled.

    Only held-out predictions may come in: rows of NaN (which ``h2e.tl.predict`` leaves for spots that the ensemble
    was trained on, and for spots without tissue) are refused, not skipped.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite. DataFrames have the same columns, in
        any order, which name the targets.
    slides
        Slide of each spot.
    groups
        Group (donor) of each spot; default: each slide is a group of its own.
    baseline
        Mean of the training slides, for ``skill`` and ``spot_rho``: one value per target, or spots × targets
        where the training slides differ between held-out groups.
    counts
        Raw counts, spots × targets, for ``auroc_detect`` and, with ``totals``, for ``pearson_equal_depth`` and
        ``pearson_no_biology``.
    totals
        Counts of each spot over *all* genes, also for ``pearson_beyond_depth``.
    xy
        Coordinates of the spots, in any unit, for ``moran_gap``.
    domains
        Tissue domain of each spot, for ``within_domain``.
    metrics
        Names of metrics, or ``"all"`` for every one that the arguments allow. Default: ``pearson``, the same at equal
        depth, without biology and beyond depth, ``spearman``, ``skill``, ``variance_ratio``, ``within_domain``, each
        where its arguments are there.
        ``spot_rho`` brings ``spot_rho_constant``, the value of the constant profile, with it.

    Returns
    -------
    A tidy DataFrame: ``group``, ``slide``, ``target``, ``metric``, ``value``, ``n_spots``. ``value`` is NaN where the
    *truth* leaves nothing to score (it is constant); :func:`summarize` counts these. ``spot_rho`` is the
    mean over the spots of a slide, with target ``"(all targets)"``.

    Raises
    ------
    ValueError
        A metric is unknown or lacks what it needs, shapes or indices differ, values are not finite, a slide has fewer
        than 3 spots or lies in two groups.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> truth = np.array([[0.0], [1.0], [2.0], [5.0], [7.0], [9.0]])
    >>> slides = ["S1", "S1", "S1", "S2", "S2", "S2"]
    >>> h2e.metrics.score(truth + 1, truth, slides=slides, baseline=[4.0], metrics=["pearson", "skill"])
      group slide  target   metric     value  n_spots
    0    S1    S1       0  pearson  1.000000        3
    1    S1    S1       0    skill  0.896552        3
    2    S2    S2       0  pearson  1.000000        3
    3    S2    S2       0    skill  0.914286        3
    """
    options = {"groups": groups, "baseline": baseline, "counts": counts, "totals": totals, "xy": xy}
    scores = score_methods({"": prediction}, truth, slides=slides, domains=domains, metrics=metrics, **options)
    return scores[COLUMNS]


def score_methods(
    predictions: Mapping[str, ArrayLike],
    truth: ArrayLike,
    *,
    slides: ArrayLike,
    groups: ArrayLike | None = None,
    metrics: str | Sequence[str] | None = None,
    **beside: ArrayLike | None,
) -> pd.DataFrame:
    """Score several methods as :func:`score` does, with one truth and what it is compared with."""
    check_order(truth, {"slides": slides, "groups": groups, **beside})
    aligned = {method: align(prediction, truth) for method, prediction in predictions.items()}
    _, measured, names = next(iter(aligned.values()))
    slides = labels(slides, len(measured), "slides")
    groups = slides if groups is None else labels(groups, len(measured), "groups")
    arrays = {"prediction": measured, "truth": measured} | _checked(beside, truth, measured, names)
    chosen = choose(metrics, arrays)
    group_of = _group_of(slides, groups)
    parts: dict[str, list[pd.DataFrame]] = {method: [] for method in predictions}
    for slide, group in group_of.items():
        of_slide = {name: values[slides == slide] for name, values in arrays.items()}
        wanted = {argument for name in chosen for argument in METRICS[name][1]} & set(DRAWN)
        of_slide |= {name: DRAWN[name](of_slide["counts"], of_slide["totals"]) for name in sorted(wanted)}
        for method, (predicted, _, _) in aligned.items():
            of_slide["prediction"] = predicted[slides == slide]
            scores = _score_slide(of_slide, chosen, names)
            parts[method].append(scores.assign(slide=slide, group=group, method=method))
    scores = pd.concat([part for of_method in parts.values() for part in of_method], ignore_index=True)
    return scores[[*COLUMNS, "method"]]


def _checked(
    beside: Mapping[str, ArrayLike | None], truth: ArrayLike, measured: np.ndarray, names: list
) -> dict[str, np.ndarray]:
    """Arrays of what a truth is compared with, as far as it was passed."""
    there = {name: values for name, values in beside.items() if values is not None}
    checks: dict[str, Callable[[ArrayLike], np.ndarray]] = {
        "baseline": lambda values: per_spot(in_order(values, names), truth, "baseline"),
        "counts": lambda values: check_pair(measured, in_order(values, names))[1],
        "totals": lambda values: np.ravel(matrix(values, "totals")),
        "xy": lambda values: positions(values, truth),
        "domains": lambda values: labels(values, len(measured), "domains"),
    }
    return {name: checks[name](values) for name, values in there.items()}


def _group_of(slides: np.ndarray, groups: np.ndarray) -> dict[str, str]:
    """Group of each slide, sorted by group and slide, so that the order of the spots does not matter."""
    pairs = sorted(set(zip(groups, slides, strict=True)))
    names = [slide for _, slide in pairs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    refuse_if(repeated, f"slides must have one group, got {repeated} that belong to more than one group; rename them.")
    small = [name for name in names if (slides == name).sum() < 3]
    refuse_if(small, f"slides must have at least 3 spots for a correlation, got {small} with fewer; drop them.")
    return {slide: group for group, slide in pairs}


def _score_slide(arrays: dict[str, np.ndarray], metrics: list[str], names: list) -> pd.DataFrame:
    """Tidy scores of one slide."""
    parts = []
    for name in metrics:
        function, arguments = METRICS[name]
        values = function(*(arrays[argument] for argument in arguments))
        # Where counts are thinned, spots that are too shallow are left out.
        n_spots = len(arrays["truth"])
        if arguments[1] in DRAWN:
            n_spots = int(np.isfinite(arrays[arguments[1]]).any(axis=1).sum())
        columns = {"target": names, "value": values, "n_spots": n_spots}
        if name in PER_SPOT:
            mean, n_scored = pd.Series(values).mean(), np.isfinite(values).sum()
            columns = {"target": [ALL_TARGETS], "value": [mean], "n_spots": n_scored}
        parts.append(pd.DataFrame(columns).assign(metric=name))
    return pd.concat(parts)
