"""All metrics of all slides in one tidy table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import _correlation, _distribution, _error, _spatial
from ._checks import align, check_order, check_pair, in_order, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import ArrayLike

ALL_TARGETS = "(all targets)"
"""``target`` of the metrics that are taken over the targets of a spot."""

COLUMNS = ["group", "slide", "target", "metric", "value", "n_spots"]
"""Columns of the table of scores."""


@dataclass(frozen=True)
class Spots:
    """The spots of one slide, with what some metrics ask for besides."""

    prediction: np.ndarray
    truth: np.ndarray
    baseline: np.ndarray | None = None
    counts: np.ndarray | None = None
    xy: np.ndarray | None = None
    domains: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Spots:
        """Only these spots."""
        return Spots(**{name: None if (x := getattr(self, name)) is None else x[rows] for name in FIELDS})


FIELDS = tuple(Spots.__dataclass_fields__)

PER_TARGET: dict[str, tuple[Callable[[Spots], np.ndarray], str | None]] = {
    "pearson": (lambda s: _correlation.pearson(s.prediction, s.truth), None),
    "spearman": (lambda s: _correlation.spearman(s.prediction, s.truth), None),
    "skill": (lambda s: _error.skill(s.prediction, s.truth, s.baseline), "baseline"),
    "ccc": (lambda s: _correlation.ccc(s.prediction, s.truth), None),
    "r2": (lambda s: _error.r2(s.prediction, s.truth), None),
    "rmse": (lambda s: _error.rmse(s.prediction, s.truth), None),
    "mae": (lambda s: _error.mae(s.prediction, s.truth), None),
    "nrmse_sd": (lambda s: _error.nrmse_sd(s.prediction, s.truth), None),
    "nrmse_range": (lambda s: _error.nrmse_range(s.prediction, s.truth), None),
    "auroc_detect": (lambda s: _distribution.auroc_detect(s.prediction, s.counts), "counts"),
    "nmi": (lambda s: _distribution.nmi(s.prediction, s.truth), None),
    "ssim_global": (lambda s: _distribution.ssim_global(s.prediction, s.truth), None),
    "js": (lambda s: _distribution.js(s.prediction, s.truth), None),
    "variance_ratio": (lambda s: _error.variance_ratio(s.prediction, s.truth), None),
    "moran_gap": (lambda s: _spatial.moran_gap(s.prediction, s.truth, s.xy), "xy"),
    "within_domain": (lambda s: _correlation.within_domain(s.prediction, s.truth, s.domains), "domains"),
}
"""How each metric is computed, and which argument of :func:`score` it needs."""

PER_SPOT: dict[str, tuple[Callable[[Spots], np.ndarray], str | None]] = {
    "spot_rho": (lambda s: _correlation.spot_rho(s.prediction, s.truth), "baseline"),
    "spot_rho_constant": (lambda s: _correlation.spot_rho(s.baseline, s.truth), "baseline"),
}
"""The same for correlations over targets, which are never shown without those of the constant profile."""

DEFAULT = ("pearson", "spearman", "skill", "variance_ratio", "within_domain")
"""What is scored unless asked otherwise, as far as the arguments allow."""


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
    prediction
        Predicted values, spots × targets; finite. A DataFrame must have the columns of ``truth``, in any order.
    truth
        Measured values of the same spots and targets: log-normalized expression or proportions. A DataFrame names
        the targets.
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
        A metric is unknown or lacks what it needs, shapes or indices differ, values are NaN, a slide has fewer than
        3 spots or lies in two groups.

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
    beside = {"counts": counts, "slides": slides, "groups": groups, "domains": domains}
    check_order(truth, beside | ({} if np.ndim(baseline) < 2 else {"baseline": baseline}))
    prediction, truth, names = align(prediction, truth)
    n = len(truth)
    slides = labels(slides, n, "slides")
    groups = slides if groups is None else labels(groups, n, "groups")
    spots = Spots(
        prediction=prediction,
        truth=truth,
        baseline=None if baseline is None else _error.spread_baseline(in_order(baseline, names), truth.shape),
        counts=None if counts is None else check_pair(prediction, in_order(counts, names))[1],
        xy=None if xy is None else _spatial.check_xy(xy, n),
        domains=None if domains is None else labels(domains, n, "domains"),
    )
    chosen = _choose(metrics, spots)
    group_of = _group_of(slides, groups)
    parts = [_score_slide(spots.take(slides == slide), chosen, names) for slide in group_of]
    table = pd.concat(parts, keys=list(group_of), names=["slide"]).reset_index("slide")
    table["group"] = table["slide"].map(group_of)
    return table[COLUMNS].reset_index(drop=True)


def _choose(metrics: str | Sequence[str] | None, spots: Spots) -> list[str]:
    """Names of the metrics to compute; those asked for by name must have what they need."""
    known = PER_TARGET | PER_SPOT
    possible = [name for name, (_, need) in known.items() if need is None or getattr(spots, need) is not None]
    if metrics is None:
        return [name for name in DEFAULT if name in possible]
    if metrics == "all":
        several, non_negative = spots.truth.shape[1] > 1, (spots.truth >= 0).all()
        without = (set() if several else set(PER_SPOT)) | (set() if non_negative else {"js", "ssim_global"})
        return [name for name in possible if name not in without]
    asked = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    check_metrics(asked, [field for field in FIELDS if getattr(spots, field) is None])
    pair = list(PER_SPOT)
    return [name for name in asked if name not in pair] + (pair if set(asked) & set(pair) else [])


def check_metrics(asked: Sequence[str], lacking: Collection[str]) -> None:
    """Refuse metrics that are not known, or that need an argument of :func:`score` that is lacking."""
    known = PER_TARGET | PER_SPOT
    if not len(asked):
        msg = f"metrics is empty; name some of {list(known)}, or leave it out."
        raise ValueError(msg)
    for name in asked:
        if name not in known:
            msg = f"metric {name!r} is not known; choose from {list(known)}."
            raise ValueError(msg)
        if known[name][1] in lacking:
            msg = f"metric {name!r} needs {known[name][1]}=, which was not passed."
            raise ValueError(msg)


def _group_of(slides: np.ndarray, groups: np.ndarray) -> dict[str, str]:
    """Group of each slide, sorted by group and slide, so that the order of the spots does not matter."""
    pairs = sorted(set(zip(groups, slides, strict=True)))
    names = [slide for _, slide in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"slides {twice} belong to more than one group; a slide has one donor, and slide names must be unique."
        raise ValueError(msg)
    small = [name for name in names if (slides == name).sum() < 3]
    if small:
        msg = f"slides {small} have fewer than 3 spots; a correlation over them means nothing, drop them."
        raise ValueError(msg)
    return {slide: group for group, slide in pairs}


def _score_slide(spots: Spots, metrics: list[str], names: list) -> pd.DataFrame:
    """Tidy scores of one slide."""
    parts = []
    for name in metrics:
        if name in PER_TARGET:
            columns = {"target": names, "value": PER_TARGET[name][0](spots), "n_spots": len(spots.truth)}
        else:
            rho = PER_SPOT[name][0](spots)
            rho = rho[np.isfinite(rho)]
            columns = {"target": [ALL_TARGETS], "value": [rho.mean() if len(rho) else np.nan], "n_spots": len(rho)}
        parts.append(pd.DataFrame(columns).assign(metric=name))
    return pd.concat(parts)
