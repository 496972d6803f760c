"""Laws of ranks: order only, ties share, zeros stay, each slide by itself."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy import sparse, stats

import h2e.pp
from h2e._slide.compiled import compiled
from h2e.pp._ranks import rank_values

if TYPE_CHECKING:
    from spatialdata import SpatialData

CONTAINERS = {
    "array": np.asarray,
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
}
SLIDES = np.array(list("AABBBABABA" * 3))


def counts(seed: int = 0, *, shape: tuple[int, int] = (30, 12)) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.9, shape).astype(np.float32)


def by_scipy(x: np.ndarray, axis: str, slides: np.ndarray) -> np.ndarray:
    if axis == "spot":
        ranks = (stats.rankdata(x, axis=1) - 1) / (x.shape[1] - 1)
    else:
        ranks = np.empty(x.shape)
        for slide in set(slides):
            rows = slides == slide
            ranks[rows] = (stats.rankdata(x[rows], axis=0) - 1) / (rows.sum() - 1)
    return np.where(x == 0, 0, ranks)


def dense(x: np.ndarray | sparse.sparray) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else x


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("axis", ["spot", "gene"])
def test_ranks_are_those_of_scipy_and_keep_their_container(axis: str, kind: str):
    x = CONTAINERS[kind](counts())
    before = x.copy()
    ranks = rank_values(x, axis=axis, slides=SLIDES)
    np.testing.assert_allclose(dense(ranks), by_scipy(counts(), axis, SLIDES), atol=1e-6)
    assert type(ranks) is type(x)
    assert ranks.dtype == np.float32
    np.testing.assert_array_equal(dense(x), dense(before))


@pytest.mark.parametrize("axis", ["spot", "gene"])
@pytest.mark.parametrize("transform", [np.log1p, np.square, np.sqrt, lambda x: 1e4 * x], ids=["log", "²", "√", "scale"])
def test_ranks_do_not_change_under_a_monotone_transform_that_keeps_zero(axis: str, transform: np.ufunc):
    before = rank_values(sparse.csr_matrix(counts()), axis=axis, slides=SLIDES)
    after = rank_values(sparse.csr_matrix(transform(counts())), axis=axis, slides=SLIDES)
    np.testing.assert_array_equal(before.toarray(), after.toarray())


def test_ties_share_their_mean_rank_and_zeros_stay_zero():
    ranks = rank_values(np.array([[0, 3, 0, 3, 7.0]]), axis="spot")
    np.testing.assert_array_equal(ranks, np.array([[0, 0.625, 0, 0.625, 1]], dtype=np.float32))


def test_a_value_that_is_alone_or_tied_with_all_others_is_in_the_middle():
    np.testing.assert_array_equal(rank_values(np.array([[4.0], [0.0]]), axis="spot"), [[0.5], [0]])
    np.testing.assert_array_equal(rank_values(np.full((2, 3), 4.0), axis="spot"), np.full((2, 3), 0.5))


def test_zeros_that_are_stored_are_zeros():
    x = sparse.csr_matrix((np.array([0.0, 2.0, 5.0]), [0, 1, 2], [0, 3]), shape=(1, 4))
    np.testing.assert_allclose(rank_values(x, axis="spot").toarray(), [[0, 2 / 3, 1, 0]])
    assert x.nnz == 3


def test_a_slide_is_ranked_by_itself():
    x = counts()
    before = rank_values(x, axis="gene", slides=SLIDES)
    x[SLIDES == "B"] = counts(1)[SLIDES == "B"]
    after = rank_values(x, axis="gene", slides=SLIDES)
    np.testing.assert_array_equal(after[SLIDES == "A"], before[SLIDES == "A"])
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("axis", ["spot", "gene"])
def test_a_large_sparse_matrix_is_not_made_dense(axis: str):
    values, rows, columns = np.random.default_rng(0).integers(1, 20_000, (3, 40_000))
    x = sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=(20_000, 20_000))
    rank_values(x[:10], axis=axis)  # compiled before memory is counted
    tracemalloc.start()
    rank_values(x, axis=axis, slides=np.arange(20_000) % 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # 1.6 GB if dense


def test_the_slides_of_a_table_are_its_regions(cohort: SpatialData):
    table = cohort["table"]
    h2e.pp.rank_transform(table)
    expected = by_scipy(table.X.toarray(), "gene", table.obs["region"].to_numpy(str))
    np.testing.assert_allclose(table.layers["rank"].toarray(), expected, atol=1e-6)
    h2e.pp.rank_transform(table, library_key="donor")
    expected = by_scipy(table.X.toarray(), "gene", table.obs["donor"].to_numpy(str))
    np.testing.assert_allclose(table.layers["rank"].toarray(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("axis", ["spot", "gene"])
def test_genes_that_are_no_targets_are_zero_and_not_ranked_against(axis: str, kind: str):
    adata = ad.AnnData(CONTAINERS[kind](counts()))
    h2e.pp.rank_transform(adata, axis=axis, targets=["7", "2", "3"])
    expected = np.zeros(adata.shape, dtype=np.float32)
    expected[:, [2, 3, 7]] = by_scipy(counts()[:, [2, 3, 7]], axis, np.zeros(30))
    np.testing.assert_allclose(dense(adata.layers["rank"]), expected, atol=1e-6)
    assert type(adata.layers["rank"]) is type(adata.X)


def test_targets_that_were_selected_are_the_default():
    adata = ad.AnnData(counts())
    adata.var["h2e_target"] = np.isin(np.arange(12), [2, 3, 7])
    by_mark = h2e.pp.rank_transform(adata, axis="spot", copy=True)
    by_name = h2e.pp.rank_transform(adata, axis="spot", targets=["2", "3", "7"], copy=True)
    np.testing.assert_array_equal(by_mark.layers["rank"], by_name.layers["rank"])
    assert by_mark.uns["h2e"]["params"]["rank"] == {"axis": "spot", "layer": "X", "n_targets": 3}
    assert "rank" not in adata.layers


def test_a_layer_of_somebody_else_is_kept_and_one_of_ours_is_replaced():
    adata = ad.AnnData(counts(), layers={"rank": np.ones((30, 12)), "other": counts(1)})
    with pytest.raises(ValueError, match="there is no record of h2e"):
        h2e.pp.rank_transform(adata)
    np.testing.assert_array_equal(adata.layers["rank"], np.ones((30, 12)))
    h2e.pp.rank_transform(adata, overwrite=True)
    h2e.pp.rank_transform(adata, layer="other")
    np.testing.assert_array_equal(adata.layers["rank"], rank_values(counts(1), axis="gene"))


@pytest.mark.parametrize(
    ("change", "arguments", "error", "match"),
    [
        ({(0, 0): np.nan}, {}, ValueError, "adata.X holds 1 NaN"),
        ({(0, 0): -1}, {}, ValueError, "1 negative"),
        ({}, {"layer": "counts"}, KeyError, r"'counts' is not in adata.layers; it has \['raw'\]"),
        ({}, {"axis": "row"}, ValueError, "axis must be .*, got 'row'"),
        ({}, {"library_key": "slide"}, KeyError, "'slide' is not in table.obs"),
        ({}, {"targets": ["1", "gene"]}, KeyError, "'gene'"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(change: dict, arguments: dict, error: type, match: str):
    x = counts()
    for place, value in change.items():
        x[place] = value
    adata = ad.AnnData(x, layers={"raw": x})
    with pytest.raises(error, match=match):
        h2e.pp.rank_transform(adata, **arguments)
    assert set(adata.layers) - {None} == {"raw"}  # anndata 0.13 has X under None
    assert not adata.uns


def test_the_settings_of_a_prediction_are_no_layer_of_ours():
    adata = ad.AnnData(counts(), layers={"stack": counts()})
    adata.uns["h2e"] = {"params": {"stack": "mean"}}
    with pytest.raises(ValueError, match="there is no record of h2e"):
        h2e.pp.rank_transform(adata, key_added="stack")


def test_without_a_folder_for_compiled_code_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.dispatcher.Dispatcher.enable_caching", refuse)
    assert compiled(lambda x: x + 1)(2) == 3
