"""Look at tables: the report of each slide against its cohort, and what a score is made of."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.report import odd_figures
from h2e._slide.quality import TOLERANCES
from h2e.get import report as get_report
from h2e.metrics import summarize
from h2e.pl._canvas import make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

FIGURES = ("um_per_px", "shift", *TOLERANCES)
"""Columns of the report that are drawn."""

USUAL, ODD = "#0072B2", "#D55E00"

SERIES = {
    "pearson": ("Pearson", "#0072B2", -0.16),
    "pearson_equal_depth": ("at equal depth", "#D55E00", 0.16),
}
"""Metrics that are drawn with every group and their ceiling: label, colour, and where in the row of a method."""

NO_BIOLOGY = "pearson_no_biology"
CEILING = "ceiling"
METHODS = ("ensemble", "baseline: ridge on texture", "baseline: coordinates", "oracle: depth")
"""What is drawn by default, as far as it was scored."""


def report(
    data: AnnData | SpatialData, *, table_key: str = _keys.TABLE, ax: Sequence[Axes] | None = None
) -> np.ndarray:
    """Show the report of :func:`h2e.pp.normalize`: each slide against its cohort, and in words what is odd.

    Parameters
    ----------
    data
        Slides that were prepared, or their table.
    table_key
        Table of the slides.
    ax
        Seven Axes to draw on; by default a new figure.

    Returns
    -------
    Axes, one for each figure, with a row per slide, and one for the words. The line is the median of the cohort; dots
    in the gray band around it are never odd, what is odd is orange.

    Raises
    ------
    KeyError
        There is no report.
    ValueError
        ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize(sdata)
    >>> axes = h2e.pl.report(sdata)
    >>> [label.get_text() for label in axes[0].get_yticklabels()]
    ['toy_A1', 'toy_A2', 'toy_B1', 'toy_C1']
    """
    table = get_report(data, table_key=table_key).reindex(columns=[*FIGURES, "warnings"])
    odd = odd_figures(table).reindex(columns=FIGURES, fill_value=False)
    size = {"figsize": (13, 1.2 + 0.22 * len(table)), "width_ratios": [1] * len(FIGURES) + [2.5]}
    axes = make_axes(ax, [list(range(len(FIGURES) + 1))], "figures and warnings", **size)
    for axis, name in zip(axes, FIGURES, strict=False):
        _draw_figure(axis, table[name].astype(float), odd[name])
    for axis in axes:
        axis.set(ylim=(len(table) - 0.5, -0.5), yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(table)), table.index.astype(str), fontsize="small")
    axes[-1].set_axis_off()
    for row, (label, text) in enumerate(zip(axes[0].get_yticklabels(), table["warnings"].fillna(""), strict=True)):
        label.set_color(ODD if text else "black")
        axes[-1].text(0, row, shorten(text, 75, placeholder=" …"), va="center", fontsize="x-small", color=ODD)
    return axes


def _draw_figure(axis: Axes, values: pd.Series, odd: pd.Series) -> None:
    """Draw a dot for each slide, the median, and what is never odd."""
    for row in range(1, len(values), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="0.97", zorder=-2)
    if values.notna().any():
        median, tolerance = values.median(), TOLERANCES.get(str(values.name), 0)
        axis.axvspan(median - tolerance, median + tolerance, color="0.88", zorder=-1)
        axis.axvline(median, color="0.5", linewidth=0.8, zorder=0)
    axis.scatter(values, range(len(values)), c=np.where(odd, ODD, USUAL), s=20, zorder=2)
    axis.set_xlabel(str(values.name), fontsize="small")
    axis.tick_params(axis="x", labelsize="x-small")


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
