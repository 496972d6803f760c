"""Look at the report: each slide against its cohort."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.report import odd_figures
from h2e._slide.quality import TOLERANCES
from h2e.get import report as get_report
from h2e.pl._canvas import make_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

FIGURES = ("um_per_px", "shift", *TOLERANCES)
"""Columns of the report that are drawn."""

USUAL, ODD = "#0072B2", "#D55E00"


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
