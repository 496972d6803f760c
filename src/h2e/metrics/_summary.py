"""From one value per slide and target to a few numbers: slides, then donors, then targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd
from pandas.core.groupby import DataFrameGroupBy

from h2e._warnings import log, refuse_if

from ._score import COLUMNS

BETTER_IF_LOW = ("rmse", "mae", "nrmse_sd", "nrmse_range", "js", "moran_gap", "pearson_no_biology")
"""Metrics whose highest value is the worst."""

ROWS = {None: [], "target": ["target"], "group": ["group"], "slide": ["group", "slide"]}
"""Columns of the scores that a summary has a row for."""


def summarize(
    scores: pd.DataFrame,
    *,
    by: Literal["target", "group", "slide"] | None = None,
    donors: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Average scores over the slides of a donor, over donors, and over targets.

    A slide on which a target's truth is constant has no value for it, whatever the prediction. Such pairs are
    left out and counted in ``n_excluded``; nothing else is ever left out, since a prediction that says nothing
    scores 0. Without raw counts there are no scores at equal depth, of which a log line tells.

    Parameters
    ----------
    scores
        Table of :func:`score`. Columns that are added to it, such as ``model`` or ``split``, are kept apart.
    by
        ``None`` for the overall numbers, else one row per ``"target"``, ``"group"`` (donor) or ``"slide"``.
    donors
        The donor of each slide, in place of the groups of ``scores``: where single slides were left out, donors weigh
        the same with it, as they do where donors were left out.

    Returns
    -------
    A DataFrame with a row per metric (and added column, and ``by``):

    ``mean``, ``median``
        Over targets, within each donor, then the mean over donors. Each donor weighs the same, also where targets were
        chosen anew without it and it has other targets than the rest. With ``by="target"`` the mean only.
    ``worst``, ``best``, ``worst_group``
        The range of the donors' means, and the donor that the worst is of, which is the one to quote.
    ``n_groups``, ``n_slides``, ``n_targets``
        What the numbers stand on.
    ``n_excluded``
        Pairs of slide and target without a value.

    Raises
    ------
    ValueError
        ``by`` is unknown, ``scores`` lack columns, or have several values for a slide and target, or ``donors`` lack a
        slide.

    Examples
    --------
    >>> import pandas as pd
    >>> import h2e.metrics
    >>> scores = pd.DataFrame(
    ...     [["A", "A1", "g", 0.2], ["A", "A2", "g", 0.4], ["B", "B1", "g", 0.5], ["B", "B1", "h", float("nan")]],
    ...     columns=["group", "slide", "target", "value"],
    ... ).assign(metric="spearman", n_spots=100)
    >>> h2e.metrics.summarize(scores)[["mean", "worst", "best", "worst_group", "n_excluded"]]
       mean  worst  best worst_group  n_excluded
    0   0.4    0.3   0.5           A           1
    >>> h2e.metrics.summarize(scores, by="group")[["metric", "group", "mean", "n_excluded"]]
         metric group  mean  n_excluded
    0  spearman     A   0.3           0
    1  spearman     B   0.5           1
    """
    refuse_if(by not in ROWS, f"by must be one of {list(ROWS)}, got by={by!r}.")
    keys = check_scores(scores)
    if donors is not None:
        of_slides = scores["slide"].map(dict(donors))
        missing = sorted(set(scores["slide"][of_slides.isna()]))
        refuse_if(missing, f"donors must have the donor of every slide, got none for {missing}.")
        scores = scores.assign(group=of_slides)
    if "pearson" in (metrics := set(scores["metric"])) and "pearson_equal_depth" not in metrics:
        log.warning("no pearson_equal_depth beside pearson: without raw counts nothing tells what is due to depth")
    rows = [*keys, *ROWS[by]]
    of_donors = _grouped(scores, [*keys, "group", "target"])["value"].mean().reset_index()
    result = _of_rows(scores, of_donors, keys, by)
    scored = _grouped(scores[scores["value"].notna()], rows)
    for column in ("group", "slide", "target"):
        if column not in rows:
            result[f"n_{column}s"] = scored[column].nunique().reindex(result.index, fill_value=0)
    values = _grouped(scores, rows)["value"]
    result["n_excluded"] = values.size() - values.count()
    return result.reset_index()


def _of_rows(scores: pd.DataFrame, of_donors: pd.DataFrame, keys: list[str], by: str | None) -> pd.DataFrame:
    """Mean and median of each row of the summary, and the range of the donors where a row is of several."""
    if by in ("group", "slide"):
        return _grouped(scores if by == "slide" else of_donors, [*keys, *ROWS[by]])["value"].agg(["mean", "median"])
    of_each = of_donors.rename(columns={"value": "mean"})
    if by is None:
        # Donors first: where targets were chosen anew without each donor, each donor has its own.
        of_each = _grouped(of_donors, [*keys, "group"])["value"].agg(["mean", "median"]).reset_index()
    groups = _grouped(of_each, [*keys, *ROWS[by]])
    result = groups[["mean", "median"] if by is None else ["mean"]].mean()
    lowest, highest = groups["mean"].min(), groups["mean"].max()
    down = result.index.get_level_values("metric").isin(BETTER_IF_LOW)
    result["worst"], result["best"] = lowest.mask(down, highest), highest.mask(down, lowest)
    signed = of_each.assign(rank=of_each["mean"].where(~of_each["metric"].isin(BETTER_IF_LOW), -of_each["mean"]))
    worst = signed.dropna(subset="rank").sort_values("rank", kind="stable")
    first = _grouped(worst, [*keys, *ROWS[by]])["group"].first()
    result["worst_group"] = first.reindex(result.index)
    return result


def check_scores(scores: pd.DataFrame) -> list[str]:
    """Columns that keep scores apart: those added to the table of :func:`score`, and the metric."""
    missing = [column for column in COLUMNS if column not in scores]
    refuse_if(missing, f"scores must be a table of h2e.metrics.score; they lack the columns {missing}.")
    keys = [*(column for column in scores.columns if column not in COLUMNS), "metric"]
    more = int(scores.duplicated([*keys, "group", "slide", "target"]).sum())
    refuse_if(more, f"scores must have one value per slide and target, got {more} rows too many; select one model.")
    return keys


def donor_means(scores: pd.DataFrame) -> pd.Series:
    """Mean of each donor over its targets, each of which may be its own; NaN where none has a value."""
    of_targets = scores.groupby(["group", "target"], observed=True)["value"].mean()
    return of_targets.groupby("group", observed=True).mean()


def _grouped(scores: pd.DataFrame, keys: list[str]) -> DataFrameGroupBy:
    """Group rows by keys, in the order of the table; a missing key is a key, an absent category is not."""
    return scores.groupby(keys, sort=False, dropna=False, observed=True)
