"""Predictions as frames of a table, with what is stored beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import check_free

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

Frames = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By key of ``obsm``, rows of the table and their values, (n,) and (n, targets)."""


def check_predictions_free(table: AnnData, key: str, *, overwrite: bool) -> None:
    """Refuse to replace what h2e did not write, and keys that would be taken for what stands beside predictions."""
    beside = [key_of(key) for key_of in _keys.BESIDE]
    if _keys.base_of(key) != key:
        msg = f"key_added={key!r} ends like the keys that are stored beside predictions, such as {beside[:2]}; pass another name."
        raise ValueError(msg)
    about = table.uns.get(key, {})
    ours = isinstance(about, Mapping) and "training_slides" in about
    if key in table.uns and not ours and key != _keys.PREDICTION:
        msg = f"table.uns[{key!r}] is there, and h2e.tl.predict did not write it; pass another key_added."
        raise ValueError(msg)
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
