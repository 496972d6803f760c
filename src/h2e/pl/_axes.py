"""Axes to draw on: those that the user gave, or those of a new figure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import HashableList

    Mosaic = list[HashableList[Hashable]]


def make_axes(ax: Axes | Sequence[Axes] | None, mosaic: Mosaic, what: str, **figure: Any) -> np.ndarray:
    """The Axes that were given, or those of a new figure, in the order of the numbers of a mosaic.

    A new figure grows with its letters, so that what fits in it at 10 points does at 16.
    """
    n = len({cell for row in mosaic for cell in row} - {"."})
    if ax is None:
        import matplotlib.pyplot as plt

        figure["figsize"] = [side * plt.rcParams["font.size"] / 10 for side in figure["figsize"]]
        made = plt.subplot_mosaic(mosaic, layout="constrained", **figure)[1]
        return np.array([made[i] for i in range(n)], dtype=object)
    # plt.subplot_mosaic gives a mapping.
    axes = np.ravel(np.asarray(list(ax.values()) if isinstance(ax, Mapping) else ax, dtype=object))
    if len(axes) != n:
        msg = f"ax has {len(axes)} Axes, this plot draws on {n}: {what}."
        raise ValueError(msg)
    return axes


def in_rows(lengths: Sequence[int]) -> Mosaic:
    """A mosaic of rows of these lengths.

    Examples
    --------
    >>> in_rows([1, 2])
    [[0, '.'], [1, 2]]
    """
    number = count()
    return [[next(number) if column < length else "." for column in range(max(lengths))] for length in lengths]
