"""Targets that are chosen: the genes that vary most in space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from numbers import Integral

import numpy as np
from anndata import AnnData
from scipy import sparse

from h2e._sdata.expression import genes_of
from h2e._sdata.targets import refuse_duplicates
from h2e._slide.lattice import lattice
from h2e._statistics import Matrix, morans_i
from h2e._warnings import log, refuse, refuse_if

HOUSEKEEPING = r"^(MT-|MT(CO[123]|ND[1-6]L?|ATP[68]|CYB|RNR[12])$|M?RP[LS](A|P?\d+([ABCLX]|AL|[LY]\d)?)$)"
"""Mitochondrial and ribosomal genes, of human and mouse (matched ignoring case)."""

ENSEMBL = r"ENS[A-Z]*G\d{6,}(\.\d+)?"
"""Identifiers of genes."""

BESIDE_SYMBOL = rf"^(GRC[a-z]\d+|hg\d+|mm\d+|rn\d+|human|mouse)[_.-]+|^{ENSEMBL}[_.|: -]+(?=.*[a-z])"
# The identifier may stand after it, too, and so may a number that makes it unique.
BESIDE_SYMBOL += rf"|[_.|: (-]+{ENSEMBL}\)?$|[.-]\d+$"
"""What tools write before and after a symbol."""

SYMBOLS = r"(external)?(gene|feature|hgnc|mgi)?(short)?(names?|symbols?)|genes?"
"""Columns of ``var`` that readers and atlases keep symbols in, whatever their case, spaces, dots and dashes."""


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

    ``exclude`` is matched with the names and with ``symbols``, by default what stands in the names.
    """
    if not isinstance(n_targets, Integral) or n_targets < 1:
        refuse(f"n_targets must be a positive whole number, got {n_targets!r}.")
    if not len(genes):
        msg = "the table has no genes to choose targets from. It may be a grid of spots, or come from slides without a "
        refuse(msg + "gene in common: are those of some named by symbols, of some by Ensembl identifiers?")
    names = np.asarray(genes, dtype=str)
    refuse_duplicates(names, "genes")
    slides, groups = np.asarray(slides), np.asarray(groups)
    candidate = np.ones(len(names), dtype=bool)
    for group in np.unique(groups):
        detected = np.asarray((x_log[groups == group] > 0).mean(axis=0)).ravel()
        candidate &= (detected >= min_frac) & (detected > 0)
    if exclude is not None:
        for searched in (names, [_symbol(name) for name in (names if symbols is None else symbols)]):
            candidate &= [re.search(exclude, name, re.IGNORECASE) is None for name in searched]
    if candidate.sum() < n_targets:
        msg = f"n_targets={n_targets} genes were asked for, {candidate.sum()} of {len(names)} are in {min_frac:.0%} of "
        msg += f"spots of each group of {np.unique(groups).tolist()}; lower n_targets, or name the genes, which "
        refuse(msg + "h2e.pp.select_targets can choose with a lower min_frac.")
    names, x_log = names[candidate], x_log[:, np.flatnonzero(candidate)]
    score = np.mean(_scores_by_group(x_log, xy, slides, groups), axis=0)
    # Ties in the order of names, whatever the order of the table.
    best = np.lexsort((names, -score))
    return names[best[:n_targets]].tolist()


def symbols_of(adata: AnnData) -> np.ndarray:
    """Symbols of the genes: their names or, of Ensembl identifiers, the column of ``var`` that has symbols."""
    var = adata.var.iloc[genes_of(adata)]
    names = var.index.to_numpy(dtype=str)
    if not _are_identifiers(names):
        return names
    for column in sorted(var, key=lambda column: "symbol" not in str(column).lower()):
        symbols = var[column].to_numpy(dtype=str)
        title = re.sub(r"[\s_.-]", "", str(column))
        if re.fullmatch(SYMBOLS, title, re.IGNORECASE) and not _are_identifiers(symbols):
            return symbols
    what = "genes are named by Ensembl identifiers, and var has none of the columns %s: mitochondrial ones are kept"
    log.warning(what, ["symbol", "gene_name", "feature_name", "name", "gene"])
    return names


def _are_identifiers(names: np.ndarray) -> bool:
    """Whether most names are identifiers, and say no symbol."""
    found = sum(re.fullmatch(ENSEMBL, _symbol(name)) is not None for name in names)
    return found > 0 and found >= len(names) / 2


@cache
def _symbol(name: str) -> str:
    """The symbol in a name: without the genome, the identifier or the number beside it, and with R's dots as dashes."""
    rest = re.sub(BESIDE_SYMBOL, "", name.strip(), flags=re.IGNORECASE)
    rest = re.sub(BESIDE_SYMBOL, "", rest, flags=re.IGNORECASE) or name
    return re.sub(r"^(mt)[._](?=.)", r"\1-", rest, flags=re.IGNORECASE)


def neighbours_of(xy: np.ndarray) -> sparse.csr_matrix | None:
    """Which spots of one slide are neighbours, as a graph; ``None`` where none are.

    Neighbours are the spots within 1.55 pitches: the six around a spot of a hexagonal lattice, the eight around one
    of a square lattice, whatever the order of the spots (the nearest k would be drawn by lot where distances tie).
    """
    from sklearn.neighbors import radius_neighbors_graph

    if len(np.unique(xy, axis=0)) < 3:
        return None
    pitch, _ = lattice(xy)
    neighbours = radius_neighbors_graph(np.asarray(xy, dtype=np.float64), 1.55 * pitch)
    return neighbours if neighbours.nnz else None


def _scores_by_group(x: Matrix, xy: np.ndarray, slides: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Moran's I of each gene, averaged over the slides of each group."""
    scores = []
    for group in np.unique(groups):
        parts = [np.flatnonzero((groups == group) & (slides == slide)) for slide in np.unique(slides[groups == group])]
        graphs = [(rows, neighbours_of(xy[rows])) for rows in parts]
        by_slide = [morans_i(x[rows], neighbours) for rows, neighbours in graphs if neighbours is not None]
        refuse_if(not by_slide, f"group {str(group)!r} must have a slide with neighbouring spots; leave it out.")
        scores.append(np.mean(by_slide, axis=0))
    return scores
