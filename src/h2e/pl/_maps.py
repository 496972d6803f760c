"""What a map of predictions shows: what was predicted at the spots and whether it was held out, what was measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from h2e._learners.folds import QUARTER, quarters_of
from h2e._sdata.predictions import HELD_OUT, IN_SAMPLE, Predicted
from h2e._slide.slide import Slide
from h2e.metrics import pearson

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
        msg += f"{', '.join(map(repr, known[:10]))}{more}.{hint}"
        raise KeyError(msg)
    return names


@dataclass(frozen=True, eq=False)
class Map:
    """One map: values on the spots of a slide."""

    slide: Slide
    title: str
    values: np.ndarray  # (n,), NaN where there is none
    alpha: np.ndarray | None = None  # (n,) opacity
    unit: str = ""


def maps_of(predicted: Predicted, slide: Slide, truth: pd.DataFrame, *, alpha_by_std: bool) -> list[list[Map]]:
    """Of a slide, for each target the map of what was predicted and, if known, that of what was measured."""
    kind = predicted.kind[slide.rows]
    # For the colour bar: the name of the frame.
    unit = predicted.unit.removeprefix("as in obsm['").removesuffix("']")
    groups = []
    for target in predicted.values:
        shown = predicted.values[target].to_numpy(float)[slide.rows]
        about = predicted.title or _about(shown, kind, predicted.left_out)
        beside = truth[target].to_numpy(float)[slide.rows] if target in truth else None
        if beside is not None and not predicted.title:
            about += _agreement(shown, beside, kind, slide.xy if predicted.left_out == QUARTER else None)
        alpha = _opacity(predicted.std(target)[slide.rows], slide.name) if alpha_by_std else None
        name = f"{target} (skill < 0)" if target in predicted.weak else target
        groups.append([Map(slide, f"{name}\n{about}", shown, alpha, unit)])
        if beside is not None:
            groups[-1].append(Map(slide, f"{target}\nmeasured", beside, unit=unit))
    return groups


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


def _opacity(std: np.ndarray, slide: str) -> np.ndarray:
    """Opacity of the spots of a slide: the more the models differ, the lower; 1 where that is not known."""
    known = np.isfinite(std)
    if not known.any():
        msg = f"alpha_by_std: no spot of slide {slide!r} has a standard deviation; held-out predictions come from one "
        msg += "model and have none. Show a slide that the ensemble was not trained on."
        raise ValueError(msg)
    alpha = np.ones(len(std))
    rank = np.argsort(np.argsort(std[known])) / max(known.sum() - 1, 1)
    alpha[known] = 1 - (1 - FAINTEST) * rank
    return alpha


def rows_of(slides: list[list[list[Map]]], ncols: int) -> list[int]:
    """How many maps stand in each row: a slide begins a row unless several fit, and what belongs together stays so."""
    if ncols < 1:
        msg = f"ncols must be at least 1, got {ncols}."
        raise ValueError(msg)
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
