"""Targets that are chosen: the genes that vary most in space."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from anndata import AnnData
from scipy import sparse

from h2e._sdata.targets import refuse_duplicates
from h2e._slide.lattice import lattice
from h2e._statistics import Matrix, morans_i

log = logging.getLogger(__name__)

HOUSEKEEPING = r"^(MT-|M?RP[LS](A|P?\d+([ABCLX]|AL|[LY]\d)?)$)"
"""Mitochondrial and ribosomal genes, of human and mouse (matched ignoring case)."""

ENSEMBL = r"ENS[A-Z]*G\d{6,}"
"""How identifiers of genes begin."""

SYMBOLS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "feature_name")
"""Columns of ``var`` that common readers and atlases keep symbols in."""


def choose_targets(
    x_log: Matrix,
    xy: np.ndarray,
    *,
    genes: Sequence[str],
    slides: Sequence[str] | np.ndarray,
    groups: Sequence[str] | np.ndarray,
    n_targets: int = 35,
    min_frac: float = 0.1,
    exclude: str | None = HOUSEKEEPING,
    symbols: Sequence[str] | np.ndarray | None = None,
) -> list[str]:
    """The ``n_targets`` most spatially variable genes, best first; sees the rows that it is given and nothing else.

    ``symbols`` are what ``exclude`` is matched with, by default the names.
    """
    if not isinstance(n_targets, Integral) or n_targets < 1:
        msg = f"n_targets must be a positive whole number, got {n_targets!r}."
        raise ValueError(msg)
    if not len(genes):
        msg = "the table has no genes to choose targets from. It may be a grid of spots, or come from slides without "
        msg += "a gene in common (spatialdata.concatenate keeps the genes that all tables have; are some named by "
        msg += "symbols and some by Ensembl identifiers?)."
        raise ValueError(msg)
    names = np.asarray(genes, dtype=str)
    refuse_duplicates(names, "genes")
    slides, groups = np.asarray(slides), np.asarray(groups)
    candidate = np.ones(len(names), dtype=bool)
    for group in np.unique(groups):
        detected = np.asarray((x_log[groups == group] > 0).mean(axis=0)).ravel()
        candidate &= (detected >= min_frac) & (detected > 0)
    if exclude is not None:
        searched = names if symbols is None else symbols
        candidate &= [re.search(exclude, name, re.IGNORECASE) is None for name in searched]
    if candidate.sum() < n_targets:
        msg = f"n_targets={n_targets} genes were asked for, {candidate.sum()} of {len(names)} are detected in at least "
        msg += f"{min_frac:.0%} of the spots of each of the groups {np.unique(groups).tolist()}; lower n_targets, or "
        msg += "name the genes (targets=), which h2e.pp.select_targets can choose with a lower min_frac."
        raise ValueError(msg)
    names, x_log = names[candidate], x_log[:, np.flatnonzero(candidate)]
    score = np.mean(_scores_by_group(x_log, xy, slides, groups), axis=0)
    # Ties in the order of names, whatever the order of the table.
    best = np.lexsort((names, -score))
    return names[best[:n_targets]].tolist()


def symbols_of(adata: AnnData) -> np.ndarray:
    """Symbols of the genes: their names or, of Ensembl identifiers, the column of ``var`` that has symbols."""
    names = adata.var_names.to_numpy(dtype=str)
    if not len(names) or np.mean([re.match(ENSEMBL, name) is not None for name in names]) < 0.5:
        return names
    for column in SYMBOLS:
        if column in adata.var:
            return adata.var[column].to_numpy(dtype=str)
    what = "genes are named by Ensembl identifiers, and var has none of the columns %s: mitochondrial and ribosomal "
    what += "genes cannot be told, and may be chosen"
    log.warning(what, list(SYMBOLS))
    return names


def neighbours_of(xy: np.ndarray) -> sparse.csr_matrix | None:
    """Which spots of one slide are neighbours, as a graph; ``None`` where none are.

    Neighbours are the spots within 1.55 pitches: the six around a spot of a hexagonal lattice, the eight around one
    of a square lattice, whatever the order of the spots (the nearest k would be drawn by lot where distances tie).
    """
    with warnings.catch_warnings():
        # squidpy 1.8 warns about its own docstrings at import.
        warnings.simplefilter("ignore", SyntaxWarning)
        from squidpy.gr.neighbors import RadiusBuilder

    if len(np.unique(xy, axis=0)) < 3:
        return None
    pitch, _ = lattice(xy)
    neighbours, _ = RadiusBuilder(radius=1.55 * pitch).build(np.asarray(xy, dtype=np.float64))
    return neighbours if neighbours.nnz else None


def _scores_by_group(x: Matrix, xy: np.ndarray, slides: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Moran's I of each gene, averaged over the slides of each group."""
    scores = []
    for group in np.unique(groups):
        by_slide = []
        for slide in np.unique(slides[groups == group]):
            rows = np.flatnonzero((groups == group) & (slides == slide))
            neighbours = neighbours_of(xy[rows])
            if neighbours is not None:
                by_slide.append(morans_i(x[rows], neighbours))
        if not by_slide:
            msg = f"group {str(group)!r} must have a slide with neighbouring spots, got none; leave it out."
            raise ValueError(msg)
        scores.append(np.mean(by_slide, axis=0))
    return scores
