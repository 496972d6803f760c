"""The usual preparation in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e import _keys
from h2e._slides import find_slides, source_images
from h2e.pp._expression import check_values, values_of
from h2e.pp._mask_element import find_mask
from h2e.pp._ranks import rank_transform
from h2e.pp._spots import tissue_fraction
from h2e.pp._stain_reference import StainReference
from h2e.pp._stains import normalize_stains
from h2e.pp._tissue import detect_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


def normalize(
    sdata: SpatialData,
    *,
    reference: StainReference | None = None,
    method: str = "macenko",
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Prepare all slides: tissue masks, one pooled stain reference, normalized images, ranked expression.

    The same as :func:`detect_tissue` where there is no mask yet, :func:`normalize_stains`, :func:`tissue_fraction` and
    :func:`rank_transform` one after the other. Images are normalized lazily: no pixel of them is computed here. Slides
    without spots are prepared too.

    Parameters
    ----------
    sdata
        Slides, one table over all that have spots.
    reference
        Stains to bring the images to; ``None`` pools those of all slides.
    method
        ``"macenko"``, ``"vahadane"`` or ``"reinhard"``.
    layer
        Layer to rank; ``None`` ranks ``table.X``.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    table_key
        Table over all slides.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    um_per_px
        Size of a pixel in µm, or of each slide's, where neither ``table.obs["um_per_px"]`` nor the lattice tells it.
    overwrite
        Replace keys that something other than h2e wrote.

    Returns
    -------
    ``None``. Sets the following fields:

    ``sdata.labels["{image}_tissue"]``
        Tissue mask.
    ``sdata.images["{image}_normalized"]``
        Normalized image, lazy.
    ``table.obs["tissue_fraction"]``, ``table.layers["rank"]``
        Share of tissue in each spot's own subtile, and ranks within each slide and gene.
    ``table.uns["h2e"]["report"]`` : ``DataFrame``
        A row per slide: tissue area in mm², spots, spots without tissue, stain vectors before.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize(sdata)
    >>> sdata["table"].uns["h2e"]["report"]["spots"].tolist()
    [60, 61, 59, 58]
    """
    keys = source_images(sdata, table_key=table_key, image_key=image_key)
    where = {"image_key": image_key, "table_key": table_key, "um_per_px": um_per_px}
    slides = []
    if table_key in sdata.tables:  # everything that can be wrong is found before anything is written
        slides = find_slides(sdata, library_key=library_key, **where)
        check_values(*values_of(sdata[table_key], layer))
    for key in keys:
        if find_mask(sdata, key) is None:
            detect_tissue(sdata, **{**where, "image_key": key}, overwrite=overwrite)
    normalize_stains(sdata, reference, **where, method=method if reference is None else None, overwrite=overwrite)
    if not slides:
        return
    table = sdata[table_key]
    tissue_fraction(sdata, image_key=image_key, table_key=table_key, library_key=library_key, overwrite=overwrite)
    rank_transform(table, layer=layer, library_key=library_key, overwrite=overwrite)
    rows = []
    for slide in slides:
        mask, scale = find_mask(sdata, slide.image.key)
        fraction = table.obs[_keys.TISSUE_FRACTION].to_numpy()[slide.rows]
        made = sdata.attrs["h2e"]["stains"][_keys.normalized(slide.image.key)]["slide"] or {}
        rows.append(
            {
                "slide": slide.name,
                "tissue_mm2": float(mask.sum() * (scale * slide.um_per_px / 1000) ** 2),
                "spots": len(slide),
                "spots_without_tissue": int((fraction == 0).sum()),
                "um_per_px": slide.um_per_px,
                "hematoxylin": _vector(made, 0),
                "eosin": _vector(made, 1),
            }
        )
    report = pd.DataFrame(rows).set_index("slide")
    about = table.uns.setdefault(_keys.PREDICTION, {})
    about["report"] = report
    log.info("prepared %d slides:\n%s", len(report), report.to_string())


def _vector(stains: Mapping[str, object], which: int) -> str:
    """A stain vector as text."""
    vectors = stains.get("stains")
    return "" if vectors is None else " ".join(f"{v:.2f}" for v in np.asarray(vectors)[which])
