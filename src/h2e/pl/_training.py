"""Look at how an ensemble was trained, and at how well each target is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.fold_models import ALL
from h2e._warnings import refuse, refuse_if
from h2e.pl._canvas import make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD = "method"
"""Column that :func:`h2e.tl.evaluate` adds to the scores."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe and Ito's, with gray for their yellow and black: the colour-blind can tell them apart, on black, too."""

DASHES = ("-", "--", ":", "-.")


def history(ensemble: Ensemble, *, ax: Axes | None = None) -> Axes:
    """Plot the training loss of each model over the epochs.

    A model whose loss does not fall like the others' has seen something else than they have, or has not learned at all.
    Training losses say nothing about other slides: see :func:`target_scores`.

    Parameters
    ----------
    ensemble
        What :func:`h2e.tl.fit` returned, with a learner that is trained in epochs.
    ax
        Axes to draw on; ``None`` makes a figure.

    Returns
    -------
    The Axes, with a line per model: its colour says which group was left out, its dashes which learner it is.

    Raises
    ------
    ValueError
        No learner of the ensemble is trained in epochs.

    Examples
    --------
    >>> import dataclasses
    >>> import h2e
    >>> import pandas as pd
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> ensemble = h2e.tl.fit(sdata, learners="mean", group_key="donor", progress=False)
    >>> losses = {
    ...     "learner": "multiscale",
    ...     "held_out": ["A", "A", "B", "B"],
    ...     "epoch": [1, 2, 1, 2],
    ...     "loss": [1.0, 0.8, 0.9, 0.6],
    ... }
    >>> ensemble = dataclasses.replace(ensemble, history=pd.DataFrame(losses))  # as learners="multiscale" leaves it
    >>> [line.get_label() for line in h2e.pl.history(ensemble).lines]
    ['without A', 'without B']
    """
    from matplotlib import rcParams
    from matplotlib.ticker import MaxNLocator

    table = ensemble.history
    refuse_if(not len(table), f"{ensemble!r} has no history: none of its learners is trained in epochs.")
    (axis,) = make_axes(ax, [[0]], "losses", figsize=(5.5, 3.6))
    left_out, learners = sorted(table["held_out"].unique()), list(table["learner"].unique())
    for (learner, group), rows in table.groupby(["learner", "held_out"], sort=True, observed=True):
        name = "all groups" if group == ALL else f"without {group}"
        label = name if len(learners) == 1 else f"{learner}, {name}"
        colour = rcParams["text.color"] if group == ALL else _colours(len(left_out))[left_out.index(group)]
        dashes = DASHES[learners.index(learner) % len(DASHES)]
        axis.plot(rows["epoch"], rows["loss"], color=colour, linestyle=dashes, label=label)
    axis.set(xlabel="epoch", ylabel="training loss")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", ncols=1 + (len(axis.lines) > 12))
    return axis


def target_scores(
    scores: pd.DataFrame,
    *,
    metric: str = "pearson",
    methods: str | Sequence[str] | None = None,
    n_targets: int = 30,
    ax: Axes | None = None,
) -> Axes:
    """Plot how well each target is predicted in each group that was left out, with the baselines beside.

    Parameters
    ----------
    scores
        Table of :func:`h2e.tl.evaluate`, or of :func:`h2e.metrics.score`.
    metric
        Which of its metrics.
    methods
        Which of its methods, such as ``["ensemble", "baseline: coordinates"]``; ``None`` takes the ensemble and the
        baselines, or all methods where there is no ensemble.
    n_targets
        How many targets are drawn, at most: of more, as many of the best as of the worst, with a gap between.
    ax
        Axes to draw on; ``None`` makes a figure.

    Returns
    -------
    The Axes: a row per target, the best predicted by the first method at the top, and in it a line for each method. A
    small dot is the mean over the slides of a group, the large one the mean over groups, the thin line their range. A
    large dot is hollow where only one group of several was scored: the target was not chosen without the others.

    Raises
    ------
    KeyError
        The table has no such metric or method, or lacks a column.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> genes = ["TOY01", "TOY02", "TOY03"]
    >>> scores = h2e.tl.evaluate(sdata, targets=genes, learners="texture", group_key="donor", progress=False)
    >>> ax = h2e.pl.target_scores(scores)
    >>> sorted(label.get_text() for label in ax.get_yticklabels())
    ['TOY01', 'TOY02', 'TOY03']
    """
    of_metric = _of_metric(scores, metric)
    by_group = of_metric.groupby([METHOD, "target", "group"], sort=False, observed=True)["value"].mean().reset_index()
    of_target = by_group.groupby([METHOD, "target"], sort=False, observed=True)["value"]
    of_target = of_target.agg(["mean", "min", "max", "size"])
    known = sorted(by_group[METHOD].unique(), key=lambda name: (name.startswith("baseline"), name != "ensemble"))
    if methods is None:
        main = [name for name in known if name == "ensemble" or name.startswith("baseline")]
        methods = main if "ensemble" in known else known
    methods = [methods] if isinstance(methods, str) else list(methods)
    if not methods or not set(methods) <= set(known):
        msg = f"methods {sorted(set(methods) - set(known)) or methods} are not in these scores; they have {known}."
        raise KeyError(msg)
    targets = of_target["mean"][methods[0]].sort_values(ascending=False, kind="stable").index.tolist()
    targets += [target for target in by_group["target"].unique() if target not in targets]
    best, worst = -(-n_targets // 2), len(targets) - n_targets // 2
    if best < worst:
        targets[best:worst] = [f"… {worst - best} more …"]
    height = 1.3 + 0.18 * len(methods) + len(targets) * max(0.2, 0.045 * len(methods))
    (axis,) = make_axes(ax, [[0]], "targets", figsize=(5.5, height))
    offsets = 0.7 * ((np.arange(len(methods)) + 0.5) / len(methods) - 0.5)
    place = {target: i for i, target in enumerate(targets)}
    for method, offset, colour in zip(methods, offsets, _colours(len(methods)), strict=True):
        rows, drawn = by_group[by_group[METHOD] == method], of_target.loc[method]
        # Groups first: each may have its own targets.
        overall = rows.groupby("group", observed=True)["value"].mean().mean()
        rows, drawn = rows[rows["target"].isin(targets)], drawn[drawn.index.isin(targets)]
        y = drawn.index.map(place) + offset
        axis.hlines(y, drawn["min"], drawn["max"], color=colour, linewidth=0.7, alpha=0.6)
        at = rows["target"].map(place) + offset
        axis.scatter(rows["value"], at, s=5, alpha=0.6, zorder=2, color=colour, linewidths=0)
        alone = (drawn["size"] == 1) & (by_group["group"].nunique() > 1)
        fill = [axis.get_facecolor() if one else colour for one in alone]
        axis.scatter(drawn["mean"], y, s=20, zorder=3, edgecolors=colour, facecolors=fill)
        axis.scatter([], [], s=20, color=colour, label=f"{method} ({overall:.2f})")
    _decorate(axis, targets, metric)
    return axis


def _decorate(axis: Axes, targets: list, metric: str) -> None:
    """Name the targets and the methods; mark where nothing is predicted."""
    axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(targets)), targets, fontsize="small")
    for row in range(1, len(targets), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="0.5", alpha=0.1, linewidth=0, zorder=-1)
    axis.set(ylim=(len(targets) - 0.5, -0.5), xlabel=f"{metric} over the spots of a left-out slide")
    axis.spines[["top", "right"]].set_visible(False)
    title = "mean over groups and all targets; hollow: one group only"
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "alignment": "left", "title": title}
    axis.legend(frameon=False, fontsize="small", title_fontsize="small", borderaxespad=0.2, **place)


def _of_metric(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that have a value."""
    needed = {"group", "target", "metric", "value"}
    if not needed <= set(scores):
        refuse(f"scores lack the columns {sorted(needed - set(scores))}; pass the table of h2e.tl.evaluate.", KeyError)
    rows = scores[(scores["metric"] == metric) & scores["value"].notna()]
    if not len(rows):
        msg = f"metric {metric!r} has no value in these scores; they have {scores['metric'].unique().tolist()}."
        raise KeyError(msg)
    return rows if METHOD in rows else rows.assign(**{METHOD: "prediction"})


def _colours(n: int) -> list:
    """As many colours as are told apart, then shades."""
    from matplotlib import colormaps

    return list(COLOURS[:n]) if n <= len(COLOURS) else list(colormaps["viridis"](np.linspace(0, 0.95, n)))
