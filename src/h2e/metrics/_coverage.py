"""Do intervals contain the truth as often as they claim, on groups that did not set their width?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._ensemble.conformal import half_widths

from ._checks import align, check_order, check_pair, labels, matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def coverage(lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Share of spots whose measured value lies inside its interval, per target.

    Parameters
    ----------
    lower
        Lower ends, spots × targets.
    upper
        Upper ends.
    truth
        Measured values.

    Returns
    -------
    One share per target; ends count as inside.

    Raises
    ------
    ValueError
        Shapes differ, values are NaN or infinite, or ``lower`` is above ``upper``.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    array([0.5])
    """
    lower, truth = check_pair(lower, truth)
    upper, truth = check_pair(upper, truth)
    if (lower > upper).any():
        msg = f"lower is above upper for {int((lower > upper).sum())} values; pass them as (lower, upper, truth)."
        raise ValueError(msg)
    return ((lower <= truth) & (truth <= upper)).mean(axis=0)


def residual_quantile(residuals: ArrayLike, groups: ArrayLike, *, level: float) -> np.ndarray:
    """Half width of a split-conformal interval: quantile of the absolute residuals, each group of equal weight.

    Parameters
    ----------
    residuals
        Held-out prediction minus truth, spots × targets.
    groups
        Group (donor) of each spot; a group with many spots counts as much as one with few.
    level
        Wanted share of truths inside, for instance 0.9.

    Returns
    -------
    One half width per target.

    Raises
    ------
    ValueError
        ``level`` is no share, or a residual is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> h2e.metrics.residual_quantile(np.arange(-50.0, 50.0), ["A"] * 100, level=0.8)
    array([40.])
    """
    residuals = matrix(residuals, "residuals")
    if not 0 < level < 1:
        msg = f"level={level} is no share; pass a number between 0 and 1, such as 0.9."
        raise ValueError(msg)
    return half_widths(residuals, labels(groups, len(residuals), "groups").astype(str), level=level)


def cross_coverage(
    prediction: ArrayLike, truth: ArrayLike, groups: ArrayLike, *, levels: Sequence[float] = (0.8, 0.9)
) -> pd.DataFrame:
    """Coverage of split-conformal intervals in each group, with widths from the *other* groups only.

    The worst group is the one to quote: a new donor may be like it. Below ten groups nothing is guaranteed.

    Parameters
    ----------
    prediction
        Held-out predictions, spots × targets; finite. A DataFrame names the targets.
    truth
        Measured values of the same spots and targets.
    groups
        Group (donor) of each spot.
    levels
        Wanted shares inside.

    Returns
    -------
    A tidy DataFrame: ``group``, ``target``, ``level``, ``coverage``, ``half_width``.

    Raises
    ------
    ValueError
        ``level`` is no share, or there is only one group.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> rng = np.random.default_rng(0)
    >>> noise = np.concatenate([rng.normal(size=500), 3 * rng.normal(size=500)])  # B is harder than A
    >>> groups = np.repeat(["A", "B"], 500)
    >>> table = h2e.metrics.cross_coverage(noise, np.zeros(1000), groups, levels=[0.8])
    >>> table.groupby("group")["coverage"].mean().round(1)
    group
    A    1.0
    B    0.4
    Name: coverage, dtype: float64
    """
    check_order(truth, {"groups": groups})
    prediction, truth, names = align(prediction, truth)
    groups = labels(groups, len(truth), "groups")
    if len(set(groups)) < 2:
        msg = f"widths come from the other groups, and there is only {groups[0]!r}; pass at least 2 groups."
        raise ValueError(msg)
    residuals = prediction - truth
    parts = []
    for group in sorted(set(groups)):
        own = groups == group
        for level in levels:
            width = residual_quantile(residuals[~own], groups[~own], level=level)
            inside = (np.abs(residuals[own]) <= width).mean(axis=0)
            columns = {"group": group, "target": names, "level": level, "coverage": inside, "half_width": width}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
