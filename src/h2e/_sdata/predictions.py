"""Predictions as frames of a table, with what is stored beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import check_free, settings_of
from h2e._sdata.targets import AS_IN_OBS, frame_of, measured, targets_there
from h2e._warnings import log, refuse, refuse_if

Frames = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By key of ``obsm``, rows of the table and their values, (n,) and (n, targets)."""

NEW, HELD_OUT, IN_SAMPLE = 0, 1, 2
"""Of a prediction: the models never saw the spot; those that predicted it did not; they did."""

SPREAD = "spread"
"""Title of what is no prediction, but how much models differ in them."""

TITLES = {_keys.std: SPREAD, _keys.lower: "lower end of the interval", _keys.upper: "upper end of the interval"}
"""What is stored beside predictions, by the function that gives its key."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of a table, with held-out ones where there are no others."""

    table: AnnData
    key: str
    values: pd.DataFrame  # (spots, targets)
    kind: np.ndarray  # (spots,) NEW, HELD_OUT or IN_SAMPLE
    title: str | None  # of what is stored beside predictions

    @property
    def base(self) -> str:
        """Key of the predictions that this stands beside, or is."""
        return _keys.base_of(self.key)

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return str(self.table.uns.get(self.base, {}).get("unit", ""))

    @property
    def left_out(self) -> str | None:
        """What was left out for the held-out ones: a column of ``obs``, the slide, or its quarters."""
        return settings_of(self.table, self.base).get("left_out")

    @property
    def weak(self) -> list[str]:
        """Targets whose held-out predictions are worse than the mean."""
        return list(self.table.uns.get(self.base, {}).get(_keys.WEAK, ()))

    def std(self, target: str) -> np.ndarray:
        """Standard deviation of the predictions of a target, NaN where there is none, (spots,)."""
        return frame_of(self.table, _keys.std(self.base))[target].to_numpy(float)

    def measured(self, targets: Sequence[str], *, layer: str | None, log_normalized: bool) -> pd.DataFrame:
        """Measured values of the targets that have any, spots × targets, in the unit of the predictions."""
        table, learned = self.table, settings_of(self.table, self.base)
        # As it was learned.
        # From anndata 0.13 on X is a layer, too, with the name None.
        if layer is None and learned.get("layer") in set(table.layers) - {None}:
            layer, log_normalized = learned["layer"], log_normalized or bool(learned.get("log_normalized"))
        for name, frame in table.obsm.items():
            if isinstance(frame, pd.DataFrame) and self.unit == f"as in obsm[{name!r}]":
                shown = targets_there(table, targets, obsm=name)
                return measured(table, shown, obsm=name, allow_missing=True)
        obs = self.unit == AS_IN_OBS
        shown = [] if self.unit.startswith("as in obsm") else targets_there(table, targets, obs=obs)
        if not shown:
            return pd.DataFrame(index=table.obs_names)
        return measured(table, shown, obs=obs, layer=layer, log_normalized=log_normalized, allow_missing=True)


def read_predictions(table: AnnData, key: str) -> Predicted:
    """Predictions under a key, or what is stored beside some."""
    frame = frame_of(table, key, otherwise=" Write predictions with h2e.tl.predict, or pass key.")
    base = _keys.base_of(key)
    if key != base:
        kind = np.full(len(frame), HELD_OUT if key == _keys.held_out(base) else NEW)
        return Predicted(table, key, frame, kind, next((text for of, text in TITLES.items() if key == of(base)), None))
    held_out = table.obsm.get(_keys.held_out(key))
    if not isinstance(held_out, pd.DataFrame) or not set(frame.columns) <= set(held_out.columns):
        return Predicted(table, key, frame, np.full(len(frame), NEW), None)
    held_out = held_out[frame.columns]
    predicted, trained = frame.notna().any(axis=1).to_numpy(), held_out.notna().any(axis=1).to_numpy()
    kind = np.where(trained, np.where(predicted, IN_SAMPLE, HELD_OUT), NEW)
    values = np.where((kind == HELD_OUT)[:, None], held_out.to_numpy(float), frame.to_numpy(float))
    return Predicted(table, key, pd.DataFrame(values, index=frame.index, columns=frame.columns), kind, None)


def predictions_to_score(table: AnnData, key: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Predictions under a key and the rows that have one; in-sample ones are refused."""
    frame = frame_of(table, key, otherwise=" Run h2e.tl.predict first.")
    rows = frame.notna().any(axis=1).to_numpy()
    held_out = _keys.held_out(key)
    if held_out in table.obsm:
        trained = frame_of(table, held_out).notna().any(axis=1).to_numpy()
        if (trained & rows).any() or (trained.any() and not rows.any()):
            msg = f"the ensemble behind obsm[{key!r}] was trained on {trained.sum()} of {table.n_obs} spots; score "
            refuse(msg + f"key={held_out!r}, its held-out predictions, or a table without these spots.")
    refuse_if(not rows.any(), f"obsm[{key!r}] must have a prediction of some spots: all {len(rows)} rows are NaN.")
    if not rows.all():
        log.info("obsm[%r]: %d of %d spots have no prediction and are left out", key, (~rows).sum(), len(rows))
    return frame, rows


def check_predictions_free(table: AnnData, key: str, *, overwrite: bool) -> None:
    """Refuse to replace what h2e did not write, and keys that would be taken for what stands beside predictions."""
    beside = [key_of(key) for key_of in _keys.BESIDE]
    if _keys.base_of(key) != key:
        refuse(f"key_added={key!r} ends like the keys that are stored beside predictions, {beside[:2]}; pass another.")
    about = table.uns.get(key, {})
    ours = isinstance(about, Mapping) and "training_slides" in about
    if key in table.uns and not ours and key != _keys.PREDICTION:
        refuse(f"table.uns[{key!r}] is there, and h2e.tl.predict did not write it; pass another key_added.")
    for one in (key, *beside):
        check_free(table, "obsm", one, ours=ours, overwrite=overwrite)
    check_free(table, "obs", _keys.novelty(key), ours=ours, overwrite=overwrite)


def write_predictions(
    table: AnnData, frames: Frames, novelty: np.ndarray, key: str, targets: list[str], about: Mapping[str, Any]
) -> None:
    """Write frames over all rows of the table, NaN where there is no value, and what they were made by."""
    # Of an earlier prediction by another ensemble.
    for stale in {key_of(key) for key_of in _keys.BESIDE} - set(frames):
        table.obsm.pop(stale, None)
    for name, (rows, values) in frames.items():
        whole = np.full((table.n_obs, len(targets)), np.nan, np.float32)
        whole[rows] = values
        table.obsm[name] = pd.DataFrame(whole, index=table.obs_names, columns=targets)
        log.info("wrote obsm[%r]: %d of %d spots × %d targets", name, len(rows), *whole.shape)
    table.obs[_keys.novelty(key)] = novelty
    table.uns[key] = {**table.uns.get(key, {}), "h2e_version": version("h2e"), **about}
