"""What a map of predictions shows: what was predicted at the spots and whether it was held out, what was measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from h2e._learners.folds import QUARTER, quarters_of
from h2e._sdata.predictions import HELD_OUT, IN_SAMPLE, SPREAD, Predicted
from h2e._slide.slide import Slide
from h2e._warnings import log, refuse, refuse_if
from h2e.metrics import pearson

NO_SPREAD = "held-out predictions come from one model and have none. Show a slide that the ensemble was not trained on."

FAINTEST = 0.1
"""Opacity of the spot on whose value the models agree least."""


def choose(names: str | Sequence[str] | None, known: Sequence[str], default: Sequence[str], what: str) -> list[str]:
    """Names, by default some, all of which must be known."""
    names = list(default) if names is None else [names] if isinstance(names, str) else list(dict.fromkeys(names))
    missing = [name for name in names if name not in known]
    if missing or not names:
        close = [match for name in missing for match in difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)]
        more = f" and {len(known) - 10} more" if len(known) > 10 else ""
        hint = f" Did you mean {close}?" if close else ""
        msg = f"{what} {missing or names} {'are' if missing else 'is empty,'} not there; there are "
        refuse(msg + f"{', '.join(map(repr, known[:10]))}{more}.{hint}", KeyError)
    return names


def refuse_columns(predicted: Predicted, targets: str | Sequence[str] | None) -> None:
    """Say how a column of ``obs`` is drawn, which is no target."""
    for name in [targets] if isinstance(targets, str) else targets or ():
        if name not in predicted.values and name in predicted.table.obs:
            msg = f"{name!r} is a column of obs, not a target of obsm[{predicted.key!r}]; draw it with squidpy: sq.pl."
            msg += f"spatial_scatter(h2e.get.predictions(sdata, drop_missing=False), color={name!r}, library_key=…)."
            raise KeyError(msg)


class Map(NamedTuple):
    """One map: values on the spots of a slide."""

    slide: Slide
    title: str
    values: np.ndarray  # (n,), NaN where there is none
    alpha: np.ndarray | None = None  # (n,) opacity
    seam: tuple[float, ...] = ()  # x and y where the quarters meet that were predicted without each other


def maps_of(predicted: Predicted, slide: Slide, truth: pd.DataFrame, *, alpha_by_std: bool) -> list[list[Map]]:
    """Of a slide, for each target the map of what was predicted and, if known, that of what was measured."""
    kind = predicted.kind[slide.rows]
    if not np.isfinite(predicted.values.to_numpy(float)[slide.rows]).any():
        msg = f"obsm[{predicted.key!r}] has no value on slide {slide.name!r}"
        raise ValueError(msg + (f"; {NO_SPREAD}" if predicted.title else ": run h2e.tl.predict on it."))
    groups = []
    for target in predicted.values:
        shown = predicted.values[target].to_numpy(float)[slide.rows]
        about = predicted.title or _about(shown, kind, predicted.left_out)
        beside = truth[target].to_numpy(float)[slide.rows] if target in truth else None
        if beside is not None and not predicted.title:
            about += _agreement(shown, beside, kind, slide.xy if predicted.left_out == QUARTER else None)
        seam = seam_of(slide.xy[np.isfinite(shown)]) if predicted.left_out == QUARTER and HELD_OUT in kind else ()
        alpha = _opacity(predicted.std(target)[slide.rows], slide.name) if alpha_by_std else None
        name = f"{target} (skill < 0)" if target in predicted.weak else target
        groups.append([Map(slide, f"{name}\n{about}", shown, alpha, seam)])
        if beside is not None:
            groups[-1].append(Map(slide, f"{target}\nmeasured", beside))
    return groups


def truth_of(
    predicted: Predicted, targets: list[str], *, measured: bool | None, layer: str | None, log_normalized: bool
) -> pd.DataFrame:
    """What was measured of the targets, as far as it is wanted and the table has it."""
    if measured is False or (measured is None and predicted.title == SPREAD):
        return pd.DataFrame(index=predicted.values.index)
    try:
        truth = predicted.measured(targets, layer=layer, log_normalized=log_normalized)
    except ValueError as error:
        # These are not counts: a new slide may have anything in X.
        if measured:
            raise
        log.warning("predictions are shown alone: %s", error)
        return pd.DataFrame(index=predicted.values.index)
    missing = [target for target in targets if target not in truth]
    if measured and missing:
        msg = f"measured=True, but the table does not hold {missing}; pass measured=None to show them where it does."
        raise KeyError(msg)
    return truth


def _about(shown: np.ndarray, kind: np.ndarray, left_out: str | None) -> str:
    """What the predictions of a slide are."""
    kinds = set(kind[np.isfinite(shown)])
    if IN_SAMPLE in kinds:
        return "predicted, in-sample"
    # Each map is of one slide.
    group = f" {left_out.removesuffix(' of the slide')}" if left_out else ""
    return f"predicted, held-out{group}" if HELD_OUT in kinds else "predicted"


def _agreement(shown: np.ndarray, beside: np.ndarray, kind: np.ndarray, xy: np.ndarray | None) -> str:
    """Correlation over the spots that the models had not seen, for the title; with places its range over quarters."""
    both = np.isfinite(shown) & np.isfinite(beside)
    if both.sum() < 3 or (kind[both] == IN_SAMPLE).any():
        return ""
    quarter = np.zeros(both.sum()) if xy is None else quarters_of(xy[both])
    parts = (quarter == name for name in np.unique(quarter))
    each = [pearson(shown[both][part], beside[both][part])[0] for part in parts if part.sum() > 2]
    each = sorted({f"{r + 0:.2f}": r for r in np.round(each, 2) if np.isfinite(r)}.items(), key=lambda text: text[1])
    ends = " to ".join(dict.fromkeys([each[0][0], each[-1][0]])) if each else ""
    return f", r = {ends}".replace("-", "−") if each else ""


def seam_of(xy: np.ndarray) -> tuple[float, ...]:
    """Where the quarters of a slide meet: between the medians and the spots beyond.

    Examples
    --------
    >>> seam_of(np.array([[0, 0], [9, 0], [0, 9], [9, 9]]))
    (4.5, 4.5)
    """
    lower, upper = (np.where(side, xy, np.nan) for side in (xy <= np.median(xy, axis=0), xy > np.median(xy, axis=0)))
    return tuple(((np.nanmax(lower, axis=0) + np.nanmin(upper, axis=0)) / 2).tolist())


def _opacity(std: np.ndarray, slide: str) -> np.ndarray:
    """Opacity of the spots of a slide: the more the models differ, the lower; 1 where that is not known."""
    known = np.isfinite(std)
    refuse_if(not known.any(), f"alpha_by_std: no spot of slide {slide!r} has a standard deviation; {NO_SPREAD}")
    alpha = np.ones(len(std))
    rank = np.argsort(np.argsort(std[known])) / max(known.sum() - 1, 1)
    alpha[known] = 1 - (1 - FAINTEST) * rank
    return alpha


def rows_of(slides: list[list[list[Map]]], ncols: int) -> list[int]:
    """How many maps stand in each row: a slide begins a row unless several fit, and what belongs together stays so."""
    refuse_if(ncols < 1, f"ncols must be at least 1, got {ncols}.")
    rows: list[int] = []
    room = 0
    for groups in slides:
        together = max(map(len, groups))
        groups_in_row = max(ncols // together, 1)
        if room < sum(map(len, groups)):
            room = 0
            n_rows = -(-len(groups) // groups_in_row)
            # Rows of about the same length.
            groups_in_row = groups_in_row if n_rows == 1 else -(-len(groups) // n_rows)
        for group in groups:
            if room < len(group):
                rows.append(0)
                room = groups_in_row * together
            rows[-1] += len(group)
            room -= len(group)
    return rows
