"""Do intervals contain the truth as often as they claim, on groups that did not set their width?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from h2e._statistics import half_widths
from h2e._warnings import refuse_if

from ._checks import align, check_between, check_order, check_pair, labels, matrix


def coverage(lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Share of spots whose measured value lies inside its interval, per target.

    Parameters
    ----------
    lower, upper
        Ends of the intervals, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One share per target; ends count as inside.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or ``lower`` is above ``upper``.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    array([0.5])
    """
    lower, upper, truth = check_pair(lower, truth)[0], *check_pair(upper, truth)
    if (lower > upper).any():
        msg = f"lower must be at most upper, got {(lower > upper).sum()} where lower is above upper; pass (lower, upper, truth)."
        raise ValueError(msg)
    return ((lower <= truth) & (truth <= upper)).mean(axis=0)


def residual_quantile(residuals: ArrayLike, groups: ArrayLike, *, level: float) -> np.ndarray:
    """Half width of an interval for a new group, from the residuals of groups that were left out.

    Each group has the width that holds ``level`` of its own residuals. Of these widths the ``level`` quantile is taken,
    with the (k + 1) / k of split-conformal prediction for k groups: if groups are alike and have many spots, at least
    ``level`` of the values are inside in at least ``level`` of new groups. With fewer than ``level / (1 - level)`` groups,
    4 for 0.8 and 9 for 0.9, it is the width of the widest, and promises nothing. Values within groups are the two layers
    of Dunn, Wasserman and Ramdas (2023), https://doi.org/10.1080/01621459.2022.2060112.

    Parameters
    ----------
    residuals
        Held-out prediction minus truth, spots × targets.
    groups
        Group (donor) of each spot.
    level
        Wanted share of truths inside, for instance 0.9.

    Returns
    -------
    One half width per target.

    Raises
    ------
    ValueError
        ``level`` is not between 0 and 1, or a residual is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> h2e.metrics.residual_quantile(np.arange(-50.0, 50.0), ["A"] * 100, level=0.8)
    array([40.])
    """
    check_between(level, "level", high=1)
    check_order(residuals, {"groups": groups})
    residuals = matrix(residuals, "residuals")
    return half_widths(residuals, labels(groups, len(residuals), "groups").astype(str), level=level)


def cross_coverage(
    prediction: ArrayLike, truth: ArrayLike, groups: ArrayLike, *, levels: Sequence[float] = (0.8, 0.9)
) -> pd.DataFrame:
    """Coverage of the intervals of :func:`residual_quantile` in each group, with widths from the *other* groups only.

    The worst group is the one to quote: a new donor may be like it.

    Parameters
    ----------
    prediction, truth
        Held-out predictions and measured values, spots × targets; finite. A DataFrame names the targets.
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
        A level is not between 0 and 1, or there is only one group.

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
    refuse_if(not len(levels), f"levels must be numbers between 0 and 1, such as (0.8, 0.9), got {levels}.")
    check_order(truth, {"groups": groups})
    prediction, truth, names = align(prediction, truth)
    groups = labels(groups, len(truth), "groups")
    refuse_if(
        len(set(groups)) < 2, f"groups must be at least 2 groups: widths come from others, got only {groups[0]!r}."
    )
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
