"""How sure are we: intervals and comparisons, with the donor as the unit; and the spread within a slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from h2e._warnings import refuse

from ._checks import align, check_between, check_whole, generator, positions
from ._score import COLUMNS
from ._summary import check_scores, donor_means

MIN_DONORS = 6
"""Donors below which there is no interval and no p-value (the smallest sign-flip p-value is 2 / 2⁶ = 0.03)."""


def bootstrap_interval(
    scores: pd.DataFrame, *, level: float = 0.95, n_draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Bootstrap interval of each metric's mean over donors, from six donors on; below that, every donor.

    Donors are drawn, not spots and not slides: the next slide comes from another donor. Quantiles are widened so that
    for normal donors the interval is as wide as Student's, since a plain bootstrap of six is too narrow.

    Parameters
    ----------
    scores
        Table of :func:`score`; added columns such as ``model`` are kept apart.
    level
        Share of intervals that should contain the mean over all donors.
    n_draws
        Number of draws.
    seed
        Seed of the draws.

    Returns
    -------
    A DataFrame with a row per metric: ``mean`` (as in :func:`summarize`), ``lower``, ``upper`` (NaN below six donors),
    ``n_groups`` and ``groups``, the value of each donor as text.

    Raises
    ------
    ValueError
        ``scores`` have several values for a slide and target, or a setting makes no sense.

    Examples
    --------
    >>> import pandas as pd
    >>> import h2e.metrics
    >>> scores = pd.DataFrame({"group": list("ABC"), "slide": list("ABC"), "value": [0.1, 0.2, 0.3]})
    >>> scores = scores.assign(target="g", metric="pearson", n_spots=100)
    >>> h2e.metrics.bootstrap_interval(scores).drop(columns="metric")
       mean  lower  upper  n_groups                  groups
    0   0.2    NaN    NaN         3  A 0.10, B 0.20, C 0.30
    """
    check_between(level, "level", high=1)
    check_whole(n_draws, "n_draws")
    keys = check_scores(scores)
    rows = []
    for key, part in scores.groupby(keys, sort=False, dropna=False, observed=True):
        donors = donor_means(part).dropna()
        lower, upper = _bootstrap(donors.to_numpy(), level, n_draws, generator(seed))
        shown = ", ".join(f"{name} {value:.2f}" for name, value in donors.items())
        rows.append([*key, donors.mean(), lower, upper, len(donors), shown])
    return pd.DataFrame(rows, columns=[*keys, "mean", "lower", "upper", "n_groups", "groups"])


def block_bootstrap(
    prediction: ArrayLike,
    truth: ArrayLike,
    xy: ArrayLike,
    *,
    metric: Callable[[np.ndarray, np.ndarray], np.ndarray],
    block: float,
    level: float = 0.95,
    n_draws: int = 500,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Spread of a metric's mean over targets over redrawn square blocks of neighbouring spots of one slide.

    It says how far the number depends on which parts of this slide were scored. It is no confidence interval, and says
    nothing of another slide or donor: of simulated maps, each with a correlation of about 0.5 on the layout of a real
    slide, 62 to 90 % held the mean over all maps between the numbers of ``level=0.95``, the fewer the smoother they are.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of one slide, spots × targets; finite.
    xy
        Coordinates of the spots.
    metric
        A function of prediction and truth, such as :func:`pearson`.
    block
        Side of a block in the unit of ``xy``; several spot spacings, more than the reach of the autocorrelation.
    level
        Share of the redrawn scores between the two numbers.
    n_draws
        Number of draws, each with another origin of the blocks.
    seed
        Seed of the draws.

    Returns
    -------
    Lower and upper end, or ``None`` where most draws have fewer than six blocks or no target with a value.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> xy = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    >>> truth = np.sin(xy[:, 0] / 2)
    >>> noise = np.random.default_rng(0).normal(size=400)
    >>> lower, upper = h2e.metrics.block_bootstrap(truth + noise, truth, xy, metric=h2e.metrics.pearson, block=5)
    >>> bool(0.4 < lower < 0.58 < upper < 0.7)
    True
    """
    check_between(level, "level", high=1)
    check_whole(n_draws, "n_draws")
    check_between(block, "block", high=np.inf)
    xy = positions(xy, truth)
    prediction, truth, _ = align(prediction, truth)
    rng = generator(seed)
    draws = []
    for _ in range(n_draws):
        cell = np.floor((xy - xy.min(axis=0)) / block + rng.random(2)).astype(np.int64)
        code = np.unique(cell, axis=0, return_inverse=True)[1].ravel()
        n_blocks = int(code.max()) + 1
        if n_blocks < MIN_DONORS:
            continue
        times = np.bincount(rng.integers(n_blocks, size=n_blocks), minlength=n_blocks)
        rows = np.repeat(np.arange(len(xy)), times[code])
        values = metric(prediction[rows], truth[rows])
        if np.isfinite(values).any():
            draws.append(values[np.isfinite(values)].mean())
    if 2 * len(draws) < n_draws:
        return None
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same donors: the difference of each, their mean, and a p-value where there are enough."""

    metric: str
    groups: pd.DataFrame
    difference: float
    p: float | None

    def __str__(self) -> str:
        """Every donor, then the mean."""
        rows = self.groups[["group", "first", "second", "difference"]].itertuples(index=False, name=None)
        lines = [f"{name}: {one:.3f} - {two:.3f} = {difference:+.3f}" for name, one, two, difference in rows]
        p = f"no p-value below {MIN_DONORS} donors" if self.p is None else f"p = {self.p:.3f}"
        return "\n".join([*lines, f"{self.metric}, mean of {len(self.groups)} donors: {self.difference:+.3f} ({p})"])


def compare(first: pd.DataFrame, second: pd.DataFrame, *, metric: str = "pearson") -> Comparison:
    """Compare two methods donor by donor, on the same slides and targets.

    The p-value flips the sign of whole donors, exactly up to twelve of them; below six there is none.

    Parameters
    ----------
    first, second
        Tables of :func:`score` of either method.
    metric
        What to compare.

    Returns
    -------
    A ``Comparison`` with ``groups`` (``group``, ``first``, ``second``, ``difference``), the mean ``difference`` over
    donors, and ``p`` or ``None``; printed, it shows every donor.

    Raises
    ------
    ValueError
        The tables do not have one value for the same slides and targets.

    Examples
    --------
    >>> import pandas as pd
    >>> import h2e.metrics
    >>> scores = pd.DataFrame({"group": list("AB"), "slide": list("AB"), "value": [0.1, 0.2]})
    >>> scores = scores.assign(target="g", metric="pearson", n_spots=100)
    >>> print(h2e.metrics.compare(scores.assign(value=[0.3, 0.25]), scores))
    A: 0.300 - 0.100 = +0.200
    B: 0.250 - 0.200 = +0.050
    pearson, mean of 2 donors: +0.125 (no p-value below 6 donors)
    """
    one, two = (_values(scores, metric) for scores in (first, second))
    if not one.index.equals(two.index):
        shared = f"{len(one.index.intersection(two.index))} of {len(one)} and {len(two)} pairs of these"
        refuse(f"first and second must have values for the same slides and targets, they share {shared}.")
    columns = {"first": one, "second": two, "difference": one - two}
    means = {name: donor_means(values.to_frame("value")) for name, values in columns.items()}
    groups = pd.DataFrame(means).dropna().rename_axis("group").reset_index()
    difference = groups["difference"].to_numpy()
    p = _sign_flip(difference) if len(groups) >= MIN_DONORS else None
    return Comparison(metric=metric, groups=groups, difference=float(difference.mean()), p=p)


def _values(scores: pd.DataFrame, metric: str) -> pd.Series:
    """Values of one metric by group, slide and target, each once."""
    check_scores(scores)
    defined = scores.loc[scores["value"].notna(), COLUMNS]
    part = defined[defined["metric"] == metric]
    if part.empty:
        refuse(f"scores must have a value of metric {metric!r}, got values of {list(defined['metric'].unique())}.")
    check_scores(part)
    return part.set_index(["group", "slide", "target"])["value"].sort_index()


def _sign_flip(difference: np.ndarray) -> float:
    """Two-sided p-value of a mean: all signs up to twelve donors, 9,999 random ones beyond."""
    n = len(difference)
    if n <= 12:
        signs, extra = np.array(list(product([1.0, -1.0], repeat=n))), 0
    else:
        signs, extra = np.random.default_rng(0).choice([1.0, -1.0], (9999, n)), 1
    observed = abs(difference.sum()) - 1e-9 * np.abs(difference).sum()
    return float((extra + (np.abs(signs @ difference) >= observed).sum()) / (extra + len(signs)))


def _bootstrap(donors: np.ndarray, level: float, n_draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles of the mean of drawn donors, as wide as Student's interval for normal donors."""
    from scipy.stats import norm, t

    n = len(donors)
    if n < MIN_DONORS:
        return np.nan, np.nan
    tail = norm.cdf(t.ppf((1 - level) / 2, n - 1) * np.sqrt(n / (n - 1)))
    draws = rng.choice(donors, (n_draws, n)).mean(axis=1)
    lower, upper = np.quantile(draws, [tail, 1 - tail])
    return float(lower), float(upper)
