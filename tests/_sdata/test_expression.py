"""Laws of expression: counts are recognized, normalized as scanpy does, and never by other spots."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import h2e
from h2e._sdata.expression import expression, slide_labels, values_of
from h2e._sdata.table import labels_of
from h2e._sdata.targets import measured, resolve_targets


def table(*, dense: bool = False) -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(2.0, (20, 15)).astype(np.float32)
    counts[3] = 0  # a spot without counts
    return ad.AnnData(counts if dense else sparse.csr_matrix(counts))


def by_scanpy(adata: ad.AnnData) -> ad.AnnData:
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    return logged


def dense(x: np.ndarray | sparse.spmatrix) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else x


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
@pytest.mark.parametrize("is_dense", [True, False])
def test_normalization_is_that_of_scanpy_and_keeps_the_input(is_dense: bool):
    adata = table(dense=is_dense)
    before = dense(adata.X).copy()
    values = expression(adata)
    np.testing.assert_allclose(dense(values), dense(by_scanpy(adata).X), rtol=1e-5)
    assert values.dtype == np.float32
    assert sparse.issparse(values) is not is_dense
    np.testing.assert_array_equal(dense(adata.X), before)


def test_whole_number_types_are_counts():
    adata = table()
    adata.layers["counts"] = adata.X.astype(np.int32).tocsc()
    np.testing.assert_array_equal(expression(adata, layer="counts").toarray(), expression(adata).toarray())


def test_a_spot_does_not_depend_on_the_others():
    adata = table()
    np.testing.assert_array_equal(expression(adata[5:9]).toarray(), expression(adata)[5:9].toarray())


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_values_that_are_logarithms_already_are_taken_as_they_are():
    logged = by_scanpy(table())
    np.testing.assert_array_equal(expression(logged).toarray(), logged.X.toarray())  # scanpy's mark
    del logged.uns["log1p"]  # as after a concatenation
    with pytest.raises(ValueError, match=r"holds no counts .* log_normalized=True"):
        expression(logged)
    np.testing.assert_array_equal(expression(logged, log_normalized=True).toarray(), logged.X.toarray())


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_the_mark_of_scanpy_is_not_believed_of_counts():
    logged = by_scanpy(table())
    logged.layers["counts"] = table().X
    expected = expression(table()).toarray()
    np.testing.assert_array_equal(expression(logged, layer="counts").toarray(), expected)
    logged.X = table().X
    np.testing.assert_array_equal(expression(logged).toarray(), expected)


@pytest.mark.parametrize("log_normalized", [True, False])
@pytest.mark.parametrize(("value", "match"), [(np.nan, "1 NaN"), (np.inf, "1 NaN or infinite"), (-2, "smallest -2")])
def test_missing_and_negative_values_are_refused(value: float, match: str, log_normalized: bool):
    adata = table(dense=True)
    adata.X[2, 2] = value
    with pytest.raises(ValueError, match=match):
        expression(adata, log_normalized=log_normalized)


def test_what_is_not_there_is_named_beside_what_is():
    adata = table()
    adata.layers["raw"] = adata.X
    with pytest.raises(KeyError, match=r"'counts' is not in adata.layers; it has \['raw'\]"):
        expression(adata, layer="counts")
    with pytest.raises(ValueError, match=r"adata.X is empty; pass layer=, one of \['raw'\]"):
        expression(ad.AnnData(obs=adata.obs, var=adata.var, layers={"raw": adata.X}))
    with pytest.raises(KeyError, match=r"'donor' is not in table.obs"):
        labels_of(adata, "donor")
    adata.obs["donor"] = pd.Categorical(["A"] * 18 + [None] * 2)
    with pytest.raises(ValueError, match="missing for 2 of 20 spots"):
        labels_of(adata, "donor")


def test_without_a_key_or_a_region_all_spots_are_one_slide():
    assert set(slide_labels(table())) == {"all"}


KINDS = {
    "10x": ("Gene Expression", "Antibody Capture"),
    "lower case": ("gene expression", "antibody capture"),
    "underscores": ("Gene_Expression", "CRISPR_Guide_Capture"),
    "short": ("Gene", "Protein"),
    "muon": ("GEX", "ADT"),
    "Xenium": ("Gene Expression", "Negative Control Probe"),
    "another word": ("RNA", "Custom"),
    "missing": (np.nan, "Antibody Capture"),
}


def with_proteins(gene: object, other: object) -> tuple[ad.AnnData, ad.AnnData]:
    """The same genes alone, and between features of another kind with far more counts, one of a gene's name."""
    genes = table()
    proteins = np.random.default_rng(1).poisson(500.0, (20, 3)).astype(np.float32)
    x = sparse.hstack([proteins[:, :2], genes.X, proteins[:, 2:]], format="csr")
    both = ad.AnnData(x)
    both.var_names = ["P0", "P1", *genes.var_names, genes.var_names[4]]
    both.var["feature_types"] = pd.Categorical([other, other, *[gene] * 15, other])
    return genes, both


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(("gene", "other"), KINDS.values(), ids=KINDS)
def test_only_genes_count_in_the_total_and_are_targets(gene: object, other: object):
    genes, both = with_proteins(gene, other)
    np.testing.assert_array_equal(expression(both).toarray(), expression(genes).toarray())
    names = list(genes.var_names[[4, 2]])
    pd.testing.assert_frame_equal(measured(both, names), measured(genes, names))
    both.var["h2e_target"] = both.var_names == genes.var_names[4]
    assert resolve_targets(both) == [genes.var_names[4]]
    both.X[:, :2] = -1  # what is no gene may be normalized by its own rules
    np.testing.assert_array_equal(expression(both).toarray(), expression(genes).toarray())
    with pytest.raises(ValueError, match=rf"targets must be genes, got \['P1'\], which are '{other}'"):
        measured(both, ["P1"])


@pytest.mark.parametrize("word", ["Gene Expression", "protein_coding", "", None])
def test_a_column_that_tells_nothing_changes_nothing(word: str | None):
    adata = table()
    expected = expression(adata).toarray()
    adata.var["feature_types"] = word
    np.testing.assert_array_equal(expression(adata).toarray(), expected)


def test_proteins_alone_are_no_expression():
    adata = table()
    adata.var["feature_types"] = "Antibody Capture"
    with pytest.raises(ValueError, match=r"features of other kinds only: .* \['Antibody Capture'\]"):
        expression(adata)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_ranks_and_chosen_targets_are_of_genes_only():
    _, both = with_proteins("Gene Expression", "Antibody Capture")
    both.var_names = [f"F{i}" for i in range(both.n_vars)]
    both.obsm["spatial"] = np.stack(np.divmod(np.arange(20), 5), axis=1).astype(float)
    h2e.pp.rank_transform(both, axis="spot")
    ranks = both.layers["rank"].toarray()
    assert not ranks[:, [0, 1, -1]].any()
    assert ranks[:3].max(axis=1).min() > 0.8
    h2e.pp.select_targets(both, n_targets=15)
    assert both.var["h2e_target"].tolist() == [False, False, *[True] * 15, False]


LAZY = {
    "dense blocks": lambda x: da.from_array(x.toarray(), chunks=(7, 4)),
    "csr blocks": lambda x: da.from_array(x.toarray(), chunks=(7, 4)).map_blocks(sparse.csr_matrix),
    "csc blocks": lambda x: da.from_array(x.toarray(), chunks=(7, 15)).map_blocks(sparse.csc_matrix),
    "csr_array blocks": lambda x: da.from_array(x.toarray(), chunks=(7, 15)).map_blocks(sparse.csr_array),
}


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("lazy", LAZY.values(), ids=LAZY)
def test_lazily_read_counts_are_computed(lazy, layer: str | None):
    adata = table()
    expected = dense(expression(adata))
    if layer is None:
        adata.X = lazy(adata.X)
    else:
        adata.layers[layer] = lazy(adata.X)
    np.testing.assert_array_equal(dense(expression(adata, layer=layer)), expected)
    np.testing.assert_array_equal(dense(expression(adata[3:9], [2, 5], layer=layer)), expected[3:9][:, [2, 5]])


def test_expression_elsewhere_is_refused_by_name():
    elsewhere = SimpleNamespace(X=[[1]], layers={}, isbacked=False)
    with pytest.raises(ValueError, match=r"adata.X must be in memory, .*bring it into memory with adata.to_memory"):
        values_of(elsewhere, None)
    with pytest.raises(ValueError, match="pass layer=, which the table has none of yet, or obsm= or columns of obs"):
        expression(ad.AnnData(obs=table().obs, var=table().var))


def test_half_precision_has_the_totals_of_single_precision():
    adata = table(dense=True)
    adata.layers["single"] = adata.X * 4000
    adata.layers["half"] = adata.layers["single"].astype(np.float16)
    adata.layers["single"] = adata.layers["half"].astype(np.float32)
    np.testing.assert_array_equal(expression(adata, layer="half"), expression(adata, layer="single"))


def test_values_that_are_no_numbers_are_refused_by_their_type():
    adata = table(dense=True)
    adata.layers["text"] = adata.X.astype(str).astype(object)
    with pytest.raises(TypeError, match=r"adata.layers\['text'\] must hold numbers, got object; convert them"):
        expression(adata, layer="text")
