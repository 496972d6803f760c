"""The usual preparation in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from h2e._sdata import expression, masks, normalized, placement, rollback, scale
from h2e._sdata import keys as _keys
from h2e._sdata.report import report_of, store_report, unranked_slides
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import check_sdata, get_table
from h2e._slide.quality import measure_slides, warn_of_colours
from h2e._slide.slide import by_image, by_region
from h2e._stains.reference import Method, StainReference
from h2e._stains.slides import as_reference, fit_reference
from h2e._warnings import announce, log
from h2e.pp._ranks import rank_transform

if TYPE_CHECKING:
    from spatialdata import SpatialData


def normalize(
    sdata: SpatialData,
    *,
    reference: StainReference | None = None,
    method: Method | None = None,
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    realign: bool = False,
    overwrite: bool = False,
    progress: bool = True,
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
        µm per pixel of the image at its finest level, or a mapping from slide or image to it, where nothing else tells
        it; refused where it contradicts what does.
    realign
        Whether spots that lie beside the tissue are put back onto it. Otherwise the report says how far off they are.
    overwrite
        Replace keys that something other than h2e wrote.
    progress
        Say first what is done and about how long it takes; ``False`` says this in the log.

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
        A row per slide, whose columns :func:`h2e.get.report` describes. Without a table it is in
        ``sdata.attrs["h2e"]``.

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
    check_sdata(sdata)
    table = get_table(sdata, table_key) if len(sdata.tables) else None
    keys = _keys.Keys(table_key, image_key, library_key=library_key, um_per_px=um_per_px)
    with rollback.all_or_nothing(sdata, table_key):
        # What can be wrong is found before anything is computed.
        if table is not None:
            if expression.has_expression(table, layer):
                expression.check_values(*expression.gene_values(table, layer))
            if realign:
                rollback.remove_corrections(sdata, table)
        slides = open_slides(sdata, keys, bare=True)
        what = f"normalize: tissue, stains and spots of {len(slides)} slide{'s' * (len(slides) > 1)}"
        announce(what, 2 * len(slides), progress=progress)
        scale.require_size([slide for slide in slides if slide.region is not None])
        if not realign:
            require_inside(slides)
        targets = normalized.check_normalized_free(sdata, list(by_image(slides)), None, overwrite=overwrite)
        slides = masks.with_stored_tissue(sdata, slides, overwrite=overwrite)
        if realign and table is not None:
            placements, slides = placement.move_spots(sdata, table, slides)
            require_inside(slides)
        else:
            regions = by_region(slides).items()
            placements = {key: placement.placement_of(sdata, table, key, slide) for key, slide in regions}
        placement.warn_of_misplaced(placements)
        quality = measure_slides(slides)
        warn_of_colours(quality)
        images = by_image(slides)
        pooled = reference is None
        reference = fit_reference(slides, method=method or "macenko") if pooled else as_reference(reference, method)
        normalized.write_normalized(sdata, images, targets, reference, pooled=pooled)
        if table is not None:
            spotted = [slide for slide in slides if slide.region is not None]
            masks.write_fraction(table, spotted, _keys.TISSUE_FRACTION, overwrite=overwrite)
            # A grid of spots has no genes to rank.
            if expression.has_expression(table, layer):
                rank_transform(table, layer=layer, library_key=library_key, overwrite=overwrite)
        unranked = [] if table is None or not table.n_vars else unranked_slides(table, spotted, layer)
        report = report_of(sdata, slides, placements, quality, unranked)
        store_report(sdata, report, table_key)
    log.info("prepared %d slides:\n%s", len(report), report.to_string())
