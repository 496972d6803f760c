"""Which metrics there are, what each needs, and which are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd

from h2e._warnings import refuse, refuse_if

from . import _correlation, _depth, _distribution, _error
from ._checks import check_non_negative

PAIR = ("prediction", "truth")

METRICS: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...]]] = {
    "pearson": (_correlation.pearson, PAIR),
    "pearson_equal_depth": (_depth.mean_correlation, ("prediction", "equal depth")),
    "pearson_no_biology": (_depth.mean_correlation, ("prediction", "no biology")),
    "pearson_beyond_depth": (_depth.pearson_beyond_depth, (*PAIR, "totals")),
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
"""How each metric is computed, and from which arguments of :func:`score`, or of what is drawn from them."""

DRAWN = {"equal depth": _depth.at_equal_depth, "no biology": _depth.without_biology}
"""What is drawn once a slide from ``counts`` and ``totals``, whatever is predicted."""

PER_SPOT = ("spot_rho", "spot_rho_constant")
"""Metrics over the targets of a spot; the first is never shown without the second, that of the constant profile."""

NON_NEGATIVE = ("ssim_global", "js")
"""Metrics that have no meaning for a truth below 0."""

LIMITED = (*PER_SPOT, *NON_NEGATIVE)
"""Metrics that :func:`check_metrics` refuses for some truths."""

DEFAULT = (
    "pearson", "pearson_equal_depth", "pearson_no_biology", "pearson_beyond_depth", "spearman", "skill",
    "variance_ratio", "within_domain",
)  # fmt: skip
"""What is scored by default, as far as the arguments allow."""


def check_metrics(
    metrics: Sequence[str], *, missing: Collection[str] = (), truth: np.ndarray | pd.DataFrame | None = None
) -> None:
    """Refuse metrics that are unknown, that need a missing argument, or that this truth cannot have."""
    refuse_if(not len(metrics), f"metrics is empty; name some of {list(METRICS)}, or leave it out.")
    for name in metrics:
        refuse_if(name not in METRICS, f"metric {name!r} is not known; choose from {list(METRICS)}.")
        lacking = sorted(_needs(name) & set(missing))
        refuse_if(lacking, f"metric {name!r} needs {'= and '.join(lacking)}=, which was not passed.")
        if truth is not None and name in PER_SPOT and truth.shape[1] < 2:
            refuse(f"metric {name!r} needs at least 2 targets, over which it correlates, got 1; leave it out.")
        if truth is not None and name in NON_NEGATIVE:
            check_non_negative(np.asarray(truth), "truth")


def _needs(name: str) -> set[str]:
    """Arguments of :func:`score` that a metric needs; the constant profile is computed beside ``spot_rho``."""
    needed = {*METRICS[name][1], *(["baseline"] if name in PER_SPOT else [])}
    return (needed - set(DRAWN)) | ({"counts", "totals"} if needed & set(DRAWN) else set())


def choose(metrics: str | Sequence[str] | None, arrays: dict[str, np.ndarray]) -> list[str]:
    """Names of the metrics to compute; those that are named must have what they need."""
    possible = [name for name in METRICS if _needs(name) <= set(arrays)]
    if metrics is None:
        return [name for name in DEFAULT if name in possible]
    if metrics == "all":
        truth = arrays["truth"]
        excluded = (PER_SPOT if truth.shape[1] < 2 else ()) + (NON_NEGATIVE if (truth < 0).any() else ())
        return [name for name in possible if name not in excluded]
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    missing = {argument for name in METRICS for argument in _needs(name)} - set(arrays)
    check_metrics(names, missing=missing, truth=arrays["truth"])
    if set(names) & set(PER_SPOT):
        names = [*(name for name in names if name not in PER_SPOT), *PER_SPOT]
    return names
