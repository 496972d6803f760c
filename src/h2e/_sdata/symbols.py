"""What genes are called, whatever names the table goes by."""

from __future__ import annotations

import logging
import re

import numpy as np
from anndata import AnnData

log = logging.getLogger(__name__)

HOUSEKEEPING = r"^(MT-|M?RP[LS](A|P?\d+([ABCLX]|AL|[LY]\d)?)$)"
"""Mitochondrial and ribosomal genes, of human and mouse (matched ignoring case)."""

ENSEMBL = r"ENS[A-Z]*G\d{6,}"
"""How identifiers of genes begin."""

SYMBOLS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "feature_name")
"""Columns of ``var`` that common readers and atlases keep symbols in."""


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
