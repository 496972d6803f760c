"""All metrics of all slides in one tidy table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from . import _correlation, _distribution, _error
from ._checks import align, check_non_negative, check_order, check_pair, in_order, labels, per_spot, positions

ALL_TARGETS = "(all targets)"
"""``target`` of the metrics that are taken over the targets of a spot."""

COLUMNS = ["group", "slide", "target", "metric", "value", "n_spots"]
"""Columns of the table of scores."""

PAIR = ("prediction", "truth")

METRICS: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...]]] = {
    "pearson": (_correlation.pearson, PAIR),
    "spearman": (_correlation.spearman, PAIR),
    "skill": (_error.skill, (*PAIR, "baseline")),
    "ccc": (_correlation.ccc, PAIR),
    "r2": (_error.r2, PAIR),
    "rmse": (_error.rmse, PAIR),
    "mae": (_error.mae, PAIR),
    "nrmse_sd": (_error.nrmse_sd, PAIR),
    "nrmse_range": (_error.nrmse_range, PAIR),
    "auroc_detect": (_distribution.auroc_detect, ("prediction", "counts")),
    "nmi": (_distribution.nmi, PAIR),
    "ssim_global": (_distribution.ssim_global, PAIR),
    "js": (_distribution.js, PAIR),
    "variance_ratio": (_error.variance_ratio, PAIR),
    "moran_gap": (_distribution.moran_gap, (*PAIR, "xy")),
    "within_domain": (_correlation.within_domain, (*PAIR, "domains")),
    "spot_rho": (_correlation.spot_rho, PAIR),
    "spot_rho_constant": (_correlation.spot_rho, ("baseline", "truth")),
}
"""How each metric is computed, and from which arguments of :func:`score`."""

PER_SPOT = ("spot_rho", "spot_rho_constant")
"""Metrics over the targets of a spot; the first is never shown without the second, that of the constant profile."""

NON_NEGATIVE = ("ssim_global", "js")
"""Metrics that have no meaning for a truth below 0."""

LIMITED = (*PER_SPOT, *NON_NEGATIVE)
"""Metrics that :func:`check_metrics` refuses for some truths."""

DEFAULT = ("pearson", "spearman", "skill", "variance_ratio", "within_domain")
"""What is scored by default, as far as the arguments allow."""


def score(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    slides: ArrayLike,
    groups: ArrayLike | None = None,
    baseline: ArrayLike | None = None,
    counts: ArrayLike | None = None,
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
        Raw counts, spots × targets, for ``auroc_detect``.
    xy
        Coordinates of the spots, in any unit, for ``moran_gap``.
    domains
        Tissue domain of each spot, for ``within_domain``.
    metrics
        Names of metrics, or ``"all"`` for every one that the arguments allow. Default: ``pearson``, ``spearman``,
        ``skill``, ``variance_ratio``, ``within_domain``, the last three where their arguments are there.
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
    check_order(truth, {"counts": counts, "slides": slides, "groups": groups, "domains": domains})
    predicted, measured, names = align(prediction, truth)
    n_spots = len(measured)
    slides = labels(slides, n_spots, "slides")
    groups = slides if groups is None else labels(groups, n_spots, "groups")
    arrays = {"prediction": predicted, "truth": measured}
    if baseline is not None:
        arrays["baseline"] = per_spot(in_order(baseline, names), truth, "baseline")
    if counts is not None:
        arrays["counts"] = check_pair(predicted, in_order(counts, names))[1]
    if xy is not None:
        arrays["xy"] = positions(xy, truth)
    if domains is not None:
        arrays["domains"] = labels(domains, n_spots, "domains")
    chosen = _choose(metrics, arrays)
    group_of = _group_of(slides, groups)
    parts = []
    for slide, group in group_of.items():
        of_slide = {name: values[slides == slide] for name, values in arrays.items()}
        parts.append(_score_slide(of_slide, chosen, names).assign(slide=slide, group=group))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def check_metrics(
    metrics: Sequence[str], *, missing: Collection[str] = (), truth: np.ndarray | pd.DataFrame | None = None
) -> None:
    """Refuse metrics that are unknown, that need a missing argument, or that this truth cannot have."""
    if not len(metrics):
        msg = f"metrics is empty; name some of {list(METRICS)}, or leave it out."
        raise ValueError(msg)
    for name in metrics:
        if name not in METRICS:
            msg = f"metric {name!r} is not known; choose from {list(METRICS)}."
            raise ValueError(msg)
        lacking = sorted(_needs(name) & set(missing))
        if lacking:
            msg = f"metric {name!r} needs {lacking[0]}=, which was not passed."
            raise ValueError(msg)
        if truth is not None and name in PER_SPOT and truth.shape[1] < 2:
            msg = f"metric {name!r} needs at least 2 targets, over which it correlates, got 1; leave it out."
            raise ValueError(msg)
        if truth is not None and name in NON_NEGATIVE:
            check_non_negative(np.asarray(truth), "truth")


def _needs(name: str) -> set[str]:
    """Arguments of :func:`score` that a metric needs; the constant profile is computed beside ``spot_rho``."""
    return {*METRICS[name][1], *(["baseline"] if name in PER_SPOT else [])}


def _choose(metrics: str | Sequence[str] | None, arrays: dict[str, np.ndarray]) -> list[str]:
    """Names of the metrics to compute; those that are named must have what they need."""
    possible = [name for name in METRICS if _needs(name) <= set(arrays)]
    if metrics is None:
        return [name for name in DEFAULT if name in possible]
    if metrics == "all":
        truth = arrays["truth"]
        excluded = (PER_SPOT if truth.shape[1] < 2 else ()) + (NON_NEGATIVE if (truth < 0).any() else ())
        return [name for name in possible if name not in excluded]
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    missing = {argument for _, arguments in METRICS.values() for argument in arguments} - set(arrays)
    check_metrics(names, missing=missing, truth=arrays["truth"])
    if set(names) & set(PER_SPOT):
        names = [*(name for name in names if name not in PER_SPOT), *PER_SPOT]
    return names


def _group_of(slides: np.ndarray, groups: np.ndarray) -> dict[str, str]:
    """Group of each slide, sorted by group and slide, so that the order of the spots does not matter."""
    pairs = sorted(set(zip(groups, slides, strict=True)))
    names = [slide for _, slide in pairs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"slides must have names of their own and one group, got {repeated} that belong to more than one group."
        raise ValueError(msg)
    small = [name for name in names if (slides == name).sum() < 3]
    if small:
        msg = f"slides must have at least 3 spots for a correlation, got {small} with fewer; drop them."
        raise ValueError(msg)
    return {slide: group for group, slide in pairs}


def _score_slide(arrays: dict[str, np.ndarray], metrics: list[str], names: list) -> pd.DataFrame:
    """Tidy scores of one slide."""
    parts = []
    for name in metrics:
        function, arguments = METRICS[name]
        values = function(*(arrays[argument] for argument in arguments))
        columns = {"target": names, "value": values, "n_spots": len(arrays["truth"])}
        if name in PER_SPOT:
            mean, n_scored = pd.Series(values).mean(), np.isfinite(values).sum()
            columns = {"target": [ALL_TARGETS], "value": [mean], "n_spots": n_scored}
        parts.append(pd.DataFrame(columns).assign(metric=name))
    return pd.concat(parts)
