"""Housekeeping genes are known under every common form of their names."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from h2e._sdata.selection import choose_targets, symbols_of

HOUSEKEEPING = ["MT-CO1", "MT-ND4L", "RPL13", "RPS4X", "MRPL12", "RPLP0"]
OTHERS = ["MTOR", "RPS6KA1", "NKX2-1", "HLA-DRB1", "MTA1", "GRN", "MMP2", "HGF"]
FORMS = {
    "symbol": "{}",
    "genome": "GRCh38_{}",
    "genome of 2020": "GRCh38______{}",
    "genome, by Seurat": "GRCh38-{}",
    "older genome": "hg19_{}",
    "mouse": "mm10___{}",
    "before an identifier": "{}_ENSG00000198804",
    "before a version": "{}_ENSG00000198804.2",
    "in brackets": "{} (ENSG00000198804)",
    "after an identifier": "ENSG00000198804_{}",
    "after a version": "ENSG00000198804.12|{}",
    "genome and identifier": "GRCh38_ENSG00000198804_{}",
    "made unique by scanpy": "{}-1",
    "made unique by R": "{}.1",
}
CASES = {"upper": str.upper, "lower": str.lower, "mouse": lambda name: "-".join(map(str.capitalize, name.split("-")))}


def chosen(names: list[str], symbols: np.ndarray | None = None) -> list[str]:
    x = np.random.default_rng(0).random((16, len(names)))
    xy = np.stack(np.divmod(np.arange(16), 4), axis=1).astype(float)
    one = np.full(16, "A")
    given = {"genes": names, "slides": one, "groups": one, "n_targets": len(OTHERS), "symbols": symbols}
    return choose_targets(x, xy, **given)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_housekeeping_genes_are_known_in_each_form_and_no_others(form: str, case):
    names = [form.format(case(name)) for name in HOUSEKEEPING + OTHERS]
    assert set(chosen(names)) == set(names[len(HOUSEKEEPING) :])
    assert set(chosen([name.replace("-", ".") for name in names])) == {
        name.replace("-", ".") for name in names[len(HOUSEKEEPING) :]
    }


@pytest.mark.parametrize(
    "column", ["SYMBOL", "symbol", "gene_symbols", "Gene Symbol", "name", "gene_name", "Gene", "feature_name",
               "gene_short_name", "hgnc_symbol", "external.gene.name", "Symbols"]
)  # fmt: skip
@pytest.mark.parametrize("form", ["ENSG{:011d}", "ENSMUSG{:011d}", "ENSG{:011d}.7", "GRCh38_ENSG{:011d}"])
def test_symbols_are_read_beside_identifiers(column: str, form: str):
    symbols = HOUSEKEEPING + OTHERS
    names = [form.format(i) for i in range(len(symbols))]
    # A column of identifiers under such a name, before it, is no column of symbols.
    var = pd.DataFrame({"gene": names, column: pd.Categorical(symbols)}, index=names)
    adata = ad.AnnData(np.ones((2, len(names))), var=var)
    assert symbols_of(adata).tolist() == symbols
    assert set(chosen(names, symbols_of(adata))) == set(names[len(HOUSEKEEPING) :])


def test_an_expression_of_the_user_is_matched_with_the_names_as_they_are_too():
    x, xy, one = np.random.default_rng(0).random((9, 3)), np.indices((3, 3)).reshape(2, -1).T * 1.0, np.full(9, "A")
    given = {"slides": one, "groups": one, "n_targets": 1}
    names = ["GRCh38_KRT5", "GRCh38_TP53", "mm10_Krt5"]
    assert choose_targets(x, xy, genes=names, exclude="^(mm10_|TP53$)", **given) == ["GRCh38_KRT5"]
