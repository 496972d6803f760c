"""Scores of stored predictions."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from h2e import metrics


@pytest.fixture
def adata():
    """Two slides of counts of four genes, with predictions of two of them."""
    rng = np.random.default_rng(5)
    names = [f"s{i}" for i in range(80)]
    adata = ad.AnnData(rng.poisson(5.0, (80, 4)).astype(np.float32), obs=pd.DataFrame(index=names))
    adata.var_names = ["a", "b", "c", "d"]
    adata.obs["slide"] = np.repeat(["A1", "B1"], 40)
    adata.obs["donor"] = np.repeat(["A", "B"], 40)
    adata.obsm["spatial"] = rng.random((80, 2))
    adata.obsm["h2e"] = pd.DataFrame(rng.random((80, 2)), index=names, columns=["d", "b"])
    return adata


def test_stored_predictions_are_scored_like_arrays(adata, caplog):
    adata.obsm["h2e"].iloc[5] = np.nan  # no tissue
    with caplog.at_level(logging.INFO):
        scores = metrics.score_adata(adata, library_key="slide", group_key="donor", metrics=["pearson", "moran_gap"])
    assert "1 of 80 spots have no prediction" in caplog.text
    rows = np.arange(80) != 5
    truth = np.log1p(adata.X / adata.X.sum(axis=1, keepdims=True) * 1e4)[:, [3, 1]]  # depth over all genes
    expected = metrics.score(
        adata.obsm["h2e"].to_numpy()[rows],
        truth[rows],
        slides=adata.obs["slide"][rows],
        groups=adata.obs["donor"][rows],
        xy=adata.obsm["spatial"][rows],
        metrics=["pearson", "moran_gap"],
    )
    np.testing.assert_allclose(scores["value"], expected["value"], rtol=1e-4)
    assert set(scores["target"]) == {"d", "b"}


def test_spots_of_the_training_are_refused_and_their_held_out_predictions_scored(adata):
    adata.obsm["h2e_loo"] = adata.obsm["h2e"].copy()
    adata.obsm["h2e"].iloc[:] = np.nan
    with pytest.raises(ValueError, match="trained on 80 of 80 spots; score key='h2e_loo'"):
        metrics.score_adata(adata, library_key="slide")
    assert len(metrics.score_adata(adata, key="h2e_loo", library_key="slide", metrics="pearson")) == 4
    adata.obsm["h2e"] = adata.obsm["h2e_loo"] * 1.0  # in_sample=True
    with pytest.raises(ValueError, match="trained on 80 of 80 spots"):
        metrics.score_adata(adata, library_key="slide")
    adata.obsm["h2e_loo"].iloc[:] = np.nan
    metrics.score_adata(adata, library_key="slide")  # nothing was trained on
    adata.obsm["h2e"].iloc[:] = np.nan
    with pytest.raises(ValueError, match=r"obsm\['h2e'\] must have .* all 80 rows are NaN"):
        metrics.score_adata(adata, library_key="slide")


def test_new_spots_beside_training_spots_are_scored(adata):
    adata.obsm["h2e_loo"] = adata.obsm["h2e"].copy()
    adata.obsm["h2e"].iloc[:40] = np.nan
    adata.obsm["h2e_loo"].iloc[40:] = np.nan
    assert set(metrics.score_adata(adata, library_key="slide", metrics="pearson")["slide"]) == {"B1"}


def test_targets_whose_names_cannot_be_stored_are_found(adata):
    adata.var_names = ["a", "b", "c", "HLA/d"]
    adata.obsm["h2e"].columns = ["HLA_d", "b"]
    genes = metrics.score_adata(adata, library_key="slide", metrics="pearson")
    adata.obsm["cells"] = pd.DataFrame(adata.X[:, [3, 1]], index=adata.obs_names, columns=["HLA/d", "b"])
    cells = metrics.score_adata(adata, obsm="cells", library_key="slide", metrics="pearson")
    for scores in (genes, cells):
        assert scores["target"].tolist() == ["HLA_d", "b"] * 2
    rows = adata.obs["slide"] == "A1"
    expected = np.corrcoef(adata.obsm["h2e"]["HLA_d"][rows], adata.X[rows, 3])[0, 1]
    assert cells["value"][0] == pytest.approx(expected)


def test_proportions_in_obsm_are_a_truth_too(adata):
    adata.obsm["proportions"] = adata.obsm["h2e"] * 2
    scores = metrics.score_adata(adata, obsm="proportions", library_key="slide", metrics="pearson")
    np.testing.assert_allclose(scores["value"], 1)


def test_what_is_missing_is_named(adata):
    with pytest.raises(KeyError, match=r"'pred' is not in adata.obsm; it has .*\. Run h2e.tl.predict first\."):
        metrics.score_adata(adata, key="pred")
    with pytest.raises(TypeError, match="ndarray without names"):
        metrics.score_adata(adata, key="spatial")
    with pytest.raises(KeyError, match=r"'cells' is not in adata.obsm; it has \[.*\]\.\W*$"):
        metrics.score_adata(adata, obsm="cells")
    with pytest.raises(KeyError, match="1 targets are not in adata.var_names"):
        metrics.score_adata(adata[:, ["a", "b", "c"]].copy())
    adata.obsm["h2e"].iloc[:] = np.nan
    with pytest.raises(ValueError, match="all 80 rows are NaN"):
        metrics.score_adata(adata)


def test_a_gene_that_is_there_twice_is_no_truth(adata):
    adata.var_names = ["d", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"adata.var_names: 1 names occur more than once, such as \['d'\]"):
        metrics.score_adata(adata, library_key="slide", metrics="pearson")
    adata.var_names = ["c", "b", "c", "d"]  # of those that are not predicted, nothing is asked
    assert set(metrics.score_adata(adata, library_key="slide", metrics="pearson")["target"]) == {"b", "d"}


def test_spots_without_a_measured_value_are_left_out_and_counted(adata, caplog):
    adata.obsm["cells"] = adata.obsm["h2e"] * 2 + 1
    adata.obsm["cells"].iloc[::5, 1] = np.nan
    scores = metrics.score_adata(adata, obsm="cells", library_key="slide", metrics="pearson")
    assert "16 of 80 spots have no measured value of some target" in caplog.text
    np.testing.assert_allclose(scores["value"], 1)
    assert set(scores["n_spots"]) == {32}


def test_columns_of_obs_are_a_truth_where_the_record_or_the_names_say_so(adata):
    truth = pd.DataFrame({"x": np.arange(80.0), "a": np.arange(80.0) ** 2}, index=adata.obs_names)
    adata.obs[["x", "a"]], adata.obsm["h2e"] = truth, truth * 2
    adata.obs.loc[adata.obs_names[3], "x"] = np.nan
    with pytest.raises(ValueError, match=r"got genes \['a'\] and columns \['x', 'a'\]"):
        metrics.score_adata(adata, library_key="slide")  # a gene is called so, too
    adata.uns["h2e"] = {"unit": "as in obs"}
    scores = metrics.score_adata(adata, library_key="slide", metrics="pearson")
    np.testing.assert_allclose(scores["value"], 1)
    adata.uns["h2e"], adata.obsm["h2e"] = {"unit": "log-normalized expression"}, truth[["a"]]
    assert metrics.score_adata(adata, library_key="slide", metrics="pearson")["value"].abs().max() < 0.9


def test_antibodies_do_not_count_in_the_total(adata):
    expected = metrics.score_adata(adata, library_key="slide", metrics="pearson")
    proteins = ad.AnnData(np.random.default_rng(0).poisson(500.0, (80, 2)).astype(np.float32), obs=adata.obs)
    proteins.var_names = ["p", "q"]
    both = ad.concat([adata, proteins], axis="var", merge="first")
    both.var["feature_types"] = ["Gene Expression"] * 4 + ["Antibody Capture"] * 2
    both.obsm["h2e"] = adata.obsm["h2e"]
    pd.testing.assert_frame_equal(metrics.score_adata(both, library_key="slide", metrics="pearson"), expected)
