"""Look at how much the learners of an ensemble differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e.pl._axes import one_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 0.75
"""Inches of a cell in a new figure."""


def residual_correlation(correlations: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Plot how strongly the held-out errors of the learners agree, as a small annotated heat map.

    Learners whose errors are alike (near 1) say the same twice; the lower the correlation, the more their mean or stack
    gains over each alone.

    Parameters
    ----------
    correlations
        Learner × learner: Pearson correlation of the held-out errors of two learners, mean over targets.
    ax
        Axes to draw on; ``None`` makes a figure.

    Returns
    -------
    The Axes, with the learners in the order of the frame, the first in the upper left corner; each cell but those of the
    diagonal, which are 1 by definition, gives its value. Colours run from −1 to 1 with white at 0; what is not known is
    gray.

    Raises
    ------
    ValueError
        The frame is not square with the same learners on both sides, is not symmetric, or has values beyond −1 and 1.

    Examples
    --------
    >>> import h2e, pandas as pd
    >>> names = ["texture", "knn", "multiscale"]
    >>> r = pd.DataFrame([[1, 0.9, 0.4], [0.9, 1, 0.5], [0.4, 0.5, 1]], index=names, columns=names)
    >>> ax = h2e.pl.residual_correlation(r)
    >>> [text.get_text() for text in ax.texts]
    ['0.90', '0.40', '0.90', '0.50', '0.40', '0.50']
    """
    values = _checked(correlations)
    names = [str(name) for name in correlations.columns]
    n, longest = len(names), max(map(len, names))
    ax = one_axes(ax, (1.6 + 0.09 * longest + CELL * n, 0.6 + 0.06 * longest + CELL * n))
    shown = np.ma.masked_invalid(values)
    cells = ax.pcolormesh(shown, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=1.5)
    ax.set_facecolor("0.85")
    ax.grid(visible=False)
    middles = np.arange(n) + 0.5
    for row, column in zip(*np.nonzero(~np.eye(n, dtype=bool)), strict=True):
        value, fill = values[row, column], cells.cmap(cells.norm(values[row, column]))
        ax.text(
            middles[column], middles[row], f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "–",
            ha="center", va="center", color="white" if np.isfinite(value) and _luminance(fill) < 0.18 else "black",
        )  # fmt: skip
    turned = longest > 8
    ax.set_xticks(
        middles, names, rotation=35 if turned else 0, ha="right" if turned else "center", rotation_mode="anchor"
    )
    ax.set_yticks(middles, names)
    ax.set(xlim=(0, n), ylim=(n, 0), aspect="equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(cells, ax=ax, shrink=0.8, ticks=(-1, -0.5, 0, 0.5, 1))
    bar.set_label("correlation of held-out errors", fontsize="small")
    bar.outline.set_visible(False)
    return ax


def _checked(correlations: pd.DataFrame) -> np.ndarray:
    """The values of a symmetric frame of correlations."""
    if not hasattr(correlations, "columns"):
        msg = (
            f"correlations is a {type(correlations).__name__}; pass a DataFrame, such as ensemble.error_correlation()."
        )
        raise TypeError(msg)
    rows, columns = list(correlations.index), list(correlations.columns)
    if rows != columns or not rows:
        msg = f"correlations has rows {rows} and columns {columns}; it needs the same learners, in one order, on both sides."
        raise ValueError(msg)
    values = correlations.to_numpy(float)
    if not np.allclose(values, values.T, atol=1e-6, equal_nan=True) or (np.abs(values) > 1 + 1e-6).any():
        msg = (
            f"correlations of {rows} are not symmetric, or not within −1 and 1; pass Pearson correlations of all pairs."
        )
        raise ValueError(msg)
    return values


def _luminance(colour: tuple[float, ...]) -> float:
    """How light a colour looks, 0 to 1; black and white are equally legible on 0.18."""
    return float(np.asarray(colour[:3]) ** 2.2 @ (0.2126, 0.7152, 0.0722))
