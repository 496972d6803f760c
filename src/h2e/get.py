"""Get what was stored in the shape that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e import _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

__all__ = ["predictions", "report"]


def predictions(adata: AnnData, *, key: str = _keys.PREDICTION, drop_missing: bool = True) -> AnnData:
    """Predictions as a table of their own, with the targets as variables, for scanpy and squidpy.

    Parameters
    ----------
    adata
        Table that :func:`h2e.tl.predict` wrote to.
    key
        Which predictions: ``"h2e"``, ``"h2e_loo"`` for the held-out ones, ``"h2e_std"`` for their spread.
    drop_missing
        Leave out the spots without a prediction.

    Returns
    -------
    A new table: ``X`` the predictions, ``float32``, spots × targets; ``obs``, the positions in ``obsm["spatial"]`` and
    ``uns["spatial"]`` (if there) of ``adata``.

    Raises
    ------
    KeyError
        There are no predictions under ``key``.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> ensemble = h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> h2e.tl.predict(sdata, ensemble, progress=False)
    >>> h2e.get.predictions(sdata["table"], key="h2e_loo").shape
    (230, 4)
    """
    from anndata import AnnData

    frame = adata.obsm.get(key)
    if not isinstance(frame, pd.DataFrame):
        there = [name for name, value in adata.obsm.items() if isinstance(value, pd.DataFrame)]
        msg = f"{key!r} is no frame of predictions in adata.obsm; it has {there}. Write some with h2e.tl.predict."
        raise KeyError(msg)
    keep = frame.notna().all(axis=1).to_numpy() if drop_missing else np.full(len(frame), fill_value=True)
    table = AnnData(frame.to_numpy(np.float32)[keep], obs=adata.obs[keep].copy(), var=pd.DataFrame(index=frame.columns))
    for slot, name in (("obsm", "spatial"), ("uns", "spatial")):
        if name in getattr(adata, slot):
            value = getattr(adata, slot)[name]
            getattr(table, slot)[name] = value[keep] if slot == "obsm" else value
    return table


def report(data: AnnData | SpatialData, *, table_key: str = _keys.TABLE) -> pd.DataFrame:
    """What :func:`h2e.pp.normalize` found and did, a row per slide.

    Parameters
    ----------
    data
        Slides that it prepared, or their table.
    table_key
        Table of the slides; slides without one have their report in ``sdata.attrs``.

    Returns
    -------
    A new table: µm per pixel; tissue in mm² and as a share of the image; spots, those without tissue (invalid) and
    those kept; ``shift``, how far in spot spacings the spots were from where they fit the tissue best, whether they
    were ``moved``, and why (``placement``); the stain vectors before normalization.

    Raises
    ------
    KeyError
        There is no report.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize(sdata)
    >>> h2e.get.report(sdata)["shift"].round(1).to_dict()
    {'toy_A1': 0.2, 'toy_A2': 0.8, 'toy_B1': 0.1, 'toy_C1': 0.1}
    """
    tables = getattr(data, "tables", None)
    if tables is None:
        places = [data.uns]
    else:
        places = [tables[table_key].uns] if table_key in tables else []
        places.append(data.attrs)
    for place in places:
        found = place.get(_keys.PREDICTION, {}).get(_keys.REPORT)
        if isinstance(found, pd.DataFrame):
            return found.copy()
        if found is not None:
            numbers = dict.fromkeys(("um_per_px", "tissue_mm2", "shift"), float)  # JSON has null where they are NaN
            return pd.DataFrame(found).set_index("slide").astype(numbers)
    msg = "there is no report on these slides. Make one with h2e.pp.normalize."
    raise KeyError(msg)
