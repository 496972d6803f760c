"""Laws of expression: counts are recognized, normalized as scanpy does, and never by other spots."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from h2e._sdata.expression import expression, slide_labels
from h2e._sdata.table import labels_of


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
