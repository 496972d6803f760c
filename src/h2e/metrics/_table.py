"""Scores of the predictions that are stored in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike

from h2e._sdata import expression, predictions, table
from h2e._sdata import keys as _keys
from h2e._sdata.targets import AS_IN_OBS, are_in_obs, counts_of, measured
from h2e._warnings import log

from ._score import score


def score_adata(
    adata: AnnData,
    *,
    key: str = _keys.PREDICTION,
    layer: str | None = None,
    obsm: str | None = None,
    log_normalized: bool = False,
    library_key: str | None = None,
    group_key: str | None = None,
    baseline: ArrayLike | None = None,
    metrics: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score stored predictions against the expression, or the proportions, of the same table.

    In-sample predictions of spots that the ensemble was trained on are refused: the honest ones are held out, under
    ``key="h2e_loo"``. Spots without a prediction (no tissue) are left out, with a log line.

    Parameters
    ----------
    adata
        A table that ``h2e.tl.predict`` has written to, with measured values for the targets.
    key
        Predictions in ``adata.obsm``.
    layer
        Layer with the expression; ``None`` takes ``adata.X``. Counts are log-normalized over all genes.
    obsm
        Measured values in ``adata.obsm`` instead, for instance cell-type proportions; spots without a value of each
        target are left out, with a log line. Those of an ensemble of columns of ``obs`` are read there.
    log_normalized
        Whether the expression is log-normalized already.
    library_key
        Column of ``adata.obs`` with the slide of each spot; default: the table's region.
    group_key
        Column with the donor; default: each slide is a group of its own.
    baseline
        Mean of the training slides per target, for ``skill`` and ``spot_rho``; a Series is matched by name.
    metrics
        As in :func:`score`; ``adata.obsm["spatial"]`` serves ``moran_gap``, counts those that need them.

    Returns
    -------
    The tidy DataFrame of :func:`score`.

    Raises
    ------
    KeyError
        The predictions, a target, a layer or a column is not there.
    ValueError
        The ensemble was trained on these spots, a gene is there twice, or as :func:`score`.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd
    >>> import h2e.metrics
    >>> truth = pd.DataFrame({"ERBB2": [0.0, 1.0, 2.0], "CD74": [3.0, 1.0, 1.5]}, index=["a", "b", "c"])
    >>> adata = ad.AnnData(truth, obsm={"h2e": truth[["CD74"]] / 2})
    >>> h2e.metrics.score_adata(adata, log_normalized=True, metrics="pearson")
      group slide target   metric  value  n_spots
    0   all   all   CD74  pearson    1.0        3
    """
    prediction, rows = predictions.predictions_to_score(adata, key)
    targets = list(prediction.columns)
    # Without a record the names tell whether they are genes or columns of obs.
    unit = adata.uns.get(_keys.base_of(key), {}).get("unit", "")
    obs = unit == AS_IN_OBS if unit and obsm is None else None
    truth = measured(adata, targets, obsm=obsm, obs=obs, layer=layer, log_normalized=log_normalized, allow_missing=True)
    if (gap := rows & truth.isna().any(axis=1).to_numpy()).any():
        log.warning("%d of %d spots have no measured value of some target and are left out", gap.sum(), rows.sum())
        rows &= ~gap
    genes = obsm is None and not (are_in_obs(adata, targets) if obs is None else obs)
    counts = counts_of(adata, targets, layer=layer, log_normalized=log_normalized) if genes else None
    of_targets, totals = (None, None) if counts is None else (values[rows] for values in counts)
    slides = expression.slide_labels(adata, library_key)[rows]
    groups = None if group_key is None else table.labels_of(adata, group_key)[rows]
    xy = expression.stored_positions(adata)[rows] if "spatial" in adata.obsm else None
    beside: dict[str, Any] = {"baseline": baseline, "counts": of_targets, "totals": totals, "xy": xy}
    return score(prediction[rows], truth[rows], slides=slides, groups=groups, metrics=metrics, **beside)
