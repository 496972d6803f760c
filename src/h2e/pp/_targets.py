"""Targets that are chosen: the genes that vary most in space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import expression, gene_names, genes_of, positions_of, slide_column, slide_labels
from h2e._sdata.provenance import check_adata, check_free, is_ours, set_provenance
from h2e._sdata.selection import HOUSEKEEPING, choose_targets, symbols_of
from h2e._sdata.table import labels_of
from h2e._warnings import log, refuse


def select_targets(
    adata: AnnData,
    *,
    n_targets: int = 35,
    library_key: str | None = None,
    group_key: str | None = None,
    groups: Sequence[str] | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
    min_frac: float = 0.1,
    exclude: str | None = HOUSEKEEPING,
    key_added: str = _keys.TARGET,
    copy: bool = False,
    overwrite: bool = False,
) -> AnnData | None:
    """Choose the genes to predict: those that vary most in space.

    Features that ``var["feature_types"]`` calls something else, such as antibodies, are neither chosen nor counted.

    A gene is a candidate where every group (donor) has it in at least
    ``min_frac`` of its spots. Candidates are ordered by Moran's I of their
    log-normalized expression, over the next spots of each slide, averaged
    over the slides of a group and then over groups, so that neither a donor with
    many sections nor a slide with many spots decides.

    Choose on training groups only: targets chosen with the slides that the score
    comes from make every score too good, and :func:`h2e.tl.evaluate` warns of them.

    Parameters
    ----------
    adata
        Table of spots × genes. Positions come from ``adata.obsm["spatial"]``,
        else from the columns ``array_row`` and ``array_col`` of ``adata.obs``.
    n_targets
        How many.
    library_key
        Column of ``adata.obs`` that says which slide a spot belongs to. ``None``
        takes the region key of a table that is part of a SpatialData; without
        one all spots are one slide.
    group_key
        Column of ``adata.obs`` with the group, usually the donor. ``None``: each
        slide is its own group.
    groups
        Groups to choose on; the spots of all others are not looked at. ``None``
        takes all.
    layer
        Layer with counts. ``None`` takes ``adata.X``.
    log_normalized
        The values are log-normalized already.
    min_frac
        Share of the spots of each group in which a target must be detected.
    exclude
        Regular expression (case is ignored) of genes that are never chosen; by
        default mitochondrial and ribosomal ones, whose pattern is that of the
        cells' quality and size. ``None`` excludes none.
    key_added
        Column of ``adata.var`` to write.
    copy
        Return a copy instead of writing to ``adata``.
    overwrite
        Replace a column that h2e did not write.

    Returns
    -------
    ``None``, or the copy if ``copy=True``. Sets the following fields:

    ``adata.var[key_added]`` : ``bool``
        Whether the gene is a target.
    ``adata.uns["h2e"]["params"][key_added]`` : ``dict``
        How they were chosen, and on which groups and slides.

    Raises
    ------
    KeyError
        A layer, a column, a group or the positions are not there.
    ValueError
        Too few genes are detected often enough, values are no counts, or the column was not written by h2e.

    Examples
    --------
    >>> import h2e
    >>> table = h2e.datasets.toy_cohort()["table"]
    >>> h2e.pp.select_targets(table, n_targets=10)
    >>> int(table.var["h2e_target"].sum())
    10
    """
    check_adata(adata)
    check_free(adata, "var", key_added, ours=is_ours(adata, "var", key_added), overwrite=overwrite)
    slides = slide_labels(adata, library_key)
    donors = slides if group_key is None else labels_of(adata, group_key)
    rows = _rows_of(donors, groups)
    x, xy = expression(adata[rows], layer=layer, log_normalized=log_normalized), positions_of(adata, slides)[rows]
    about: dict[str, Any] = {"genes": list(gene_names(adata)), "symbols": symbols_of(adata)}
    about |= {"n_targets": n_targets, "min_frac": min_frac, "exclude": exclude}
    genes = choose_targets(x, xy, slides=slides[rows], groups=donors[rows], **about)
    adata = adata.copy() if copy else adata
    adata.var[key_added] = adata.var_names.isin(genes) & np.isin(np.arange(adata.n_vars), genes_of(adata))
    chosen_on = sorted(set(donors[rows].tolist()))
    params = {"n_targets": int(n_targets), "groups": chosen_on, "min_frac": float(min_frac), "exclude": exclude or ""}
    # What the choice saw, so that evaluate can tell.
    params |= {"library_key": slide_column(adata, library_key) or "", "slides": sorted(set(slides[rows].tolist()))}
    set_provenance(adata, _keys.PARAMS, key_added, {"function": "select_targets"} | params)
    log.info("wrote var[%r]: %d targets, chosen on %s", key_added, len(genes), chosen_on)
    return adata if copy else None


def _rows_of(labels: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    """Rows of the groups that are asked for."""
    if groups is None:
        return np.arange(len(labels))
    names = {groups} if isinstance(groups, str) else {str(group) for group in groups}
    missing = sorted(names - set(labels.tolist()))
    if missing or not names:
        refuse(f"groups {missing or '[]'} cannot be chosen on; the table has {np.unique(labels).tolist()}.", KeyError)
    return np.flatnonzero(np.isin(labels, sorted(names)))
