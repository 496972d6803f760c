"""Ranks of expression: within a spot, or within a slide and gene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from scipy import sparse

from h2e._compiled import compiled
from h2e._statistics import Matrix


def rank_values(
    x: Matrix, *, axis: Literal["gene", "spot"], slides: Sequence[str] | np.ndarray | None = None
) -> Matrix:
    """Ranks in [0, 1] of the values of each row, or of each column within each slide; zeros stay 0.

    Returns ``float32`` in the format of ``x``. ``slides`` names the slide of each row, ``None`` means one slide.
    """
    if axis not in ("gene", "spot"):
        msg = f"axis must be 'gene' (within slide and gene) or 'spot' (within the spot), got {axis!r}."
        raise ValueError(msg)
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
    if not sparse.issparse(x):
        return ranks.toarray()
    return (sparse.csr_matrix(ranks) if sparse.isspmatrix(x) else ranks).asformat(x.format)


@cache
def _rank_segments() -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Compiled ranking of the positive values of each row of a CSR (or column of a CSC) among ``size`` values."""

    @compiled
    def rank_segments(data: np.ndarray, indptr: np.ndarray, size: int) -> np.ndarray:
        ranks = np.empty(len(data), dtype=np.float32)
        for segment in range(len(indptr) - 1):
            start, stop = indptr[segment], indptr[segment + 1]
            # They are the lowest values, and come first.
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
