"""Tables of scores, their aggregation over slides, donors and targets, intervals and comparisons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from h2e import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def cohort(rng):
    """Three slides of two donors, two targets; the second target is constant on slide B1."""
    slides = np.repeat(["A1", "A2", "B1"], [40, 60, 50])
    truth = pd.DataFrame(rng.gamma(1.0, size=(150, 2)), columns=["g", "h"])
    truth.loc[slides == "B1", "h"] = 0.0
    prediction = truth + rng.normal(size=truth.shape)
    return prediction, truth, slides, np.array([slide[0] for slide in slides])


def tidy(values, **columns):
    """Scores with one target ``g`` and one slide per group, unless columns say otherwise."""
    names = [f"D{i}" for i in range(len(values))]
    table = {"group": names, "slide": names, "target": "g", "metric": "pearson", "value": values, "n_spots": 99}
    return pd.DataFrame(table | columns)


# -- score


def test_each_target_is_scored_over_the_spots_of_one_slide(cohort):
    prediction, truth, slides, groups = cohort
    scores = metrics.score(prediction, truth, slides=slides, groups=groups, metrics=["pearson", "rmse"])
    assert list(scores.columns) == ["group", "slide", "target", "metric", "value", "n_spots"]
    assert len(scores) == 3 * 2 * 2
    for row in scores[scores["metric"] == "pearson"].itertuples():
        own = slides == row.slide
        assert (row.group, row.n_spots) == (row.slide[0], own.sum())
        if (row.slide, row.target) == ("B1", "h"):
            assert np.isnan(row.value)
        else:
            expected = stats.pearsonr(prediction.loc[own, row.target], truth.loc[own, row.target])[0]
            np.testing.assert_allclose(row.value, expected)


def test_a_difference_between_slides_earns_nothing(rng):
    truth = np.repeat([0.0, 10.0], 100) + rng.normal(size=200)
    slide_mean = np.repeat([0.0, 10.0], 100)  # right about the slides, silent within them
    assert metrics.pearson(slide_mean, truth) > 0.9  # what pooling would report
    assert (metrics.score(slide_mean, truth, slides=np.repeat(["A", "B"], 100), metrics="pearson")["value"] == 0).all()


def test_the_order_of_spots_and_columns_does_not_matter(cohort, rng):
    prediction, truth, slides, groups = cohort
    baseline = truth.mean()
    first = metrics.score(prediction, truth, slides=slides, groups=groups, baseline=baseline, metrics="all")
    order = rng.permutation(len(truth))
    second = metrics.score(
        prediction.iloc[order][["h", "g"]],
        truth.iloc[order],
        slides=slides[order],
        groups=groups[order],
        baseline=baseline[["h", "g"]],
        metrics="all",
    )
    exact = first["metric"] != "nmi"  # whose permutations depend on the order
    pd.testing.assert_frame_equal(first[exact], second[exact])
    np.testing.assert_allclose(first["value"], second["value"], atol=0.1)


def test_a_baseline_per_spot_serves_folds_with_different_training_slides(cohort):
    prediction, truth, slides, _ = cohort
    baseline = pd.DataFrame(np.where(slides[:, None] == "A1", 0.5, 1.5) * [1, 1], columns=["g", "h"])
    scores = metrics.score(prediction, truth, slides=slides, baseline=baseline, metrics="skill").set_index(
        ["slide", "target"]
    )
    own = slides == "A1"
    expected = metrics.skill(prediction[own], truth[own], [0.5, 0.5])
    np.testing.assert_allclose(scores.loc["A1", "value"], expected)


def test_spot_rho_always_comes_with_the_value_of_the_constant_profile(cohort):
    prediction, truth, slides, _ = cohort
    prediction, truth = prediction.assign(i=5.0), truth.assign(i=5.0)
    options = {"slides": slides, "baseline": truth.mean()}
    for asked in ("spot_rho", ["spot_rho_constant", "pearson"], "all"):
        scores = metrics.score(prediction, truth, metrics=asked, **options)
        assert {"spot_rho", "spot_rho_constant"} <= set(scores["metric"])
    rho = scores[(scores["metric"] == "spot_rho_constant") & (scores["slide"] == "A1")]
    expected = metrics.constant_profile_rho(truth[slides == "A1"], truth.mean()).mean()
    assert rho["value"].tolist() == [pytest.approx(expected)]
    assert rho["target"].tolist() == ["(all targets)"]


def test_all_is_what_the_arguments_allow(cohort):
    prediction, truth, slides, _ = cohort
    plain = set(metrics.score(prediction, truth, slides=slides, metrics="all")["metric"])
    assert not plain & {"skill", "auroc_detect", "moran_gap", "within_domain", "spot_rho"}
    assert {"js", "ssim_global"} <= plain
    standardized = set(metrics.score(prediction, truth - 1, slides=slides, metrics="all")["metric"])
    assert plain - standardized == {"js", "ssim_global"}
    default = metrics.score(prediction, truth, slides=slides, baseline=truth.mean())
    assert list(default["metric"].unique()) == ["pearson", "spearman", "skill", "variance_ratio"]


def test_rows_without_prediction_are_refused_not_skipped(cohort):
    prediction, truth, slides, _ = cohort
    prediction.iloc[3:8] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite for 5 of 150 spots \(5 rows entirely\).*trained on it"):
        metrics.score(prediction, truth, slides=slides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": "person"}, "'person' is not known; choose from"),
        ({"metrics": "skill"}, "'skill' needs baseline="),
        ({"metrics": "moran_gap"}, "'moran_gap' needs xy="),
        ({"slides": ["A"] * 149}, "149 labels for 150 spots"),
        ({"slides": ["A"] * 149 + [None]}, "slides must have a label for every spot, got none for 1 of 150"),
        ({"slides": ["A"] * 148 + ["B", "B"]}, r"got \['B'\] with fewer; drop them"),
        ({"groups": ["A", "B"] * 75}, r"got \['A1', 'A2', 'B1'\] that belong to more than one group"),
        ({"baseline": [1.0, 2.0, 3.0]}, r"baseline must have shape .*, got \(3,\)"),
        ({"baseline": [1.0, np.nan]}, "baseline must be finite, got NaN"),
        ({"baseline": pd.Series([1.0, 2.0], index=["g", "x"])}, r"\['h'\] that are not in both"),
        ({"counts": np.ones((150, 3))}, r"truth \(150, 3\)|shape"),
        ({"xy": np.ones((150, 3))}, r"xy must have shape \(150, 2\), .* got \(150, 3\)"),
        ({"domains": [np.nan] * 150}, "domains must have a label"),
    ],
)
def test_wrong_arguments_are_named(change, message, cohort):
    prediction, truth, slides, _ = cohort
    with pytest.raises(ValueError, match=message):
        metrics.score(prediction, truth, **({"slides": slides} | change))


def test_tables_of_other_spots_or_targets_are_refused(cohort):
    prediction, truth, slides, _ = cohort
    with pytest.raises(ValueError, match="different spots"):
        metrics.score(prediction.iloc[::-1], truth, slides=slides)
    with pytest.raises(ValueError, match=r"\['h'\] that are not in both"):
        metrics.score(prediction[["g"]], truth, slides=slides)
    with pytest.raises(ValueError, match=r"\['x'\] that are not in both"):
        metrics.score(prediction.assign(x=1.0), truth, slides=slides)


# -- summarize


def test_slides_are_averaged_within_donors_before_donors_within_targets():
    scores = tidy([0.0, 0.2, 0.9], group=["A", "A", "B"], slide=["A1", "A2", "B1"])
    scores = pd.concat([scores, scores.assign(target="h", value=[0.1, 0.1, 0.1]), scores.assign(target="i", value=0.0)])
    total = metrics.summarize(scores).iloc[0]
    assert total["mean"] == pytest.approx((0.5 + 0.1 + 0.0) / 3)  # not 1.4 / 9
    assert total["median"] == pytest.approx((0.1 + 0.1) / 2)  # of donor A's 0.1, 0.1, 0 and of donor B's 0.9, 0.1, 0
    assert total[["worst", "best", "worst_group"]].tolist() == [pytest.approx(0.2 / 3), pytest.approx(1.0 / 3), "A"]
    assert total[["n_groups", "n_slides", "n_targets", "n_excluded"]].tolist() == [2, 3, 3, 0]
    by_group = metrics.summarize(scores, by="group").set_index("group")
    np.testing.assert_allclose(by_group["mean"], [0.2 / 3, 1.0 / 3])
    by_slide = metrics.summarize(scores, by="slide").set_index("slide")
    np.testing.assert_allclose(by_slide["mean"], [0.1 / 3, 0.3 / 3, 1.0 / 3])
    by_target = metrics.summarize(scores, by="target").set_index("target")
    np.testing.assert_allclose(by_target["mean"], [0.5, 0.1, 0.0])


def test_the_worst_group_is_the_highest_where_low_is_good():
    scores = pd.concat([tidy([0.2, 0.5]), tidy([0.2, 0.5], metric="rmse")])
    worst = metrics.summarize(scores).set_index("metric")[["worst", "worst_group"]]
    assert worst.loc["pearson"].tolist() == [0.2, "D0"]
    assert worst.loc["rmse"].tolist() == [0.5, "D1"]
    of_target = metrics.summarize(scores, by="target").set_index("metric")
    assert of_target.loc["rmse", "worst_group"] == "D1"


def test_donors_weigh_the_same_where_single_slides_were_left_out():
    scores = tidy([0.6, 0.6, 0.0], slide=["A1", "A2", "B1"], group=["A1", "A2", "B1"])
    assert metrics.summarize(scores)["mean"].item() == pytest.approx(0.4)
    by_donor = metrics.summarize(scores, donors={"A1": "A", "A2": "A", "B1": "B"}).iloc[0]
    assert by_donor["mean"] == pytest.approx(0.3)
    assert (by_donor["n_groups"], by_donor["worst_group"]) == (2, "B")
    with pytest.raises(ValueError, match=r"donor of every slide, got none for \['B1'\]"):
        metrics.summarize(scores, donors={"A1": "A", "A2": "A"})


def test_a_summary_says_that_depth_was_not_looked_at(caplog):
    metrics.summarize(tidy([0.1, 0.2]))
    assert "no pearson_equal_depth" in caplog.text
    caplog.clear()
    metrics.summarize(pd.concat([tidy([0.1]), tidy([0.1], metric="pearson_equal_depth")]))
    assert not caplog.text


def test_a_collapsed_target_lowers_the_mean_and_an_unscorable_one_is_counted(cohort):
    prediction, truth, slides, groups = cohort
    scores = metrics.score(prediction, truth, slides=slides, groups=groups, metrics="pearson")
    honest = metrics.summarize(scores).iloc[0]
    collapsed = metrics.score(prediction.assign(h=0.7), truth, slides=slides, groups=groups, metrics="pearson")
    summary = metrics.summarize(collapsed).iloc[0]
    r = scores.set_index(["target", "slide"])["value"]
    of_a, of_b = (r["g", "A1"] + r["g", "A2"]) / 2, r["g", "B1"]
    assert summary["mean"] == pytest.approx(
        (of_a / 2 + of_b) / 2
    )  # donors weigh the same; h counts as 0 in A, not in B
    assert summary["mean"] < 0.8 * honest["mean"]
    assert summary["n_excluded"] == honest["n_excluded"] == 1
    assert summary["n_targets"] == 2
    by_slide = metrics.summarize(collapsed, by="slide").set_index("slide")
    assert by_slide["n_excluded"].tolist() == [0, 0, 1]
    assert by_slide["n_targets"].tolist() == [2, 2, 1]


def test_a_target_without_any_truth_is_in_the_count_only():
    scores = pd.concat([tidy([0.4, 0.2]), tidy([np.nan, np.nan], target="h")])
    summary = metrics.summarize(scores).iloc[0]
    assert (summary["mean"], summary["n_targets"], summary["n_excluded"]) == (pytest.approx(0.3), 1, 2)
    by_target = metrics.summarize(scores, by="target").set_index("target")
    assert np.isnan(by_target.loc["h", "mean"])
    assert by_target.loc["h", ["n_groups", "n_excluded"]].tolist() == [0, 2]


def test_added_columns_keep_models_apart():
    scores = pd.concat([tidy([0.4, 0.2]).assign(model="ridge"), tidy([0.0, 0.0]).assign(model="mean")])
    summary = metrics.summarize(scores).set_index("model")
    assert summary["mean"].to_dict() == {"ridge": pytest.approx(0.3), "mean": 0.0}
    assert metrics.bootstrap_interval(scores)["model"].tolist() == ["ridge", "mean"]


def test_summaries_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="by='donor'"):
        metrics.summarize(tidy([0.1]), by="donor")
    with pytest.raises(ValueError, match=r"lack the columns \['value'\]"):
        metrics.summarize(tidy([0.1]).drop(columns="value"))


# -- intervals and comparisons


def test_there_is_no_interval_below_six_donors_but_every_donor():
    interval = metrics.bootstrap_interval(tidy([0.1, 0.2, 0.3, 0.4, 0.5])).iloc[0]
    assert np.isnan([interval["lower"], interval["upper"]]).all()
    assert interval["groups"] == "D0 0.10, D1 0.20, D2 0.30, D3 0.40, D4 0.50"
    interval = metrics.bootstrap_interval(tidy([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])).iloc[0]
    assert interval["mean"] == pytest.approx(0.35)
    assert interval["lower"] < 0.35 < interval["upper"]


def test_intervals_of_six_donors_contain_the_truth_as_often_as_they_say(rng):
    hits = 0
    for _ in range(200):
        interval = metrics.bootstrap_interval(tidy(rng.normal(0.3, 0.1, 6)), level=0.9, n_draws=300).iloc[0]
        hits += interval["lower"] <= 0.3 <= interval["upper"]
    assert 0.82 < hits / 200 < 0.96


def test_an_interval_does_not_depend_on_which_targets_a_donor_has(rng):
    values = rng.normal(0.3, 0.1, 6)
    shared, own = tidy(values), tidy(values)
    own["target"] = [f"g{i}" for i in range(6)]
    columns = ["mean", "lower", "upper"]
    found = metrics.bootstrap_interval(own)[columns]
    pd.testing.assert_frame_equal(found, metrics.bootstrap_interval(shared)[columns])
    assert found["mean"].item() == pytest.approx(metrics.summarize(own)["mean"].item())


def test_more_slides_of_the_same_donors_do_not_narrow_the_interval(rng):
    values = rng.normal(0.3, 0.1, 6)
    single = tidy(values)
    many = pd.concat([single.assign(slide=single["slide"] + f"-{i}") for i in range(10)])
    columns = ["mean", "lower", "upper"]
    expected = metrics.bootstrap_interval(single)[columns]
    pd.testing.assert_frame_equal(metrics.bootstrap_interval(many)[columns], expected)


def test_blocks_spread_more_than_independent_spots(rng):
    xy = np.stack(np.meshgrid(np.arange(24.0), np.arange(24.0)), axis=-1).reshape(-1, 2)
    smooth = [np.convolve(rng.normal(size=40), np.ones(8), "same")[xy[:, k].astype(int)] for k in (0, 1)]
    truth = smooth[0] + smooth[1]
    prediction = truth + 3 * smooth[0] * np.sign(xy[:, 1] - 12)
    options = {"metric": metrics.pearson, "n_draws": 200}
    blocks = metrics.block_bootstrap(prediction, truth, xy, block=6, **options)
    spots = metrics.block_bootstrap(prediction, truth, xy, block=1, **options)
    assert blocks[0] < metrics.pearson(prediction, truth)[0] < blocks[1]
    assert np.ptp(blocks) > 1.5 * np.ptp(spots)
    assert metrics.block_bootstrap(prediction, truth, xy, block=100, **options) is None


def test_a_comparison_has_a_p_value_over_donors_from_six_on(rng):
    base = rng.normal(0.3, 0.1, 6)
    difference = np.array([0.02, 0.05, 0.01, 0.03, 0.04, 0.02])
    better = metrics.compare(tidy(base + difference), tidy(base))
    np.testing.assert_allclose(better.groups["difference"], difference)
    assert better.difference == pytest.approx(difference.mean())
    expected = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert better.p == pytest.approx(expected.pvalue) == pytest.approx(2 / 64)
    assert metrics.compare(tidy(base), tidy(base)).p == 1
    few = metrics.compare(tidy(base[:5] + difference[:5]), tidy(base[:5]))
    assert few.p is None
    assert "D4: " in str(few)
    assert "no p-value below 6 donors" in str(few)
    assert "p = 0.031" in str(better)


def test_many_targets_and_slides_do_not_make_a_p_value(rng):
    one, two = (tidy(rng.normal(size=3)) for _ in range(2))
    many = [pd.concat([x.assign(target=f"g{i}") for i in range(500)]) for x in (one, two)]
    assert metrics.compare(*many).p is None


def test_p_values_of_comparisons_without_difference_are_uniform(rng):
    p = [metrics.compare(tidy(rng.normal(size=20)), tidy(rng.normal(size=20))).p for _ in range(40)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_comparisons_need_the_same_slides_and_targets():
    scores = tidy([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="share 2 of 3 and 2 pairs"):
        metrics.compare(scores, scores.iloc[:2])
    with pytest.raises(ValueError, match="values for the same slides and targets, they share 2 of 3 and 2"):
        metrics.compare(scores, tidy([0.1, np.nan, 0.3]))
    with pytest.raises(ValueError, match=r"a value of metric 'skill', got values of \['pearson'\]"):
        metrics.compare(scores, scores, metric="skill")
    with pytest.raises(ValueError, match="one value per slide and target"):
        metrics.compare(pd.concat([scores, scores]), scores)


def test_every_metric_brings_tables_into_one_order(rng):
    truth = pd.DataFrame(rng.poisson(3.0, (40, 2)).astype(float), columns=["a", "b"])
    for metric in (metrics.pearson, metrics.skill, metrics.ccc):
        arguments = {"baseline": [3.0, 3.0]} if metric is metrics.skill else {}
        np.testing.assert_allclose(metric(truth[["b", "a"]], truth, **arguments), 1)
        with pytest.raises(ValueError, match="different spots"):
            metric(truth.iloc[::-1], truth, **arguments)
    groups = pd.Series(np.repeat(["A", "B"], 20))
    assert list(metrics.cross_coverage(truth, truth, groups)["target"].unique()) == ["a", "b"]
    with pytest.raises(ValueError, match="groups has the spots of truth in another order"):
        metrics.cross_coverage(truth, truth, groups.iloc[::-1])
    for name, values in {"counts": truth, "slides": groups}.items():
        with pytest.raises(ValueError, match=f"{name} has the spots of truth in another order"):
            metrics.score(truth, truth, **{"slides": groups} | {name: values.iloc[::-1]})
    with pytest.raises(ValueError, match="metrics is empty"):
        metrics.score(truth, truth, slides=groups, metrics=[])


def test_categories_that_were_filtered_out_are_no_rows(cohort):
    prediction, truth, slides, groups = cohort
    scores = metrics.score(prediction["g"], truth["g"], slides=slides, groups=groups, metrics="pearson")
    scores["method"] = pd.Categorical(["ours"] * len(scores), categories=["ours", "theirs"])
    scores["group"] = pd.Categorical(scores["group"], categories=[*scores["group"].unique(), "X"])
    for by in (None, "group", "slide", "target"):
        assert metrics.summarize(scores, by=by)["mean"].notna().all()
