"""Targets that are chosen: the genes that vary most in space."""

from __future__ import annotations

import logging
import re
import warnings
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from h2e import _keys
from h2e._lattice import lattice
from h2e._notes import check_free, note
from h2e._regions import labels_of
from h2e.pp._expression import Matrix, expression, positions_of, slide_labels
from h2e.pp._symbols import HOUSEKEEPING, symbols_of
from h2e.pp._target_values import refuse_duplicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

log = logging.getLogger(__name__)


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

    A gene is a candidate where every group (donor) has it in at least
    ``min_frac`` of its spots. Candidates are ordered by Moran's I of their
    log-normalized expression, computed within each slide (by squidpy), averaged
    over the slides of a group and then over groups, so that neither a donor with
    many sections nor a slide with many spots decides.

    Choose on training groups only: targets chosen with the slides that the score
    comes from make every score too good.

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
        How they were chosen, and on which groups.

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
    check_free(adata, "var", key_added, overwrite=overwrite)
    slides = slide_labels(adata, library_key)
    donors = slides if group_key is None else labels_of(adata, group_key)
    rows = _rows_of(donors, groups)
    genes = choose_targets(
        expression(adata[rows], layer=layer, log_normalized=log_normalized),
        positions_of(adata, slides)[rows],
        genes=list(adata.var_names),
        slides=slides[rows],
        groups=donors[rows],
        n_targets=n_targets,
        min_frac=min_frac,
        exclude=exclude,
        symbols=symbols_of(adata),
    )
    adata = adata.copy() if copy else adata
    adata.var[key_added] = adata.var_names.isin(genes)
    chosen_on = sorted(set(donors[rows].tolist()))
    params = {"n_targets": int(n_targets), "groups": chosen_on, "min_frac": float(min_frac), "exclude": exclude or ""}
    note(adata, _keys.PARAMS, key_added, {"function": "select_targets"} | params)
    log.info("wrote var[%r]: %d targets, chosen on %s", key_added, len(genes), chosen_on)
    return adata if copy else None


def choose_targets(
    x_log: Matrix,
    xy: np.ndarray,
    *,
    genes: Sequence[str],
    slides: Sequence[str],
    groups: Sequence[str],
    n_targets: int = 35,
    min_frac: float = 0.1,
    exclude: str | None = HOUSEKEEPING,
    symbols: Sequence[str] | None = None,
) -> list[str]:
    """The ``n_targets`` most spatially variable genes, best first; sees the rows that it is given and nothing else.

    ``symbols`` are what ``exclude`` is matched with, by default the names.
    """
    if not isinstance(n_targets, Integral) or n_targets < 1:
        msg = f"n_targets is {n_targets!r}; it must be a positive whole number."
        raise ValueError(msg)
    if not len(genes):
        msg = "the table has no genes to choose targets from. It may be a grid of spots, or come from slides without a gene in common (spatialdata.concatenate keeps the genes that all tables have; are some named by symbols and some by Ensembl identifiers?)."
        raise ValueError(msg)
    names = np.asarray(genes, dtype=str)
    refuse_duplicates(names, "genes")
    slides, groups = np.asarray(slides), np.asarray(groups)
    candidate = np.ones(len(names), dtype=bool)
    for group in np.unique(groups):
        detected = np.asarray((x_log[groups == group] > 0).mean(axis=0)).ravel()
        candidate &= (detected >= min_frac) & (detected > 0)
    if exclude is not None:
        known_as = names if symbols is None else symbols
        candidate &= [re.search(exclude, name, re.IGNORECASE) is None for name in known_as]
    if candidate.sum() < n_targets:
        msg = (
            f"n_targets={n_targets} genes were asked for, {candidate.sum()} of {len(names)} are detected in at least "
            f"{min_frac:.0%} of the spots of each of the groups {np.unique(groups).tolist()}; "
            "lower n_targets, or name the genes (targets=), which h2e.pp.select_targets can choose with a lower min_frac."
        )
        raise ValueError(msg)
    names, x_log = names[candidate], x_log[:, np.flatnonzero(candidate)]
    score = np.mean(_scores_by_group(x_log, xy, slides, groups), axis=0)
    best = np.lexsort((names, -score))  # ties in the order of names, whatever the order of the table
    return names[best[:n_targets]].tolist()


def morans_i(x: Matrix, xy: np.ndarray) -> np.ndarray | None:
    """Moran's I of each column over the spots of one slide (0 where it is constant); ``None`` without neighbours.

    Neighbours are the spots within 1.55 pitches: the six around a spot of a hexagonal lattice, the eight around one
    of a square lattice, whatever the order of the spots (the nearest k would be drawn by lot where distances tie).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # squidpy 1.8 warns about its own docstrings at import
        import squidpy as sq
        from squidpy.gr.neighbors import RadiusBuilder
    from anndata import AnnData

    if len(np.unique(xy, axis=0)) < 3:
        return None
    pitch, _ = lattice(xy)
    neighbours, _ = RadiusBuilder(radius=1.55 * pitch).build(np.asarray(xy, dtype=np.float64))
    if neighbours.nnz == 0:
        return None
    x = sparse.csc_matrix(x, dtype=np.float64)
    varies = (x.max(axis=0) != x.min(axis=0)).toarray().ravel()  # squidpy would warn of constants, and return NaN
    result = np.zeros(x.shape[1])
    if varies.any():
        slide = AnnData(x[:, np.flatnonzero(varies)], obsp={"spatial_connectivities": neighbours})
        frame = sq.gr.spatial_autocorr(slide, mode="moran", n_perms=None, corr_method=None, copy=True)
        result[varies] = frame["I"].reindex(slide.var_names).to_numpy()
    return result


def _scores_by_group(x: Matrix, xy: np.ndarray, slides: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Moran's I of each gene, averaged over the slides of each group."""
    scores = []
    for group in np.unique(groups):
        of_group = [
            np.flatnonzero((groups == group) & (slides == slide)) for slide in np.unique(slides[groups == group])
        ]
        by_slide = [score for rows in of_group if (score := morans_i(x[rows], xy[rows])) is not None]
        if not by_slide:
            msg = f"group {str(group)!r} has no slide with neighbouring spots, so nothing can vary in space; leave it out."
            raise ValueError(msg)
        scores.append(np.mean(by_slide, axis=0))
    return scores


def _rows_of(labels: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    """Rows of the groups that are asked for."""
    if groups is None:
        return np.arange(len(labels))
    asked = {groups} if isinstance(groups, str) else {str(group) for group in groups}
    missing = sorted(asked - set(labels.tolist()))
    if missing or not asked:
        msg = f"groups {missing or '[]'} cannot be chosen on; the table has {np.unique(labels).tolist()}."
        raise KeyError(msg)
    return np.flatnonzero(np.isin(labels, sorted(asked)))
