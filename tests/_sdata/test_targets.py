"""Targets from anywhere: genes, columns of obs, frames in obsm; with gaps, or refused by name."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import h2e
from h2e._sdata.cohort import open_cohort
from h2e._sdata.keys import Keys
from h2e._sdata.target_spec import TargetSpec
from h2e._sdata.targets import measured

RIGHT = {
    "float": lambda n: np.linspace(-1, 1, n),
    "float32": lambda n: np.linspace(0, 9, n, dtype=np.float32),
    "integer": lambda n: np.arange(n),
    "nullable": lambda n: pd.array(np.arange(n), dtype="Int64"),
    "objects": lambda n: np.arange(n).astype(object),
    "yes and no": lambda n: np.arange(n) % 2 == 0,
}
WRONG = {
    "category": lambda n: pd.Categorical(["a", "b"] * (n // 2)),
    "category of numbers": lambda n: pd.Categorical([1, 2] * (n // 2)),
    "text": lambda n: ["a", "b"] * (n // 2),
    "text of numbers": lambda n: ["1", "2"] * (n // 2),
    "dates": lambda n: pd.date_range("2020-01-01", periods=n),
}


def spec_of(sdata, targets=None, obsm=None) -> TargetSpec:
    return TargetSpec(open_cohort(sdata, Keys(group_key="donor")), targets, 5, obsm, None, log_normalized=False)


@pytest.mark.parametrize("values", RIGHT.values(), ids=RIGHT)
def test_a_column_of_numbers_is_a_target_in_obs_and_obsm(cohort, values):
    table = cohort["table"]
    table.obs["score"] = values(table.n_obs)
    expected = np.asarray(values(table.n_obs), dtype=np.float32)
    np.testing.assert_array_equal(measured(table, ["score"])["score"], expected)
    np.testing.assert_array_equal(measured(table, "score")["score"], expected)
    table.obsm["mine"] = table.obs[["score"]]
    np.testing.assert_array_equal(measured(table, obsm="mine")["score"], expected)


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_what_is_no_number_is_refused_by_the_name_of_its_column(cohort, values):
    table = cohort["table"]
    table.obs["kind"] = values(table.n_obs)
    table.obsm["mine"] = table.obs[["kind"]].assign(score=1.0)
    with pytest.raises(ValueError, match=r"column 'kind' of adata.obs must hold numbers"):
        measured(table, ["kind"])
    with pytest.raises(ValueError, match=r"column 'kind' of adata.obsm\['mine'\] must hold numbers"):
        measured(table, obsm="mine")
    assert measured(table, ["score"], obsm="mine").shape == (table.n_obs, 1)


def test_targets_are_of_one_kind_and_one_name(cohort):
    table = cohort["table"]
    table.obs["score"], table.obs["TOY02"] = 0.5, 0.5
    match = r"must be genes or columns of adata.obs, got genes \['TOY02'\] and columns \['TOY02'\]"
    with pytest.raises(ValueError, match=match):
        measured(table, ["TOY02"])
    with pytest.raises(ValueError, match=r"got genes \['TOY01'\] and columns \['score'\]"):
        measured(table, ["TOY01", "score"])
    assert measured(table, ["TOY01"]).columns.tolist() == ["TOY01"]  # a name that was not asked for does no harm
    with pytest.raises(KeyError, match=r"1 targets are not in adata.obs .*'scor' \(close: score\)"):
        measured(table, ["score", "scor"])
    with pytest.raises(KeyError, match=r"'nothing', nor are they columns of adata.obs"):
        measured(table, ["nothing"])


@pytest.mark.parametrize("place", ["obs", "obsm"])
def test_spots_without_a_value_are_left_out_and_counted(cohort, caplog, place: str):
    table = cohort["table"]
    frame = table.obsm["proportions"].rename(columns=str).copy()
    frame.iloc[::9, 0] = np.nan
    frame.loc[table.obs["region"].to_numpy() == "toy_B1", frame.columns[1]] = np.nan
    names = list(frame.columns)
    if place == "obs":
        table.obs[names] = frame
    else:
        table.obsm["mine"] = frame
    spec = spec_of(cohort, names, None if place == "obs" else "mine")
    with caplog.at_level(logging.WARNING):
        kept = spec.with_values()
    assert kept.unit == ("as in obs" if place == "obs" else "as in obsm['mine']")
    gap = frame.isna().any(axis=1).to_numpy()[spec.cohort.rows]
    np.testing.assert_array_equal(kept.cohort.rows, spec.cohort.rows[~gap])
    assert [slide.name for slide in kept.cohort.slides] == ["toy_A1", "toy_A2", "toy_C1"]
    assert f"{gap.sum()} of {len(gap)} spots on tissue have no value of some target" in caplog.text
    assert "'toy_B1': " in caplog.text
    assert np.isfinite(kept.measured(np.arange(len(kept.cohort.rows)))).all(axis=None)


def test_a_target_without_any_value_is_refused_by_name(cohort):
    cohort["table"].obsm["mine"] = cohort["table"].obsm["proportions"].assign(lost=np.nan)
    with pytest.raises(ValueError, match=r"most of 'lost'.*name targets with values"):
        spec_of(cohort, obsm="mine").with_values()


def absent(sdata, *genes: str) -> list[str]:
    return spec_of(sdata, list(genes)).absent(list(genes))


def test_a_gene_that_a_panel_lacks_is_told_with_its_slide(cohort):
    table, common = cohort["table"], ["TOY05", "TOY12"]
    assert absent(cohort, *table.var_names) == []
    x = table.X.toarray()
    of_donor = table.obs["donor"].to_numpy() == "A"
    x[np.ix_(of_donor, table.var_names.isin(common[:1]))] = 0
    table.X = x
    found = absent(cohort, *common)
    assert len(found) == 2
    assert found[0].startswith("'TOY05' on 'toy_A1' (0 of ")
    assert found[1].startswith("'TOY05' on 'toy_A2' (0 of ")


def test_rare_genes_and_shallow_slides_are_no_alarm(cohort):
    table, rng = cohort["table"], np.random.default_rng(0)
    x = table.X.toarray()
    slide = table.obs["region"].to_numpy() == "toy_B1"
    x[:, :8] = rng.random((len(x), 8)) < 0.03  # in two spots of a slide
    x[slide, :4] = 0
    x[slide, 8:] = rng.binomial(x[slide, 8:].astype(int), 0.02)
    table.X = x
    assert absent(cohort, *table.var_names) == []


def test_what_h2e_predicted_is_no_measurement(few):
    options = {"learners": "mean", "group_key": "donor", "progress": False}
    ensemble = h2e.tl.fit(few, targets=["TOY01"], **options)
    h2e.tl.predict(few, ensemble, in_sample=True, progress=False)
    for key in ("h2e", "h2e_loo", "h2e_std"):
        with pytest.raises(ValueError, match=f"targets must be measured, and '{key}' was predicted by h2e"):
            h2e.tl.evaluate(few, obsm=key, **options)
    with pytest.raises(ValueError, match="'h2e_novelty' was predicted by h2e"):
        h2e.tl.fit(few, targets="h2e_novelty", **options)
    h2e.metrics.score_adata(few["table"], key="h2e_loo", metrics="pearson")


def test_targets_are_names_and_may_be_read_once_only(few):
    options = {"learners": "mean", "group_key": "donor", "progress": False}
    assert h2e.tl.fit(few, targets=map(str.upper, ["toy01", "toy02"]), **options).targets == ("TOY01", "TOY02")
    for wrong in (few["table"].var["planted"], 5):
        with pytest.raises(TypeError, match=r"targets must be names, got \[.*pass adata.var_names\[mask\]"):
            h2e.tl.fit(few, targets=wrong, **options)
