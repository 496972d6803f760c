"""From one value per slide and target to a few numbers: slides, then donors, then targets."""

from __future__ import annotations

import pandas as pd

from ._score import COLUMNS

LEVELS = (None, "target", "group", "slide")
"""What a summary may be by."""


def summarize(scores: pd.DataFrame, *, by: str | None = None) -> pd.DataFrame:
    """Average scores over the slides of a donor, over donors, and over targets.

    A slide on which a target's truth is constant has no value for it, whatever the prediction. Such pairs are
    left out and counted in ``n_excluded``; nothing else is ever left out, since a prediction that says nothing
    scores 0.

    Parameters
    ----------
    scores
        Table of :func:`score`. Columns that are added to it, such as ``model`` or ``split``, are kept apart.
    by
        ``None`` for the overall numbers, ``"group"`` or ``"slide"`` for one row per donor or slide,
        ``"target"`` for one row per target.

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
        ``by`` is unknown, or ``scores`` is not what :func:`score` returned.

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
    if by not in LEVELS:
        msg = f"by={by!r} is not known; use one of {LEVELS}."
        raise ValueError(msg)
    keys = [*added_columns(scores), "metric"]
    where = {"slide": ["group", "slide"], "group": ["group"]}.get(by, [])
    per_target = _over_donors(scores, [*keys, *where], by)
    rows = [*keys, *where, *(["target"] if by == "target" else [])]
    result = per_target.groupby(rows, sort=False, dropna=False, observed=True)["value"].agg(["mean", "median"])
    if by is None:  # donors first: where targets were chosen anew without each donor, each donor has its own
        by_group = _over_donors(scores, [*keys, "group"], "group").groupby(
            [*keys, "group"], sort=False, dropna=False, observed=True
        )
        result["mean"] = by_group["value"].mean().groupby(keys, sort=False, dropna=False, observed=True).mean()
    counted = scores.assign(excluded=scores["value"].isna()).groupby(rows, sort=False, dropna=False, observed=True)
    defined = scores[scores["value"].notna()].groupby(rows, sort=False, dropna=False, observed=True)
    for column in ("group", "slide", "target"):
        if column not in rows:
            result[f"n_{column}s"] = defined[column].nunique().reindex(result.index, fill_value=0)
    result["n_excluded"] = counted["excluded"].sum()
    return result.drop(columns="median" if by == "target" else []).reset_index()


def added_columns(scores: pd.DataFrame) -> list[str]:
    """Columns beside those of :func:`score`; refuses a table that lacks one of these."""
    missing = [column for column in COLUMNS if column not in scores]
    if missing:
        msg = f"scores lack the columns {missing}; pass the table that h2e.metrics.score returned."
        raise ValueError(msg)
    return [column for column in scores.columns if column not in COLUMNS]


def donor_matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """Targets × donors: mean over the slides of a donor; NaN where the truth is constant on all of them."""
    means = scores.groupby(["target", "group"], sort=False, observed=True)["value"].mean()
    return means.unstack("group").sort_index(axis=1)


def _over_donors(scores: pd.DataFrame, keys: list[str], by: str | None) -> pd.DataFrame:
    """One value per target and row of the summary: mean over slides, then over donors."""
    table = scores
    steps = {"slide": [], "group": [["group"]]}.get(by, [["group"], []])
    for step in steps:
        level = list(dict.fromkeys([*keys, "target", *step]))
        table = table.groupby(level, sort=False, dropna=False, observed=True)["value"].mean().reset_index()
    return table
