"""Expression values of a table: checked and log-normalized; which slide a row belongs to, and where it lies there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata.table import array_of, labels_of, words_of
from h2e._statistics import Matrix, is_sparse, log_normalize
from h2e._warnings import refuse, refuse_if

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

OTHER_FEATURES = "Normalize their values yourself, and pass them as a frame, obsm=, or as columns of obs."
"""What to do with features that are no genes."""


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
        if (highest := _stored(values).max(initial=0)) > LARGEST_LOG:
            msg = f"{name} must hold log-normalized expression, got values up to {highest:g}; leave out "
            refuse(msg + "log_normalized=True for counts, or take the logarithm first.")
    else:
        check_counts(values, name)
        chosen = log_normalize(chosen, totals=values.sum(axis=1))
    return (chosen.tocsr() if is_sparse(chosen) else np.asarray(chosen)).astype(np.float32)


def is_marked(adata: AnnData, values: Matrix) -> bool:
    """Whether values of ``adata.X`` are log-normalized by scanpy's mark, which is not believed of counts."""
    return "log1p" in adata.uns and not _is_whole(_stored(_in_memory(values)))


def genes_of(adata: AnnData) -> np.ndarray:
    """Positions of the features that are genes: all that ``var["feature_types"]`` does not call something else."""
    if FEATURE_TYPES not in adata.var:
        return np.arange(adata.n_vars)
    words = words_of(adata.var[FEATURE_TYPES])
    gene, other = words.str.fullmatch(GENE), words.str.contains(NO_GENE)
    return np.flatnonzero((gene if gene.any() else ~other) | adata.var[FEATURE_TYPES].isna())


def gene_names(adata: AnnData) -> pd.Index:
    """Names of the features that are genes."""
    return adata.var_names[genes_of(adata)].astype(str)


def has_expression(adata: AnnData, layer: str | None = None) -> bool:
    """Whether there are values of genes, or should be, since a layer is named or waits to be."""
    return len(genes_of(adata)) > 0 and (layer is not None or adata.X is not None or bool(layer_names(adata)))


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers; anndata counts ``X`` among them in some versions, without a name."""
    return [name for name in adata.layers if name is not None]


def gene_values(adata: AnnData, layer: str | None) -> tuple[Matrix, str]:
    """The values of all genes, and what to call them in an error."""
    genes = genes_of(adata)
    if adata.n_vars and not len(genes):
        kinds = sorted(set(adata.var[FEATURE_TYPES].astype(str)))
        msg = f"the table must have genes, got features of other kinds only: {FEATURE_TYPES} {kinds}. {OTHER_FEATURES}"
        raise ValueError(msg)
    values, name = values_of(adata, layer)
    return (values if len(genes) == adata.n_vars else values[:, genes]), name


def values_of(adata: AnnData, layer: str | None) -> tuple[Matrix, str]:
    """``adata.X`` or a layer of it, in memory, and what to call it in an error."""
    layers, name = layer_names(adata), "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    refuse_if(layer not in [None, *layers], f"{layer!r} is not in adata.layers; it has {layers}.", KeyError)
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        hint = f"one of {layers}" if layers else "which the table has none of yet, or obsm= or columns of obs"
        refuse(f"adata.X is empty; pass layer=, {hint}.")
    values = _in_memory(values)
    if (layer is None and adata.isbacked) or not (isinstance(values, np.ndarray) or is_sparse(values)):
        refuse(f"{name} must be in memory, and is on disk (backed); bring it into memory with adata.to_memory().")
    if values.dtype.kind not in "biuf":
        msg = f"{name} must hold numbers, got {values.dtype}; convert them, such as with .astype('float32')."
        raise TypeError(msg)
    # Half precision ends at 65,504, which totals exceed.
    return (values.astype(np.float32) if values.dtype == np.float16 else values), name


def check_values(values: Matrix, name: str) -> None:
    """Refuse missing, infinite and negative values."""
    stored = _stored(values)
    n = int((~np.isfinite(stored)).sum())
    refuse_if(n, f"{name} holds {n} NaN or infinite values; drop or fill these spots or genes first.")
    if n := int((stored < 0).sum()):
        msg = f"{name} holds {n} negative values (smallest {stored.min():g}); pass layer= with counts or logarithms of "
        refuse(msg + "them (those in adata.raw: adata.layers['counts'] = adata.raw[:, adata.var_names].X).")


def check_counts(values: Matrix, name: str) -> None:
    """Refuse what cannot be counts: missing, negative or broken numbers."""
    check_values(values, name)
    stored = _stored(values)
    if not _is_whole(stored):
        example = stored[stored != np.round(stored)][0]
        msg = f"{name} holds no counts (it has values such as {example:g}); pass layer= with the counts, or "
        refuse(msg + "log_normalized=True for values that are log-normalized already; round corrected counts.")


def slide_column(adata: AnnData, library_key: str | None = None) -> str | None:
    """The column of ``obs`` with the slide of each spot: ``library_key``, else the table's region key."""
    return library_key or adata.uns.get("spatialdata_attrs", {}).get("region_key")


def slide_labels(adata: AnnData, library_key: str | None = None) -> np.ndarray:
    """The slide of each spot: ``library_key``, else the table's region key, else one slide for all."""
    key = slide_column(adata, library_key)
    if key is not None:
        return labels_of(adata, key)
    slides = list(adata.uns.get("spatial", {}))
    refuse_if(len(slides) > 1, f"uns['spatial'] has the slides {slides}; pass library_key, their column of obs.")
    return np.full(adata.n_obs, "all")


def positions_of(adata: AnnData, slides: np.ndarray) -> np.ndarray:
    """The (x, y) of each spot, in any unit: ``obsm["spatial"]``, else the array coordinates, made isotropic."""
    if "spatial" in adata.obsm:
        return stored_positions(adata)
    xy = array_of(adata.obs)
    if xy is None:
        msg = f"no positions: adata.obsm has no 'spatial', adata.obs no 'array_row' and 'array_col': {list(adata.obs)}."
        raise KeyError(msg)
    # Columns of Visium count half pitches, and its rows are √3/2 pitches apart. Rows of other arrays alternate, too,
    # and their steps are about the same both ways; but none has so many columns, and only Visium says what is under
    # tissue.
    for slide in np.unique(slides):
        rows = slides == slide
        visium = "in_tissue" in adata.obs or xy[rows, 0].max() > OTHER_COLUMNS
        if visium and len(np.unique(xy[rows].sum(axis=1) % 2)) == 1:
            xy[rows, 1] *= np.sqrt(3)
    return xy


def stored_positions(adata: AnnData) -> np.ndarray:
    """The (x, y) of each spot in ``obsm["spatial"]``; those of a frame are told by the names of its columns."""
    values = adata.obsm["spatial"]
    if isinstance(values, pd.DataFrame):
        if not {"x", "y"} <= set(values):
            refuse(f"obsm['spatial'] must be x and y, or have columns of these names, got {list(values)}; rename them.")
        values = values[["x", "y"]]
    return np.asarray(values, dtype=np.float64)[:, :2]


def _in_memory(values: Any) -> Any:
    """What was read lazily, of dense or sparse blocks, computed."""
    return values.compute() if hasattr(values, "dask") else values


def _stored(values: Matrix) -> np.ndarray:
    """The values that are stored: of a sparse matrix the rest are zeros, which need no check."""
    return np.asarray(values.data if is_sparse(values) else values)


def _is_whole(stored: np.ndarray) -> bool:
    """Whether all values are whole numbers."""
    return np.issubdtype(stored.dtype, np.integer) or bool((stored == np.round(stored)).all())
