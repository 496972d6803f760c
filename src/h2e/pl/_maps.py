"""What a map of predictions shows: what was predicted at the spots and whether it was held out, what was measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import settings_of
from h2e._sdata.targets import frame_of, measured, targets_there
from h2e.metrics import pearson

if TYPE_CHECKING:
    from anndata import AnnData

    from h2e.pl._places import Place

NEW, HELD_OUT, IN_SAMPLE = 0, 1, 2
"""Of a prediction: the models never saw the spot; those that predicted it did not; they did."""

FAINTEST = 0.1
"""Opacity of the spot on whose value the models agree least."""


ABOUT = {_keys.std: "spread", _keys.lower: "lower end of the interval", _keys.upper: "upper end of the interval"}
"""What stands beside predictions, by its key, and its title."""


def predicted(table: AnnData, key: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Predictions, with held-out ones where there are no others, and of which kind each row is."""
    frame = frame_of(table, key, otherwise=" Write predictions with h2e.tl.predict, or pass key.")
    if key != _keys.base_of(key):
        return frame, np.full(len(frame), HELD_OUT if key == _keys.held_out(_keys.base_of(key)) else NEW)
    held_out = table.obsm.get(_keys.held_out(key))
    if not isinstance(held_out, pd.DataFrame) or not set(frame.columns) <= set(held_out.columns):
        return frame, np.full(len(frame), NEW)
    held_out = held_out[frame.columns]
    there, other = frame.notna().any(axis=1).to_numpy(), held_out.notna().any(axis=1).to_numpy()
    kind = np.where(other, np.where(there, IN_SAMPLE, HELD_OUT), NEW)
    values = np.where((kind == HELD_OUT)[:, None], held_out.to_numpy(float), frame.to_numpy(float))
    return pd.DataFrame(values, index=frame.index, columns=frame.columns), kind


def choose(asked: str | Sequence[str] | None, there: Sequence[str], default: Sequence[str], what: str) -> list[str]:
    """Names that were asked for, if all of them are there."""
    names = list(default) if asked is None else [asked] if isinstance(asked, str) else list(dict.fromkeys(asked))
    missing = [name for name in names if name not in there]
    if missing or not names:
        close = [match for name in missing for match in difflib.get_close_matches(str(name), there, n=3, cutoff=0.5)]
        some = f"{', '.join(map(repr, there[:10]))}{f' and {len(there) - 10} more' if len(there) > 10 else ''}"
        hint = f" Did you mean {close}?" if close else ""
        msg = f"{what} {missing or names} {'are' if missing else 'is empty,'} not there; there are {some}.{hint}"
        raise KeyError(msg)
    return names


def measured_values(
    table: AnnData, key: str, targets: Sequence[str], *, layer: str | None, log_normalized: bool
) -> pd.DataFrame:
    """What was measured of the targets that were: spots × (some of the) targets, in the unit of the predictions."""
    base = _keys.base_of(key)
    about, learned = table.uns.get(base, {}), settings_of(table, base)
    unit = str(about.get("unit", ""))
    # As it was learned.
    if layer is None and learned.get("layer") in table.layers:
        layer, log_normalized = learned["layer"], log_normalized or bool(learned.get("log_normalized"))
    for name, frame in table.obsm.items():
        if isinstance(frame, pd.DataFrame) and unit == f"as in obsm[{name!r}]":
            shown = targets_there(table, targets, obsm=name)
            return measured(table, shown, obsm=name, allow_missing=True)
    shown = targets_there(table, targets)
    if not shown or unit.startswith("as in obsm"):
        return pd.DataFrame(index=table.obs_names)
    return measured(table, shown, layer=layer, log_normalized=log_normalized)


@dataclass(frozen=True, eq=False)
class Map:
    """One map: values on the spots of a slide."""

    place: Place
    title: str
    values: np.ndarray  # (n,), NaN where there is none
    alpha: np.ndarray | None = None  # (n,) opacity
    unit: str = ""


def maps_of(
    table: AnnData,
    place: Place,
    key: str,
    values: pd.DataFrame,
    kind: np.ndarray,
    truth: pd.DataFrame,
    *,
    alpha_by_std: bool,
) -> list[list[Map]]:
    """Of a slide, for each target the map of what was predicted and, if known, that of what was measured."""
    base = _keys.base_of(key)
    left_out, unit = settings_of(table, base).get("left_out"), str(table.uns.get(base, {}).get("unit", ""))
    unit = unit.removeprefix("as in obsm['").removesuffix("']")  # for the colour bar: the name of the frame
    groups = []
    for target in values:
        shown = values[target].to_numpy(float)[place.rows]
        title = next((title for of, title in ABOUT.items() if key == of(_keys.base_of(key))), None)
        about = title or _about(shown, kind[place.rows], left_out)
        beside = truth[target].to_numpy(float)[place.rows] if target in truth else None
        if beside is not None and not title:
            about += _agreement(shown, beside, kind[place.rows])
        alpha = _opacity(table, key, place, target) if alpha_by_std else None
        groups.append([Map(place, f"{target}\n{about}", shown, alpha, unit)])
        if beside is not None:
            groups[-1].append(Map(place, f"{target}\nmeasured", beside, unit=unit))
    return groups


def _about(shown: np.ndarray, kind: np.ndarray, left_out: str | None) -> str:
    """What the predictions of a slide are."""
    kinds = set(kind[np.isfinite(shown)])
    if IN_SAMPLE in kinds:
        return "predicted, in-sample"
    group = f" {left_out.removesuffix(' of the slide')}" if left_out else ""  # each map is of one slide
    return f"predicted, held-out{group}" if HELD_OUT in kinds else "predicted"


def _agreement(shown: np.ndarray, beside: np.ndarray, kind: np.ndarray) -> str:
    """Correlation over the spots that the models had not seen, for the title."""
    both = np.isfinite(shown) & np.isfinite(beside)
    if both.sum() < 3 or (kind[both] == IN_SAMPLE).any():
        return ""
    r = float(pearson(shown[both], beside[both])[0])
    return f", r = {r:.2f}".replace("-", "−") if np.isfinite(r) else ""


def _opacity(table: AnnData, key: str, place: Place, target: str) -> np.ndarray:
    """Opacity of the spots of a slide, the less the more the models differ; 1 where that is not known."""
    spread = frame_of(table, _keys.std(_keys.base_of(key)))[target].to_numpy(float)[place.rows]
    known = np.isfinite(spread)
    if not known.any():
        msg = (
            f"alpha_by_std: obsm[{_keys.std(_keys.base_of(key))!r}] has no value on slide {place.name!r}; held-out predictions "
            "come from one model and have no spread. Show a slide that the ensemble was not trained on."
        )
        raise ValueError(msg)
    alpha = np.ones(len(spread))
    rank = np.argsort(np.argsort(spread[known])) / max(known.sum() - 1, 1)
    alpha[known] = 1 - (1 - FAINTEST) * rank
    return alpha
