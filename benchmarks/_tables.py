"""Means of scores, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from h2e.metrics import summarize


def means_of(scores: pd.DataFrame, donors: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Average scores over the groups (``group`` "all") and within each group, or donor of the slides."""
    of_all, of_each = (summarize(scores, by=by, donors=donors) for by in (None, "group"))
    return pd.concat([of_all.assign(group="all"), of_each], ignore_index=True)


def wide(means: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    """Give each metric a column: the mean over targets, of the skill the median, which one target cannot ruin."""
    value = means["median"].where(means["metric"] == "skill", means["mean"])
    return means.assign(value=value).pivot_table(index=rows, columns="metric", values="value", sort=False)


def number(value: float, digits: int = 3) -> str:
    """Write a number with a true minus sign, and nothing where nothing was measured."""
    return "" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def triple(*values: float) -> str:
    """Write several numbers into a cell that does not break between them."""
    return "\u00a0/\u00a0".join(number(value) or "–" for value in values)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"
