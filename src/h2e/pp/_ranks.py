"""Expression ranks: within a spot, or within a slide and gene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from anndata import AnnData
from scipy import sparse

from h2e._sdata import keys as _keys
from h2e._sdata.expression import check_values, gene_names, gene_values, genes_of, slide_labels
from h2e._sdata.provenance import check_adata, check_free, is_ours, set_provenance
from h2e._sdata.targets import resolve_targets
from h2e._slide.compiled import compiled
from h2e._statistics import Matrix, is_sparse
from h2e._warnings import log, refuse_if


def rank_transform(
    adata: AnnData,
    *,
    axis: Literal["gene", "spot"] = "gene",
    layer: str | None = None,
    library_key: str | None = None,
    targets: Sequence[str] | None = None,
    key_added: str = _keys.RANK,
    copy: bool = False,
    overwrite: bool = False,
) -> AnnData | None:
    """Replace expression by its ranks.

    Ranks are comparable between slides where counts are not: they do not depend
    on sequencing depth or on the transform of the counts, and a model need not
    learn a scale per target.

    Zeros stay 0, so that a sparse matrix stays sparse. A positive value gets
    (its rank − 1) / (number of values − 1), where the values are all those that
    it is ranked among, zeros included, and ties share their mean rank.

    Parameters
    ----------
    adata
        Table of spots × genes: counts or any expression that is not negative.
    axis
        ``"gene"`` ranks each gene over the spots of its slide, ``"spot"`` ranks
        the targets of each spot against one another.
    layer
        Layer to rank. ``None`` ranks ``adata.X``.
    library_key
        Column of ``adata.obs`` that says which slide a spot belongs to, used by
        ``axis="gene"``. ``None`` takes the region key of a table that is part of
        a SpatialData; without one all spots are one slide.
    targets
        Genes to rank. ``None`` ranks those that ``adata.var["h2e_target"]``
        marks, or all where there is no such column. All other genes are 0 in
        the result.
    key_added
        Layer to write.
    copy
        Return a copy instead of writing to ``adata``.
    overwrite
        Replace a layer that h2e did not write.

    Returns
    -------
    ``None``, or the copy if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : ``float32``, spots × genes, sparse if the input is
        Ranks in [0, 1].
    ``adata.uns["h2e"]["params"][key_added]`` : ``dict``
        How they were made.

    Raises
    ------
    KeyError
        A layer, a column or a target is not there.
    ValueError
        Values are negative, NaN or infinite, or the layer was not written by h2e.

    Examples
    --------
    >>> import anndata as ad, h2e, numpy as np
    >>> adata = ad.AnnData(np.array([[5.0, 0.0, 2.0], [1.0, 1.0, 9.0]]))
    >>> h2e.pp.rank_transform(adata, axis="spot")
    >>> adata.layers["rank"]
    array([[1.  , 0.  , 0.5 ],
           [0.25, 0.25, 1.  ]], dtype=float32)
    """
    check_adata(adata)
    check_free(adata, "layers", key_added, ours=is_ours(adata, "layers", key_added), overwrite=overwrite)
    values, name = gene_values(adata, layer)
    genes = genes_of(adata)
    columns = np.arange(len(genes))
    if targets is not None or _keys.TARGET in adata.var:
        columns = np.sort(gene_names(adata).get_indexer_for(resolve_targets(adata, targets)))
    slides = slide_labels(adata, library_key) if axis == "gene" else None
    check_values(values, name)
    ranks = rank_values(values[:, columns], axis=axis, slides=slides)

    adata = adata.copy() if copy else adata
    adata.layers[key_added] = _widen(ranks, genes[columns], adata.n_vars)
    set_provenance(adata, _keys.PARAMS, key_added, {"axis": axis, "layer": layer or "X", "n_targets": len(columns)})
    log.info("wrote layers[%r]: ranks of %d genes within each %s", key_added, len(columns), axis)
    return adata if copy else None


def rank_values(
    x: Matrix, *, axis: Literal["gene", "spot"], slides: Sequence[str] | np.ndarray | None = None
) -> Matrix:
    """Ranks in [0, 1] of the values of each row, or of each column within each slide; zeros stay 0.

    Returns ``float32`` in the format of ``x``. ``slides`` names the slide of each row, ``None`` means one slide.
    """
    refuse_if(axis not in ("gene", "spot"), f"axis must be 'gene' (within a slide) or 'spot', got {axis!r}.")
    positive = sparse.csr_array(x, copy=True)
    positive.sum_duplicates()
    # Stored zeros would be counted as positive values.
    positive.eliminate_zeros()
    if axis == "spot":
        data = _rank_segments()(positive.data, positive.indptr, positive.shape[1])
    else:
        data = np.empty(positive.nnz, dtype=np.float32)
        place = sparse.csr_array((np.arange(positive.nnz), positive.indices, positive.indptr), shape=positive.shape)
        labels = np.zeros(positive.shape[0]) if slides is None else np.asarray(slides)
        for slide in np.unique(labels):
            by_gene = place[np.flatnonzero(labels == slide)].tocsc()
            data[by_gene.data] = _rank_segments()(positive.data[by_gene.data], by_gene.indptr, by_gene.shape[0])
    ranks = sparse.csr_array((data, positive.indices, positive.indptr), shape=positive.shape)
    if is_sparse(x):
        return (sparse.csr_matrix(ranks) if sparse.isspmatrix(x) else ranks).asformat(x.format)
    return ranks.toarray()


@cache
def _rank_segments() -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Compiled ranking of the positive values of each row of a CSR (or column of a CSC) among ``size`` values."""

    @compiled
    def rank_segments(data: np.ndarray, indptr: np.ndarray, size: int) -> np.ndarray:
        ranks = np.empty(len(data), dtype=np.float32)
        for segment in range(len(indptr) - 1):
            start, stop = indptr[segment], indptr[segment + 1]
            # Zeros are the lowest values, and come first.
            zeros = size - (stop - start)
            order = np.argsort(data[start:stop])
            first = 0
            while first < len(order):
                last = first
                while last + 1 < len(order) and data[start + order[last + 1]] == data[start + order[first]]:
                    last += 1
                # Ranks from 0.
                mean = zeros + (first + last) / 2
                for tied in range(first, last + 1):
                    ranks[start + order[tied]] = mean / (size - 1) if size > 1 else 0.5
                first = last + 1
        return ranks

    return rank_segments


def _widen(ranks: Matrix, columns: np.ndarray, n_vars: int) -> Matrix:
    """The ranks in their columns of a matrix of ``n_vars`` genes, the others 0."""
    if len(columns) == n_vars:
        return ranks
    ones = np.ones(len(columns), np.float32)
    wide = ranks @ sparse.csr_array((ones, (np.arange(len(columns)), columns)), shape=(len(columns), n_vars))
    return wide.asformat(ranks.format) if is_sparse(ranks) else wide
