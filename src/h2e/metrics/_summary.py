"""From one value per slide and target to a few numbers: slides, then donors, then targets."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pandas.core.groupby import DataFrameGroupBy

from ._score import COLUMNS

ROWS = {None: [], "target": ["target"], "group": ["group"], "slide": ["group", "slide"]}
"""Columns of the scores that a summary has a row for."""


def summarize(scores: pd.DataFrame, *, by: Literal["target", "group", "slide"] | None = None) -> pd.DataFrame:
    """Average scores over the slides of a donor, over donors, and over targets.

    A slide on which a target's truth is constant has no value for it, whatever the prediction. Such pairs are
    left out and counted in ``n_excluded``; nothing else is ever left out, since a prediction that says nothing
    scores 0.

    Parameters
    ----------
    scores
        Table of :func:`score`. Columns that are added to it, such as ``model`` or ``split``, are kept apart.
    by
        ``None`` for the overall numbers, else one row per ``"target"``, ``"group"`` (donor) or ``"slide"``.

    Returns
    -------
    A DataFrame with a row per metric (and added column, and ``by``):

    ``mean``, ``median``
        Over targets; with ``by="target"`` the mean only, over donors. Each donor weighs the same in the mean, also
        where targets were chosen anew without it and it has other targets than the rest; the median is over the
        targets' means over donors.
    ``n_groups``, ``n_slides``, ``n_targets``
        What the numbers stand on.
    ``n_excluded``
        Pairs of slide and target without a value.

    Raises
    ------
    ValueError
        ``by`` is unknown, or ``scores`` lack columns, or have several values for a slide and target.

    Examples
    --------
    >>> import pandas as pd
    >>> import h2e.metrics
    >>> scores = pd.DataFrame(
    ...     [["A", "A1", "g", 0.2], ["A", "A2", "g", 0.4], ["B", "B1", "g", 0.5], ["B", "B1", "h", float("nan")]],
    ...     columns=["group", "slide", "target", "value"],
    ... ).assign(metric="pearson", n_spots=100)
    >>> h2e.metrics.summarize(scores)
        metric  mean  median  n_groups  n_slides  n_targets  n_excluded
    0  pearson   0.4     0.4         2         3          1           1
    >>> h2e.metrics.summarize(scores, by="group")[["metric", "group", "mean", "n_excluded"]]
        metric group  mean  n_excluded
    0  pearson     A   0.3           0
    1  pearson     B   0.5           1
    """
    if by not in ROWS:
        msg = f"by must be one of {list(ROWS)}, got by={by!r}."
        raise ValueError(msg)
    keys = check_scores(scores)
    rows = [*keys, *ROWS[by]]
    of_donors = _mean(scores, [*keys, "group", "target"])
    of_targets = _mean(of_donors, [*keys, "target"])
    averaged = scores if by == "slide" else of_donors if by == "group" else of_targets
    result = _grouped(averaged, rows)["value"].agg(["mean", "median"])
    if by is None:
        # Donors first: where targets were chosen anew without each donor, each donor has its own.
        result["mean"] = _grouped(_mean(of_donors, [*keys, "group"]), keys)["value"].mean()
    scored = _grouped(scores[scores["value"].notna()], rows)
    for column in ("group", "slide", "target"):
        if column not in rows:
            result[f"n_{column}s"] = scored[column].nunique().reindex(result.index, fill_value=0)
    values = _grouped(scores, rows)["value"]
    result["n_excluded"] = values.size() - values.count()
    return result.drop(columns="median" if by == "target" else []).reset_index()


def check_scores(scores: pd.DataFrame) -> list[str]:
    """Columns that keep scores apart: those added to the table of :func:`score`, and the metric."""
    missing = [column for column in COLUMNS if column not in scores]
    if missing:
        msg = f"scores must be a table of h2e.metrics.score; they lack the columns {missing}."
        raise ValueError(msg)
    keys = [*(column for column in scores.columns if column not in COLUMNS), "metric"]
    n_repeated = int(scores.duplicated([*keys, "group", "slide", "target"]).sum())
    if n_repeated:
        msg = f"scores must have one value per slide and target, got {n_repeated} rows that repeat one; "
        msg += "select one model, or add a column that tells them apart."
        raise ValueError(msg)
    return keys


def donor_means(scores: pd.DataFrame) -> pd.Series:
    """Mean of each donor over its targets, each of which may be its own; NaN where none has a value."""
    of_targets = scores.groupby(["group", "target"], observed=True)["value"].mean()
    return of_targets.groupby("group", observed=True).mean()


def _grouped(scores: pd.DataFrame, keys: list[str]) -> DataFrameGroupBy:
    """Group rows by keys, in the order of the table; a missing key is a key, an absent category is not."""
    return scores.groupby(keys, sort=False, dropna=False, observed=True)


def _mean(scores: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Average the values that have the same keys."""
    return _grouped(scores, keys)["value"].mean().reset_index()
