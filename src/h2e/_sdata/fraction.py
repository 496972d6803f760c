"""The share of tissue under the spots, as a column of the table."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import check_free, is_ours, set_provenance
from h2e._slide.slide import Slide

log = logging.getLogger(__name__)


def write_fraction(
    table: AnnData, slides: Sequence[Slide], key: str, *, overwrite: bool, tissue_mask_key: str | None = None
) -> None:
    """Write the share of tissue in the subtile of each spot; the slides know their tissue."""
    check_free(table, "obs", key, ours=is_ours(table, "obs", key), overwrite=overwrite)
    fraction = np.full(table.n_obs, np.nan, np.float32)
    for slide in slides:
        fraction[slide.rows] = slide.tissue_fraction()
        invalid = int((fraction[slide.rows] == 0).sum())
        log.info("slide %r: %d of %d spots are invalid, without tissue", slide.name, invalid, len(slide))
    table.obs[key] = fraction
    params = {"function": "tissue_fraction", "tissue_mask_key": tissue_mask_key or "{image}_tissue"}
    set_provenance(table, _keys.PARAMS, key, params)
    log.info("wrote obs[%r]", key)
