"""Expression values of a table: checked and log-normalized; which slide a row belongs to, and where it lies there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata.table import labels_of
from h2e._statistics import Matrix, is_sparse, log_normalize

LARGEST_LOG = 25.0
"""More than the logarithm of any normalized count, to base 2 of ten million, too."""

OTHER_COLUMNS = 66
"""Columns of the largest array of Spatial Transcriptomics (2,000 spots); Visium has 128 and more."""

FEATURE_TYPES = "feature_types"
"""``var``: what each feature is, as 10x writes it."""

GENE = r"genes?|(gene |rna )?expression|gex|m?rna|transcript(s|ome)?"
"""What genes are called there, case and kinds of spaces aside."""

NO_GENE = r"antibod|antigen|capture|protein ?expr|\bproteins?$|^adt$|^hto$|crispr|peak|control|codeword|blank"
"""What features are called that are none; by any other word alone, such as a biotype, all features are genes."""


def expression(
    adata: AnnData, columns: Sequence[int] | None = None, *, layer: str | None = None, log_normalized: bool = False
) -> Matrix:
    """Log-normalized expression of all genes or of some of them: a ``float32`` CSR, or an array if the table has one.

    ``columns`` are positions among the genes; features that are none (``genes_of``) are not read at all.

    Counts are scaled to 10,000 per spot over *all* genes before the logarithm, so that a subset of spots or of
    targets changes nothing. Values are taken as they are with ``log_normalized=True``, or where ``uns["log1p"]``
    (scanpy's mark) says so of an ``adata.X`` that is not whole numbers.
    """
    values, name = gene_values(adata, layer)
    chosen = values if columns is None else values[:, columns]
    if log_normalized or (layer is None and is_marked(adata, values)):
        check_values(values, name)
        highest = _stored(values).max(initial=0)
        if highest > LARGEST_LOG:
            msg = f"{name} must hold log-normalized expression, got values up to {highest:g}; leave out "
            msg += "log_normalized=True for counts, or take the logarithm first."
            raise ValueError(msg)
    else:
        check_counts(values, name)
        chosen = log_normalize(chosen, totals=values.sum(axis=1))
    return (chosen.tocsr() if is_sparse(chosen) else np.asarray(chosen)).astype(np.float32)


def is_marked(adata: AnnData, values: Matrix) -> bool:
    """Whether values of ``adata.X`` are log-normalized by scanpy's mark, which is not believed of counts."""
    return "log1p" in adata.uns and not _is_whole(_stored(values))


def genes_of(adata: AnnData) -> np.ndarray:
    """Positions of the features that are genes: all that ``var["feature_types"]`` does not call something else."""
    if FEATURE_TYPES not in adata.var:
        return np.arange(adata.n_vars)
    types = adata.var[FEATURE_TYPES]
    words = types.astype(str).str.strip().str.lower().str.replace(r"[\s_-]+", " ", regex=True)
    gene, other = words.str.fullmatch(GENE), words.str.contains(NO_GENE)
    return np.flatnonzero((~types.notna() | (gene if gene.any() else ~other)).to_numpy(bool))


def gene_names(adata: AnnData) -> pd.Index:
    """Names of the features that are genes."""
    return adata.var_names[genes_of(adata)].astype(str)


def has_expression(adata: AnnData, layer: str | None = None) -> bool:
    """Whether there are values of genes, or should be, since a layer is named or waits to be."""
    there = layer is not None or adata.X is not None or bool(set(adata.layers) - {None})
    return there and len(genes_of(adata)) > 0


def gene_values(adata: AnnData, layer: str | None) -> tuple[Matrix, str]:
    """The values of all genes, and what to call them in an error."""
    genes = genes_of(adata)
    if adata.n_vars and not len(genes):
        kinds = sorted(set(adata.var[FEATURE_TYPES].astype(str)))
        msg = f"the table must have genes, got features of other kinds only: var['{FEATURE_TYPES}'] has {kinds}. "
        msg += "Normalize their values yourself, and pass them as a frame, obsm=, or as columns of obs."
        raise ValueError(msg)
    values, name = values_of(adata, layer)
    return (values if len(genes) == adata.n_vars else values[:, genes]), name


def values_of(adata: AnnData, layer: str | None) -> tuple[Matrix, str]:
    """``adata.X`` or a layer of it, and what to call it in an error."""
    if layer is None:
        if adata.X is None:
            layers = [name for name in adata.layers if name is not None]
            hint = f"one of {layers}" if layers else "once the table has one, or targets of obsm or obs"
            msg = f"adata.X is empty; pass layer=, {hint}."
            raise ValueError(msg)
        if adata.isbacked:
            msg = "adata.X is on disk (backed); bring it into memory with adata.to_memory()."
            raise ValueError(msg)
        return _in_memory(adata.X, "adata.X"), "adata.X"
    if layer not in adata.layers:
        msg = f"{layer!r} is not in adata.layers; it has {[name for name in adata.layers if name is not None]}."
        raise KeyError(msg)
    name = f"adata.layers[{layer!r}]"
    return _in_memory(adata.layers[layer], name), name


def check_values(values: Matrix, name: str) -> None:
    """Refuse missing, infinite and negative values."""
    stored = _stored(values)
    if n := int((~np.isfinite(stored)).sum()):
        msg = f"{name} holds {n} NaN or infinite values; expression must be finite. Drop or fill these spots or "
        msg += "genes first."
        raise ValueError(msg)
    if n := int((stored < 0).sum()):
        msg = f"{name} holds {n} negative values (smallest {stored.min():g}), as scaled or centred data do; pass "
        msg += "layer= with counts or with log-normalized expression (those in adata.raw become a layer with "
        msg += "adata.layers['counts'] = adata.raw[:, adata.var_names].X)."
        raise ValueError(msg)


def check_counts(values: Matrix, name: str) -> None:
    """Refuse what cannot be counts: missing, negative or broken numbers."""
    check_values(values, name)
    stored = _stored(values)
    if not _is_whole(stored):
        example = stored[stored != np.round(stored)][0]
        msg = f"{name} holds no counts (it has values such as {example:g}); pass layer= with the counts, or "
        msg += "log_normalized=True if these values are log-normalized already (corrected counts: round them, or "
        msg += "normalize)."
        raise ValueError(msg)


def slide_labels(adata: AnnData, library_key: str | None = None) -> np.ndarray:
    """The slide of each spot: ``library_key``, else the table's region key, else one slide for all."""
    key = library_key or adata.uns.get("spatialdata_attrs", {}).get("region_key")
    if key is not None:
        return labels_of(adata, key)
    slides = list(adata.uns.get("spatial", {}))
    if len(slides) > 1:
        msg = f"uns['spatial'] has the slides {slides}; pass library_key, the column of obs that says which a spot is "
        msg += "on."
        raise ValueError(msg)
    return np.full(adata.n_obs, "all")


def positions_of(adata: AnnData, slides: np.ndarray) -> np.ndarray:
    """The (x, y) of each spot, in any unit: ``obsm["spatial"]``, else the array coordinates, made isotropic."""
    if "spatial" in adata.obsm:
        return np.asarray(adata.obsm["spatial"], dtype=np.float64)[:, :2]
    if not {"array_row", "array_col"} <= set(adata.obs):
        msg = f"no positions: adata.obsm has {list(adata.obsm)} and no 'spatial', adata.obs has {list(adata.obs)} and "
        msg += "not both 'array_row' and 'array_col'; add one of them."
        raise KeyError(msg)
    xy = adata.obs[["array_col", "array_row"]].to_numpy(dtype=np.float64, copy=True)
    # Columns of Visium count half pitches, and its rows are √3/2 pitches apart. Rows of other arrays alternate, too,
    # and their steps are about the same both ways; but none has so many columns, and only Visium says what is under
    # tissue.
    for slide in np.unique(slides):
        rows = slides == slide
        visium = "in_tissue" in adata.obs or xy[rows, 0].max() > OTHER_COLUMNS
        if visium and len(np.unique(xy[rows].sum(axis=1) % 2)) == 1:
            xy[rows, 1] *= np.sqrt(3)
    return xy


def _in_memory(values: Any, name: str) -> Matrix:
    """Compute what dask reads lazily, of dense or sparse blocks; refuse what lies elsewhere."""
    if hasattr(values, "dask"):
        values = values.compute()
    if not isinstance(values, np.ndarray) and not is_sparse(values):
        msg = f"{name} must be in memory, got {type(values).__name__}; bring it there with adata.to_memory()."
        raise ValueError(msg)
    return values


def _stored(values: Matrix) -> np.ndarray:
    """The values that are stored: of a sparse matrix the rest are zeros, which need no check."""
    return np.asarray(values.data if is_sparse(values) else values)


def _is_whole(stored: np.ndarray) -> bool:
    """Whether all values are whole numbers."""
    return np.issubdtype(stored.dtype, np.integer) or bool((stored == np.round(stored)).all())
