"""The usual preparation in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.expression import check_values, values_of
from h2e._sdata.masks import find_mask
from h2e._sdata.pairing import paired_image, source_images
from h2e._sdata.placement import is_in_place
from h2e._sdata.provenance import get_provenance
from h2e._sdata.report import report_of, store_report
from h2e._sdata.rollback import all_or_nothing
from h2e._sdata.slides import find_slides, image_sizes
from h2e._sdata.table import check_sdata, get_table, in_tissue
from h2e._slide.slide import Slide
from h2e._stains.reference import StainReference
from h2e.pp._ranks import rank_transform
from h2e.pp._realign import estimate, realign_spots
from h2e.pp._spots import tissue_fraction
from h2e.pp._stains import normalize_stains
from h2e.pp._tissue import detect_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


def normalize(
    sdata: SpatialData,
    *,
    reference: StainReference | None = None,
    method: str | None = None,
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    realign: bool = False,
    overwrite: bool = False,
) -> None:
    """Prepare all slides: tissue masks, one pooled stain reference, normalized images, ranked expression, and a report.

    The same as :func:`detect_tissue` where there is no mask yet, :func:`realign_spots` if asked for,
    :func:`normalize_stains`, :func:`tissue_fraction` and :func:`rank_transform` one after the other. Images are
    normalized lazily: only patches of them are read here. Slides without spots are prepared too. If a step fails,
    nothing is changed.

    Parameters
    ----------
    sdata
        Slides, one table over all that have spots.
    reference
        Stains to bring the images to; ``None`` pools those of all slides.
    method
        ``"macenko"``, the default, ``"vahadane"`` or ``"reinhard"``; with a reference, that of the reference.
    layer
        Layer to rank; ``None`` ranks ``table.X``.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    table_key
        Table over all slides.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    um_per_px
        Size of a pixel in µm, or a mapping from slide or image to it, where neither ``table.obs["um_per_px"]`` nor the
        lattice tells it.
    realign
        Whether spots that lie beside the tissue are put back onto it. Otherwise the report says how far off they are.
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
        A row per slide, for :func:`h2e.get.report`: µm per pixel, tissue area in mm² and as a share of the image; spots,
        those without tissue and those kept; how many spacings the spots were off, whether they were moved, and why;
        the stain vectors before. Without a table it is in ``sdata.attrs["h2e"]``.

    Raises
    ------
    KeyError
        A table, layer, image or column is not there; the message lists what is.
    ValueError
        Images cannot be paired with regions, spots lie outside of their image, expression is negative or NaN, or a
        key is taken by something that h2e did not write.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize(sdata, realign=True)
    >>> h2e.get.report(sdata)["moved"].to_dict()
    {'toy_A1': False, 'toy_A2': True, 'toy_B1': False, 'toy_C1': False}
    """
    where = {"image_key": image_key, "table_key": table_key}
    check_sdata(sdata)
    if len(sdata.tables):
        get_table(sdata, table_key)
    with all_or_nothing(sdata, table_key):
        keys = source_images(sdata, **where)
        sizes = partial(image_sizes, sdata, keys, um_per_px, **where, library_key=library_key)
        table = sdata.tables.get(table_key)
        slides: list[Slide] = []
        if table is not None:  # what can be wrong is found before anything is computed
            check_values(*values_of(table, layer))
            if realign:  # spots that lie beside their image are put back first
                _detect_missing(sdata, keys, sizes(), table_key, overwrite=overwrite)
                realign_spots(sdata, **where)
            slides = find_slides(sdata, **where, library_key=library_key, um_per_px=um_per_px)
        um = sizes()
        _detect_missing(sdata, keys, um, table_key, overwrite=overwrite)
        normalize_stains(sdata, reference, **where, method=method, um_per_px=um, overwrite=overwrite)
        fraction, placements = None, {}
        if table is not None:
            placements = {slide.region: _placement(sdata, slide.region, **where) for slide in slides}
            tissue_fraction(sdata, **where, library_key=library_key, overwrite=overwrite)
            fraction = np.where(in_tissue(table), table.obs[_keys.TISSUE_FRACTION], 0)
            if table.n_vars:  # a grid of spots has no genes to rank
                rank_transform(table, layer=layer, library_key=library_key, overwrite=overwrite)
        report = report_of(sdata, slides, um, placements, fraction)
        store_report(sdata, report, table_key)
    log.info("prepared %d slides:\n%s", len(report), report.to_string())


def _detect_missing(
    sdata: SpatialData, keys: list[str], um: Mapping[str, float | None], table_key: str, *, overwrite: bool
) -> None:
    """Find the tissue of the images that have no mask yet."""
    for key in keys:
        if find_mask(sdata, key) is None:
            detect_tissue(sdata, image_key=key, table_key=table_key, um_per_px=um.get(key), overwrite=overwrite)


def _placement(
    sdata: SpatialData, region: str, *, image_key: str | Mapping[str, str] | None, table_key: str
) -> dict[str, object]:
    """What :func:`realign_spots` did to a region, or else would do."""
    table = sdata[table_key]
    done = get_provenance(table, _keys.REALIGN).get(region)
    if done is not None and (not done["moved"] or is_in_place(sdata, region, done)):
        return done
    found = estimate(sdata, table, region, paired_image(sdata, region, image_key))
    if found["moved"]:
        found["moved"] = False
        found["reason"] = f"{found['shift']:.2f} spacings beside the tissue: not moved, realign=True was not asked for"
    return found
