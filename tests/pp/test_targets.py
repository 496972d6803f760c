"""Laws of targets: chosen on what is given, by spatial variation; named ones checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

import h2e.pp
from h2e._sdata.expression import expression, positions_of
from h2e._sdata.selection import choose_targets, neighbours_of
from h2e._sdata.targets import measured, resolve_targets, storable_names
from h2e._statistics import morans_i

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@pytest.fixture
def table(cohort: SpatialData) -> AnnData:
    return cohort["table"]


def chosen(table: AnnData) -> set[str]:
    return set(table.var_names[table.var["h2e_target"]])


def moran_by_hand(x: np.ndarray, xy: np.ndarray, reach: float) -> np.ndarray:
    distance = cdist(xy, xy)
    weights = ((distance > 0) & (distance < reach)).astype(float)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    z = x - x.mean(axis=0)
    return len(x) / weights.sum() * np.einsum("ig,ij,jg->g", z, weights, z) / (z**2).sum(axis=0)


def hexagonal(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side].reshape(2, -1)
    return np.column_stack([x + (y % 2) / 2, y * np.sqrt(3) / 2])


def square(side: int) -> np.ndarray:
    return np.mgrid[:side, :side].reshape(2, -1).T.astype(float)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("layout", [hexagonal, square])
def test_morans_i_is_its_formula_over_the_next_spots(layout: callable, kind: callable):
    rng = np.random.default_rng(0)
    xy = layout(9)[rng.random(81) < 0.8]
    x = rng.poisson(1 + 3 * (xy[:, :1] > 4), (len(xy), 5)).astype(float)
    np.testing.assert_allclose(morans_i(kind(x), neighbours_of(290 * xy)), moran_by_hand(x, xy, 1.55))


def test_morans_i_is_squidpys(table: AnnData):
    import squidpy as sq

    slide = table[table.obs["region"] == table.obs["region"].iloc[0]]
    x, neighbours = expression(slide), neighbours_of(positions_of(slide, np.zeros(len(slide))))
    copy = ad.AnnData(x, obsp={"spatial_connectivities": neighbours})
    frame = sq.gr.spatial_autocorr(copy, mode="moran", n_perms=None, corr_method=None, copy=True)
    np.testing.assert_allclose(morans_i(x, neighbours), frame["I"].reindex(copy.var_names), atol=1e-7)


def test_morans_i_does_not_depend_on_the_order_of_spots_and_is_zero_for_a_constant():
    rng = np.random.default_rng(0)
    xy, x, order = square(8), rng.random((64, 4)), rng.permutation(64)
    x[:, 2] = 3
    found = morans_i(x, neighbours_of(xy))
    np.testing.assert_allclose(found, morans_i(x[order], neighbours_of(xy[order])), atol=1e-12)
    assert found[2] == 0
    assert neighbours_of(xy[:2]) is None


def test_planted_genes_are_found_before_noise(table: AnnData):
    h2e.pp.select_targets(table, group_key="donor", n_targets=35)
    assert table.var["planted"][table.var["h2e_target"]].sum() >= 33  # two are too rare to show
    h2e.pp.select_targets(table, group_key="donor", n_targets=30)
    assert table.var["planted"][table.var["h2e_target"]].all()
    assert table.var["h2e_target"].sum() == 30


@pytest.mark.parametrize(
    "harm", [lambda x: x[::-1], lambda x: 0 * x, lambda x: x[:, ::-1]], ids=["flip", "zero", "swap"]
)
def test_spots_of_other_groups_cannot_reach_the_choice(table: AnnData, harm: callable):
    arguments = {"group_key": "donor", "groups": ["A", "C"], "n_targets": 12}
    before = chosen(h2e.pp.select_targets(table, copy=True, **arguments))
    changed = table.copy()
    x, rows = changed.X.toarray(), (changed.obs["donor"] == "B").to_numpy()
    x[rows] = harm(x[rows])
    changed.X = sparse.csr_matrix(x)
    assert chosen(h2e.pp.select_targets(changed, copy=True, **arguments)) == before
    rest = table[~rows].copy()
    assert chosen(h2e.pp.select_targets(rest, copy=True, group_key="donor", n_targets=12)) == before


def test_a_group_that_is_asked_for_does_reach_the_choice(table: AnnData):
    arguments = {"group_key": "donor", "groups": ["B"], "n_targets": 12}
    before = chosen(h2e.pp.select_targets(table, copy=True, **arguments))
    x, rows = table.X.toarray(), (table.obs["donor"] == "B").to_numpy()
    x[rows] = x[rows][:, ::-1]
    table.X = sparse.csr_matrix(x)
    assert chosen(h2e.pp.select_targets(table, copy=True, **arguments)) != before


def test_slides_weigh_the_same_within_a_group_and_groups_the_same(table: AnnData):
    x, regions = expression(table).toarray(), table.obs["region"].to_numpy(str)
    donors, xy = table.obs["donor"].to_numpy(str), table.obs[["array_col", "array_row"]].to_numpy(float)
    score = {s: moran_by_hand(x[regions == s], xy[regions == s], 1.55) for s in set(regions)}
    assert set(score) == {"toy_A1", "toy_A2", "toy_B1", "toy_C1"}
    mean = ((score["toy_A1"] + score["toy_A2"]) / 2 + score["toy_B1"] + score["toy_C1"]) / 3
    expected = table.var_names[np.argsort(-mean)[:15]].tolist()
    given = {"genes": table.var_names, "slides": regions, "groups": donors, "n_targets": 15}
    assert choose_targets(sparse.csr_matrix(x), xy, **given) == expected
    pooled = table.var_names[np.argsort(-np.mean(list(score.values()), axis=0))[:15]].tolist()
    assert pooled != expected  # else this test could not tell


def test_the_choice_does_not_depend_on_the_order_of_spots_or_genes(table: AnnData):
    before = h2e.pp.select_targets(table, copy=True, n_targets=12)
    rng = np.random.default_rng(0)
    mixed = table[rng.permutation(table.n_obs), rng.permutation(table.n_vars)].copy()
    h2e.pp.select_targets(mixed, n_targets=12)
    assert chosen(mixed) == chosen(before)


def test_a_gene_that_one_group_does_not_express_is_never_chosen(table: AnnData):
    arguments = {"group_key": "donor", "groups": ["A", "C"], "n_targets": 1}
    (best,) = chosen(h2e.pp.select_targets(table, copy=True, **arguments))
    x = table.X.toarray()
    x[np.ix_(table.obs["donor"] == "B", table.var_names == best)] = 0
    table.X = sparse.csr_matrix(x)
    h2e.pp.select_targets(table, group_key="donor", n_targets=40)
    assert best not in chosen(table)
    h2e.pp.select_targets(table, **arguments)
    assert chosen(table) == {best}


def test_mitochondrial_and_ribosomal_genes_are_left_out_unless_asked_for(table: AnnData):
    h2e.pp.select_targets(table, n_targets=6)
    names = ["MT-CO1", "RPL13A", "mt-Nd4", "Rps4x", "MRPL12", "RPLP0"]
    kinases = [f"RPS6KA{i}" for i in range(54)]  # named like ribosomal proteins
    best_first = np.argsort(~table.var["h2e_target"].to_numpy(), kind="stable")
    table = table[:, best_first].copy()
    table.var_names = names + kinases
    h2e.pp.select_targets(table, n_targets=20)
    assert not chosen(table) & set(names)
    h2e.pp.select_targets(table, n_targets=6, exclude=None)
    assert chosen(table) == set(names)


def test_the_rows_of_a_visium_array_are_as_far_apart_as_its_columns():
    row, column = np.mgrid[:6, :6].reshape(2, -1)
    obs = pd.DataFrame({"array_row": row, "array_col": 2 * column + row % 2}, index=[f"spot{i}" for i in range(36)])
    xy = positions_of(ad.AnnData(obs=obs.assign(in_tissue=1)), np.zeros(36))
    nearest = np.sort(cdist(xy, xy), axis=1)[:, 1]
    np.testing.assert_allclose(nearest, 2)
    middle = cdist(xy, xy)[14]
    assert ((middle > 0) & (middle < 2.1)).sum() == 6


def test_rows_that_alternate_are_not_taken_for_visium():
    # The array of Spatial Transcriptomics with 2,000 spots: every other place of 66 columns and 63 rows.
    row, column = np.mgrid[:63, :66].reshape(2, -1)
    used = (row + column) % 2 == 0
    obs = pd.DataFrame({"array_row": row[used], "array_col": column[used]})
    obs.index = [f"spot{i}" for i in range(len(obs))]
    xy = positions_of(ad.AnnData(obs=obs), np.zeros(len(obs)))
    np.testing.assert_array_equal(xy, obs[["array_col", "array_row"]])


@pytest.mark.parametrize(
    ("harm", "arguments", "error", "match"),
    [
        (lambda t: None, {"n_targets": 61}, ValueError, "n_targets=61 genes were asked for, .* of 60"),
        (lambda t: None, {"min_frac": 1.1}, ValueError, "lower n_targets, or name the genes"),
        (lambda t: None, {"layer": "raw"}, KeyError, "'raw' is not in adata.layers"),
        (lambda t: None, {"group_key": "donor", "groups": ["A", "Z"]}, KeyError, r"'Z'.*'A', 'B', 'C'"),
        (lambda t: None, {"groups": []}, KeyError, "the table has"),
        (lambda t: t.X.data.__setitem__(0, np.nan), {}, ValueError, "NaN"),
        (lambda t: t.X.data.__setitem__(0, -1), {}, ValueError, "negative"),
        (lambda t: t.X.data.__setitem__(0, 0.5), {}, ValueError, "no counts"),
        (lambda t: t.obs.drop(columns="array_row", inplace=True), {}, KeyError, "no positions"),
        (lambda t: setattr(t.var, "index", ["G"] * t.n_vars), {}, ValueError, "more than once"),
    ],
    ids=[
        "too_many",
        "never_detected",
        "layer",
        "group",
        "no_group",
        "nan",
        "negative",
        "no_counts",
        "no_positions",
        "duplicates",
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    table: AnnData, harm: callable, arguments: dict, error: type, match: str
):
    table.X = table.X.astype(np.float32)
    harm(table)
    with pytest.raises(error, match=match):
        h2e.pp.select_targets(table, **arguments)
    assert "h2e_target" not in table.var


def test_a_group_whose_spots_have_no_neighbours_is_named():
    given = {"genes": ["g"], "slides": list("AAAABB"), "groups": list("AAAABB"), "n_targets": 1}
    with pytest.raises(ValueError, match="group 'B' must have a slide with neighbouring spots"):
        choose_targets(np.random.default_rng(0).random((6, 1)), np.arange(12.0).reshape(6, 2), **given)


def test_a_missing_gene_is_named_beside_those_spelled_like_it(table: AnnData):
    with pytest.raises(
        KeyError,
        match=r"2 targets are not in adata.var_names \(60 names\): 'toy1' \(close: TOY51, TOY41, TOY31\), 'ERBB2'",
    ):
        resolve_targets(table, ["TOY02", "toy1", "ERBB2"])
    with pytest.raises(ValueError, match="occur more than once"):
        resolve_targets(table, ["TOY02", "TOY02"])
    with pytest.raises(ValueError, match="targets must name at least one"):
        resolve_targets(table, [])
    with pytest.raises(KeyError, match=r"run h2e.pp.select_targets"):
        resolve_targets(table)


def test_targets_keep_the_order_that_they_were_asked_in(table: AnnData):
    frame = measured(table, ["TOY09", "TOY02"])
    assert frame.columns.tolist() == ["TOY09", "TOY02"]
    np.testing.assert_array_equal(frame["TOY02"], expression(table)[:, 1].toarray().ravel())
    assert (frame.dtypes == np.float32).all()
    h2e.pp.select_targets(table, n_targets=5)
    assert set(resolve_targets(table)) == chosen(table)


def test_proportions_are_targets_as_they_are(table: AnnData):
    proportions = table.obsm["proportions"]
    np.testing.assert_allclose(measured(table, obsm="proportions"), proportions, rtol=1e-6)
    assert measured(table, "toy_gland", obsm="proportions").columns.tolist() == ["toy_gland"]
    with pytest.raises(KeyError, match=r"close: toy_gland"):
        resolve_targets(table, ["toy_glan"], obsm="proportions")
    with pytest.raises(KeyError, match=r"'types' is not in adata.obsm"):
        resolve_targets(table, obsm="types")
    table.obsm["array"] = proportions.to_numpy()
    with pytest.raises(TypeError, match="ndarray without names"):
        resolve_targets(table, obsm="array")
    proportions.iloc[2:4, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in 2 of"):
        measured(table, obsm="proportions")


def test_a_slash_in_a_name_is_replaced_with_a_warning_and_never_merges_two_targets():
    with pytest.warns(UserWarning, match=r"replaced by '_' in \['T/NK'\]"):
        assert storable_names(["T/NK", "B"]) == ["T_NK", "B"]
    with (
        pytest.warns(UserWarning, match="cannot be stored"),
        pytest.raises(ValueError, match="'/' counts as '_'"),
    ):
        storable_names(["T/NK", "T_NK"])


def test_a_column_of_somebody_else_is_kept_and_how_targets_were_chosen_is_noted(table: AnnData):
    table.var["mine"] = "x"
    with pytest.raises(ValueError, match=r"adata.var\['mine'\] is there, and there is no record"):
        h2e.pp.select_targets(table, n_targets=3, key_added="mine")
    assert set(table.var["mine"]) == {"x"}
    h2e.pp.select_targets(table, n_targets=3, key_added="mine", overwrite=True, group_key="donor", groups=["B", "A"])
    h2e.pp.select_targets(table, n_targets=4, key_added="mine", exclude=None, group_key="donor", groups="C")  # its own
    noted = {"function": "select_targets", "n_targets": 4, "groups": ["C"], "min_frac": 0.1, "exclude": ""}
    slides = sorted(set(table.obs["region"][table.obs["donor"] == "C"]))
    noted |= {"library_key": "region", "slides": slides}
    assert table.uns["h2e"]["params"]["mine"] == noted
    assert table.var["mine"].sum() == 4


def test_genes_that_are_named_by_identifiers_are_excluded_by_their_symbols(
    table: AnnData, caplog: pytest.LogCaptureFixture
):
    h2e.pp.select_targets(table, n_targets=10)
    first, second = sorted(chosen(table))[:2]
    symbols = {first: "MT-CO1", second: "RPL3"}
    table.var["gene_name"] = [symbols.get(name, name) for name in table.var_names]
    row = {name: i for i, name in enumerate(table.var_names)}
    table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
    h2e.pp.select_targets(table, n_targets=10)
    assert not table.var["h2e_target"].iloc[[row[first], row[second]]].any()
    assert "Ensembl" not in caplog.text
    del table.var["gene_name"]
    h2e.pp.select_targets(table, n_targets=10)
    assert table.var["h2e_target"].iloc[[row[first], row[second]]].all()
    assert "genes are named by Ensembl identifiers, and var has none of the columns" in caplog.text


@pytest.mark.parametrize("n_targets", [0, -3, 2.5, None])
def test_a_number_of_targets_is_a_positive_whole_number(table: AnnData, n_targets: object):
    with pytest.raises(ValueError, match="n_targets must be a positive whole number"):
        h2e.pp.select_targets(table, n_targets=n_targets)


def test_a_table_without_genes_has_no_targets(table: AnnData):
    with pytest.raises(ValueError, match="the table has no genes to choose targets from"):
        h2e.pp.select_targets(table[:, :0].copy())


def test_a_spatialdata_in_place_of_its_table_is_told(cohort: SpatialData):
    for function in (h2e.pp.select_targets, h2e.pp.rank_transform):
        with pytest.raises(
            TypeError, match=r"adata must be an AnnData, got SpatialData; pass the table, sdata\['table'\]"
        ):
            function(cohort)
