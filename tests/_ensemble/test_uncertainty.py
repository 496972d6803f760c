from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import h2e
from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.novelty import fit_novelty
from h2e._learners.texture import Texture
from h2e._slide.tiles import View
from h2e.metrics import residual_quantile

TARGETS = ["TOY01", "TOY02", "TOY03"]
TEXTURE, KNN = (Texture(head=head, views=(View(2, 32),)) for head in ("ridge", "knn"))


@pytest.fixture(scope="module")
def fitted(cohort_source):
    return h2e.tl.fit(cohort_source, learners=[TEXTURE, KNN], targets=TARGETS, group_key="donor", progress=False)


def test_intervals_are_as_wide_as_the_held_out_errors(fitted: Ensemble, new):
    h2e.tl.predict(new, fitted, interval=0.8, progress=False)
    table = new["table"]
    width = (table.obsm["h2e_upper"] - table.obsm["h2e"]).dropna()
    errors = (fitted.loo - fitted.truth).to_numpy()
    expected = residual_quantile(errors, fitted.training["group"].to_numpy(), level=0.8)
    np.testing.assert_allclose(width, np.tile(expected, (len(width), 1)), rtol=1e-4)
    lower = (table.obsm["h2e"] - expected).clip(lower=0)  # expression is not negative
    np.testing.assert_allclose(table.obsm["h2e_lower"], lower, rtol=1e-4, atol=1e-6)
    assert table.uns["h2e"]["settings"]["interval"] == 0.8
    assert table.uns["h2e"]["settings"]["n_calibration_groups"] == 3


def test_intervals_hold_about_what_they_should_on_donors_like_those_of_training(fitted: Ensemble, new):
    h2e.tl.predict(new, fitted, interval=0.9, progress=False)
    table = new["table"]
    from h2e._sdata.expression import expression

    truth = expression(table, layer=None, log_normalized=False)[:, table.var_names.get_indexer(TARGETS)].toarray()
    there = table.obsm["h2e"].notna().all(axis=1).to_numpy()
    inside = h2e.metrics.coverage(
        table.obsm["h2e_lower"].to_numpy()[there], table.obsm["h2e_upper"].to_numpy()[there], truth[there]
    )
    assert (inside > 0.7).all()


@pytest.mark.parametrize("interval", [0, 1, 90])
def test_a_share_is_asked_for(fitted: Ensemble, new, interval: float):
    with pytest.raises(ValueError, match="interval must be between 0 and 1"):
        h2e.tl.predict(new, fitted, interval=interval, progress=False)
    assert "h2e" not in new["table"].obsm


def test_a_stack_that_saw_all_of_its_training_spots_has_no_intervals(cohort_source, new):
    options = {"targets": TARGETS, "group_key": "donor", "progress": False, "stack": "in_sample"}
    ensemble = h2e.tl.fit(cohort_source, learners=TEXTURE, **options)
    h2e.tl.predict(new, ensemble, progress=False)
    assert "h2e_std" in new["table"].obsm
    assert not {"h2e_lower", "h2e_upper"} & set(new["table"].obsm)


def test_evaluate_measures_coverage_with_widths_of_the_other_groups(cohort_source):
    options = {"learners": TEXTURE, "targets": TARGETS, "baselines": "mean", "group_key": "donor", "progress": False}
    scores = h2e.tl.evaluate(cohort_source, **options, metrics="pearson")
    cover = scores[scores["metric"].isin(["coverage_80", "coverage_90"])]
    assert set(cover["method"]) == {"ensemble"}
    assert cover["value"].between(0, 1).all()
    wide = cover.pivot_table(index=["slide", "target"], columns="metric", values="value")
    assert (wide["coverage_90"] >= wide["coverage_80"]).all()
    widths = scores[scores["metric"] == "width_80"].set_index(["slide", "target"])["value"]
    assert (widths > 0).all()


def test_targets_whose_held_out_predictions_are_worse_than_the_mean_are_on_record(fitted: Ensemble, new):
    truth, loo = fitted.truth, fitted.loo.to_numpy()
    groups, expected = fitted.training["group"].to_numpy(str), []
    for name in np.unique(groups):
        own, others = (
            groups == name,
            [truth[groups == other].mean(axis=0) for other in np.unique(groups) if other != name],
        )
        expected.append(h2e.metrics.skill(loo[own], truth[own], np.mean(others, axis=0)))
    skill = fitted.held_out_skill()
    np.testing.assert_allclose(skill, np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)
    worse = replace(fitted, loo=-fitted.loo)
    h2e.tl.predict(new, worse, progress=False)
    assert list(new["table"].uns["h2e"]["skill_below_0"]) == list(
        worse.held_out_skill().index[worse.held_out_skill() < 0]
    )
    assert len(new["table"].uns["h2e"]["skill_below_0"])


@pytest.mark.filterwarnings("ignore:these slides do not have the colours of an H&E")
@pytest.mark.filterwarnings("ignore:these slides look like none that the ensemble")
def test_novelty_rises_with_another_stain_and_is_about_zero_on_slides_alike(fitted: Ensemble, new):
    h2e.tl.predict(new, fitted, progress=False)
    alike = new["table"].obs["h2e_novelty"].copy()
    for key in [key for key in new.images if not key.endswith("_normalized")]:
        for scale in new.images[key].children.values():
            level = scale["image"]
            level.data = 255 - (255 - level.data) // 2  # pale
            level.data = level.data[[2, 1, 0]]  # red and blue change places
    h2e.tl.predict(new, fitted, progress=False)
    foreign = new["table"].obs["h2e_novelty"]
    assert abs(alike.median()) < 0.6
    assert foreign.median() > alike.median() + 1
    assert alike.isna().equals(new["table"].obsm["h2e"].isna().all(axis=1))


def test_novelty_is_the_distance_to_the_nearest_over_the_typical_one():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(90, 3)) * (1, 10, 100), np.repeat(list("ABC"), 30)
    novelty = fit_novelty("texture", x, groups)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    query = rng.normal(size=(7, 3)) * (1, 10, 100)
    near = NearestNeighbors(n_neighbors=5).fit(z).kneighbors((query - x.mean(axis=0)) / x.std(axis=0))[0].mean(axis=1)
    between = [
        np.median(NearestNeighbors(n_neighbors=5).fit(z[groups != g]).kneighbors(z[groups == g])[0].mean(axis=1))
        for g in "ABC"
    ]
    np.testing.assert_allclose(novelty.of(query), np.log2(near / np.mean(between)), rtol=1e-4)


def test_tiles_are_told_apart_by_their_texture():
    rng = np.random.default_rng(0)
    tiles = rng.integers(100, 200, (30, 3, 26, 26), dtype=np.uint8)
    novelty = fit_novelty("multiscale", tiles, np.repeat(["A", "B"], 15))
    assert novelty.of(tiles // 4).min() > novelty.of(tiles).max() + 1


def test_the_spread_counts_flips_within_models_and_differences_between_them(fitted: Ensemble):
    from h2e._ensemble.ensemble import _std

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(8, 5, 2)), rng.normal(size=(8, 5, 2)) + 3
    np.testing.assert_allclose(_std([one, two]), np.concatenate([one, two]).std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(_std([one[:1], two[:1]]), np.concatenate([one[:1], two[:1]]).std(axis=0), rtol=1e-5)


def test_errors_of_learners_are_correlated_within_slides(fitted: Ensemble):
    found = fitted.error_correlation()
    assert list(found) == ["texture", "knn"]
    np.testing.assert_allclose(np.diag(found), 1)
    slides = fitted.training["slide"].to_numpy()
    errors = fitted.held_out - fitted.truth
    expected = [
        np.corrcoef(errors[0, slides == s, t], errors[1, slides == s, t])[0, 1]
        for s in np.unique(slides)
        for t in range(3)
    ]
    assert found.loc["texture", "knn"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_all_of_it_survives_the_file(fitted: Ensemble, new, tmp_path):
    fitted.save(tmp_path / "ensemble")
    loaded = Ensemble.load(tmp_path / "ensemble")
    h2e.tl.predict(new, fitted, progress=False)
    first = new["table"].copy()
    h2e.tl.predict(new, loaded, progress=False)
    for key in ("h2e", "h2e_std", "h2e_lower", "h2e_upper"):
        pd.testing.assert_frame_equal(new["table"].obsm[key], first.obsm[key])
    pd.testing.assert_series_equal(new["table"].obs["h2e_novelty"], first.obs["h2e_novelty"])
    pd.testing.assert_frame_equal(loaded.error_correlation(), fitted.error_correlation())
