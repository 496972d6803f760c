"""What a score is made of: beside the depth of the spots, the worst donor, and what could be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e.metrics import summarize
from h2e.pl._canvas import make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = {
    "pearson": ("Pearson", "#0072B2", -0.16),
    "pearson_equal_depth": ("at equal depth", "#D55E00", 0.16),
}
"""Metrics that are drawn with every group and their ceiling: label, colour, and where in the row of a method."""

NO_BIOLOGY = "pearson_no_biology"
CEILING = "ceiling"
METHODS = ("ensemble", "baseline: ridge on texture", "baseline: coordinates", "oracle: depth")
"""What is drawn by default, as far as it was scored."""


def scores(scores: pd.DataFrame, *, methods: str | Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Plot Pearson correlations, at equal depth and without biology, of the worst group, and their ceilings.

    Parameters
    ----------
    scores
        Table of :func:`h2e.tl.evaluate`. Without raw counts there are only plain correlations in it, and no ceiling.
    methods
        Which of its methods. ``None`` takes the ensemble, ridge on texture, coordinates and depth, those that it has.
    ax
        Axes to draw on; ``None`` makes a figure.

    Returns
    -------
    The Axes, a row per method. A small dot is the mean over targets of a group, the line their range, the worst one is
    named; the large dot is the mean over groups. A cross is the score against counts without biology. Dashed lines are
    ceilings.

    Raises
    ------
    KeyError
        The table has no Pearson correlations, or not this method.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3)
    >>> options = {"learners": "texture", "n_targets": 4, "group_key": "donor", "progress": False}
    >>> ax = h2e.pl.scores(h2e.tl.evaluate(sdata, **options))
    >>> [label.get_text() for label in ax.get_yticklabels()][0]
    'ensemble'
    """
    known = scores.loc[scores["metric"] == "pearson", "method"].unique() if "method" in scores else []
    default = [name for name in METHODS if name in known]
    chosen = default if methods is None else [methods] if isinstance(methods, str) else list(methods)
    if not chosen or not set(chosen) <= set(known):
        msg = f"methods {chosen} have no Pearson correlation in these scores; those that have are {list(known)}."
        raise KeyError(msg)
    drawn = scores[scores["metric"].isin([*SERIES, NO_BIOLOGY])]
    by_group = summarize(drawn, by="group").groupby(["metric", "method"])["mean"]
    overall = summarize(drawn).groupby("metric")
    (axis,) = make_axes(ax, [[0]], "scores", figsize=(6.6, 1.8 + 0.55 * len(chosen)))
    for metric, of_metric in overall:
        of_methods = of_metric.set_index("method")
        label, colour, offset = SERIES.get(metric, ("Pearson without biology", "0.45", SERIES["pearson"][2]))
        rows = np.arange(len(chosen)) + offset
        means = of_methods.loc[chosen, "mean"]
        if metric == NO_BIOLOGY:
            axis.scatter(means, rows, marker="x", color=colour, zorder=4, label=label)
            continue
        axis.scatter(means, rows, s=40, color=colour, zorder=3, label=f"{label}, mean over groups")
        for row, method in zip(rows, chosen, strict=True):
            values = by_group.get_group((metric, method))
            axis.plot(values, np.full(len(values), row), "o-", color=colour, markersize=3, linewidth=1)
            if len(values) > 1:
                worst, name = of_methods.loc[method, ["worst", "worst_group"]]
                place = {"textcoords": "offset points", "xytext": (-4, 0), "ha": "right", "va": "center"}
                axis.annotate(name, (worst, row), color=colour, fontsize="x-small", **place)
        if CEILING in of_methods.index:
            ceiling = of_methods.loc[CEILING, "mean"]
            axis.axvline(ceiling, color=colour, linestyle="--", linewidth=1, label=f"{label}, ceiling")
    axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(chosen)), chosen)
    axis.set(ylim=(len(chosen) - 0.5, -0.5), xlabel="over the spots of a left-out slide, mean over targets")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="x-small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return axis
