"""Metrics against independent implementations, hand values, and the laws of honest scoring."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from h2e import metrics
from h2e.metrics._choice import DRAWN, METRICS, _needs

PAIRWISE = [
    metrics.pearson,
    metrics.spearman,
    metrics.ccc,
    metrics.r2,
    metrics.rmse,
    metrics.mae,
    metrics.nrmse_sd,
    metrics.nrmse_range,
    metrics.nmi,
    metrics.ssim_global,
    metrics.js,
    metrics.variance_ratio,
]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def maps(rng):
    """Predictions and truths of 60 spots and 5 targets, with ties and zeros."""
    truth = np.round(rng.gamma(1.0, 2.0, (60, 5)), 1)
    truth[truth < 0.6] = 0
    return np.round(0.5 * truth + rng.normal(0, 1, truth.shape), 1), truth


def per_target(function, prediction, truth):
    return [function(prediction[:, j], truth[:, j]) for j in range(truth.shape[1])]


def test_correlations_equal_those_of_scipy(maps):
    np.testing.assert_allclose(metrics.pearson(*maps), per_target(lambda a, b: stats.pearsonr(a, b)[0], *maps))
    np.testing.assert_allclose(metrics.spearman(*maps), per_target(lambda a, b: stats.spearmanr(a, b)[0], *maps))


def test_errors_equal_those_of_scikit_learn(maps):
    from sklearn import metrics as sk

    prediction, truth = maps
    np.testing.assert_allclose(metrics.r2(*maps), sk.r2_score(truth, prediction, multioutput="raw_values"))
    mse = sk.mean_squared_error(truth, prediction, multioutput="raw_values")
    np.testing.assert_allclose(metrics.rmse(*maps), np.sqrt(mse))
    np.testing.assert_allclose(metrics.mae(*maps), sk.mean_absolute_error(truth, prediction, multioutput="raw_values"))
    np.testing.assert_allclose(metrics.nrmse_sd(*maps), np.sqrt(mse) / truth.std(axis=0))
    np.testing.assert_allclose(metrics.nrmse_range(*maps), np.sqrt(mse) / (truth.max(axis=0) - truth.min(axis=0)))


def test_detection_equals_scikit_learns_area_under_the_curve(maps, rng):
    from sklearn.metrics import roc_auc_score

    prediction, _ = maps
    counts = rng.poisson(0.7, prediction.shape)
    expected = per_target(lambda p, c: roc_auc_score(c > 0, p), prediction, counts)
    np.testing.assert_allclose(metrics.auroc_detect(prediction, counts), expected)
    everywhere = np.ones_like(counts)
    assert np.isnan(metrics.auroc_detect(prediction, everywhere)).all()
    assert np.isnan(metrics.auroc_detect(prediction, 0 * everywhere)).all()
    assert (metrics.auroc_detect(np.full_like(prediction, 0.1), counts) == 0.5).all()


def test_concordance_is_its_formula_and_sees_level_and_scale(maps):
    prediction, truth = maps
    cov = [np.cov(prediction[:, j], truth[:, j], ddof=0) for j in range(5)]
    shift = prediction.mean(axis=0) - truth.mean(axis=0)
    expected = [2 * c[0, 1] / (c[0, 0] + c[1, 1] + d**2) for c, d in zip(cov, shift, strict=True)]
    np.testing.assert_allclose(metrics.ccc(*maps), expected)
    np.testing.assert_allclose(metrics.ccc(truth, truth), 1)
    assert (metrics.ccc(truth + 1, truth) < 1).all()
    assert (metrics.ccc(0.5 * truth, truth) < 1).all()


def test_skill_is_one_minus_the_ratio_of_squared_errors_and_zero_for_the_baseline(maps):
    prediction, truth = maps
    baseline = truth[:20].mean(axis=0)
    expected = 1 - ((prediction - truth) ** 2).sum(axis=0) / ((baseline - truth) ** 2).sum(axis=0)
    np.testing.assert_allclose(metrics.skill(prediction, truth, baseline), expected)
    constant = np.broadcast_to(baseline, truth.shape)
    np.testing.assert_allclose(metrics.skill(constant, truth, baseline), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.skill(prediction, truth, constant), expected)  # a baseline per spot
    assert np.isnan(metrics.skill(prediction, constant, baseline)).all()  # nothing left to gain


def test_mutual_information_equals_scikit_learns_minus_its_exact_chance_value(rng):
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    x = rng.normal(size=180)
    y = 0.7 * x + rng.normal(size=180)
    bins = [np.digitize(stats.rankdata(v), np.linspace(0.5, 180.5, 11)[1:-1]) for v in (x, y)]
    chance = expected_mutual_information(contingency_matrix(*bins, sparse=True), 180)
    entropies = [stats.entropy(np.unique(b, return_counts=True)[1]) for b in bins]
    plain = normalized_mutual_info_score(*bins, average_method="geometric")
    expected = plain - chance / np.sqrt(np.prod(entropies))
    np.testing.assert_allclose(metrics.nmi(x, y, n_permutations=2000), expected, atol=0.002)


def test_mutual_information_of_independent_maps_is_zero_on_average_and_sees_what_correlation_cannot(rng):
    independent = metrics.nmi(rng.normal(size=(180, 200)), rng.normal(size=(180, 200)))
    assert abs(independent.mean()) < 4 * independent.std() / np.sqrt(200) < 0.01
    x = rng.normal(size=500)
    assert abs(metrics.pearson(x**2, x)[0]) < 0.2 < metrics.nmi(x**2, x)[0]


def test_structural_similarity_equals_scikit_images_in_a_window_as_large_as_the_map(rng):
    from skimage.metrics import structural_similarity

    truth = rng.gamma(2, size=(49, 3))
    prediction = truth + rng.gamma(1, size=truth.shape)
    levels = [np.round(255 * x / x.max(axis=0)) for x in (prediction, truth)]
    expected = [
        structural_similarity(
            levels[0][:, j].reshape(7, 7),
            levels[1][:, j].reshape(7, 7),
            win_size=7,
            data_range=255,
            use_sample_covariance=False,
        )
        for j in range(3)
    ]
    np.testing.assert_allclose(metrics.ssim_global(prediction, truth), expected)


def test_divergence_equals_scipys_squared_distance(maps):
    from scipy.spatial.distance import jensenshannon

    prediction, truth = maps
    expected = per_target(lambda p, t: jensenshannon(np.clip(p, 0, None), t, base=2) ** 2, prediction, truth)
    np.testing.assert_allclose(metrics.js(prediction, truth), expected, atol=1e-12)
    np.testing.assert_allclose(metrics.js(0 * truth - 1, truth), metrics.js(0 * truth + 5, truth))  # both say nothing


def test_variance_ratio_exposes_shrinkage(maps):
    _, truth = maps
    np.testing.assert_allclose(metrics.variance_ratio(0.1 * truth + 3, truth), 0.01)


def test_morans_i_is_its_textbook_formula_over_nearest_neighbours(rng):
    from sklearn.neighbors import kneighbors_graph

    xy = rng.random((80, 2))
    prediction, truth = np.sin(5 * xy) + 0.1 * rng.normal(size=xy.shape), rng.normal(size=xy.shape)
    weights = kneighbors_graph(xy, 6).toarray()

    def morans_i(values):
        z = values - values.mean()
        return len(z) / weights.sum() * sum(weights[i, j] * z[i] * z[j] for i, j in np.argwhere(weights)) / (z @ z)

    expected = [morans_i(prediction[:, j]) - morans_i(truth[:, j]) for j in range(2)]
    np.testing.assert_allclose(metrics.moran_gap(prediction, truth, xy), expected)
    assert min(expected) > 0.5  # a smooth map of rough tissue
    flat = metrics.moran_gap(np.ones_like(truth), truth, xy)
    np.testing.assert_allclose(flat, [-morans_i(truth[:, j]) for j in range(2)])


def test_morans_i_bears_spots_at_the_same_place(rng):
    xy = np.repeat(rng.random((20, 2)), 10, axis=0)
    assert np.isfinite(metrics.moran_gap(rng.normal(size=200), rng.normal(size=200), xy)).all()


def test_within_domain_is_the_correlation_of_residuals_and_blind_to_domain_means(maps, rng):
    prediction, truth = maps
    domains = rng.choice(["tumour", "stroma", "fat"], len(truth))
    residuals = [pd.DataFrame(x) - pd.DataFrame(x).groupby(domains).transform("mean") for x in maps]
    expected = per_target(lambda a, b: stats.pearsonr(a, b)[0], *(r.to_numpy() for r in residuals))
    np.testing.assert_allclose(metrics.within_domain(prediction, truth, domains), expected)
    shift = pd.Series(domains).map({"tumour": 50, "stroma": -3, "fat": 0}).to_numpy()[:, None]
    np.testing.assert_allclose(metrics.within_domain(prediction + shift, truth, domains), expected)
    oracle = pd.DataFrame(truth).groupby(domains).transform("mean").to_numpy()
    assert (metrics.within_domain(oracle, truth, domains) == 0).all()  # a perfect segmentation says nothing more
    assert (metrics.pearson(oracle, truth) > 0).all()


def test_spot_rho_rewards_a_constant_profile(maps):
    prediction, truth = maps
    truth = truth + 10 * np.arange(5)  # some targets are high everywhere
    expected = [stats.spearmanr(p, t)[0] for p, t in zip(prediction, truth, strict=True)]
    np.testing.assert_allclose(metrics.spot_rho(prediction, truth), expected)
    assert metrics.constant_profile_rho(truth, truth.mean(axis=0)).mean() > 0.9
    assert (metrics.pearson(np.broadcast_to(truth.mean(axis=0), truth.shape), truth) == 0).all()


# -- law 7 and the treatment of constants


@pytest.mark.parametrize(
    "metric", [metrics.pearson, metrics.spearman, metrics.ccc, metrics.nmi], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-30, 1e12])
def test_a_constant_prediction_scores_zero_whatever_its_rounding(metric, value, maps, rng):
    _, truth = maps
    constant = np.full(truth.shape, value)
    for prediction in (
        constant,
        constant.astype(np.float32),
        constant * (1 + 1e-15 * rng.integers(-4, 5, truth.shape)),
        constant * (1 + 1e-7 * rng.normal(size=truth.shape)),  # what float32 arithmetic leaves
    ):
        assert (metric(prediction, truth) == 0).all()


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman, metrics.ccc], ids=lambda f: f.__name__)
def test_shuffled_labels_score_zero_within_their_null(metric, rng):
    truth = rng.gamma(1.0, 2.0, (150, 400))
    shuffled = rng.permuted(truth, axis=0)
    scores = metric(shuffled, truth)
    assert abs(scores.mean()) < 4 / np.sqrt(149 * 400)
    assert 0.5 / np.sqrt(149) < scores.std() < 1.2 / np.sqrt(149)


@pytest.mark.parametrize("metric", PAIRWISE, ids=lambda f: f.__name__)
def test_whether_a_target_is_excluded_depends_on_its_truth_alone(metric, rng):
    truth = np.stack([rng.random(30), np.full(30, 0.1), np.zeros(30)], axis=1)
    predictions = [rng.random((30, 3)), np.zeros((30, 3)), -np.ones((30, 3)), np.full((30, 3), 0.1, np.float32)]
    excluded = [np.isnan(metric(prediction, truth)) for prediction in predictions]
    assert all((x == excluded[0]).all() for x in excluded)
    assert not excluded[0][0]


@pytest.mark.parametrize(
    "metric", [metrics.pearson, metrics.spearman, metrics.ccc, metrics.r2, metrics.nmi], ids=lambda f: f.__name__
)
def test_a_constant_truth_is_excluded_even_if_it_was_rounded(metric, rng):
    truth = np.full((50, 1), 0.1) * (1 + 1e-15 * rng.integers(-4, 5, (50, 1)))
    assert np.isnan(metric(rng.random((50, 1)), truth)).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1e8, 1e150])
def test_correlations_do_not_depend_on_the_unit(scale, maps):
    prediction, truth = maps
    np.testing.assert_allclose(metrics.pearson(scale * prediction, truth), metrics.pearson(prediction, truth))


@pytest.mark.parametrize("metric", PAIRWISE, ids=lambda f: f.__name__)
def test_targets_do_not_see_each_other(metric, maps):
    prediction, truth = maps
    together = metric(prediction, truth)
    alone = np.concatenate([metric(prediction[:, j], truth[:, j]) for j in range(5)])
    np.testing.assert_allclose(together, alone)


@pytest.mark.parametrize("metric", PAIRWISE, ids=lambda f: f.__name__)
def test_missing_values_and_shapes_that_differ_are_refused(metric, maps):
    prediction, truth = maps
    prediction = prediction.copy()
    prediction[:7] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite for 7 of 60 spots.*_loo"):
        metric(prediction, truth)
    with pytest.raises(ValueError, match="truth must be finite"):
        metric(truth, prediction)
    with pytest.raises(ValueError, match=r"same shape, got \(60, 4\)"):
        metric(truth[:, :4], truth)


def test_negative_values_are_refused_where_they_mean_nothing(maps):
    _, truth = maps
    for metric in (metrics.ssim_global, metrics.js, metrics.auroc_detect):
        with pytest.raises(ValueError, match="negative for 5 of 5 targets"):
            metric(truth, truth - 1)


# -- coverage and ceiling


def test_coverage_counts_the_truths_inside():
    truth = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert metrics.coverage(np.full((4, 1), 1.0), np.full((4, 1), 2.5), truth) == 0.5
    with pytest.raises(ValueError, match="lower is above upper"):
        metrics.coverage(truth + 1, truth, truth)


def test_interval_widths_come_from_the_other_groups_only(rng):
    truth = np.zeros((600, 2))
    groups = np.repeat(["A", "B", "C"], 200)
    prediction = rng.normal(size=truth.shape)
    before = metrics.cross_coverage(prediction, truth, groups).set_index(["group", "target", "level"]).sort_index()
    prediction[groups == "B"] *= 100
    after = metrics.cross_coverage(prediction, truth, groups).set_index(["group", "target", "level"]).sort_index()
    assert (after.loc["B", "half_width"] == before.loc["B", "half_width"]).all()
    assert (after.loc["A", "half_width"] > before.loc["A", "half_width"]).all()
    np.testing.assert_allclose(before["coverage"], before.reset_index()["level"], atol=0.08)
    assert after.loc["B", "coverage"].max() < 0.05
    with pytest.raises(ValueError, match="at least 2 groups"):
        metrics.cross_coverage(prediction, truth, np.repeat("A", 600))


def test_interval_width_is_numpys_quantile_in_each_group_and_then_over_groups(rng):
    residuals = rng.normal(size=(2000, 3))
    width = metrics.residual_quantile(residuals, ["A"] * 2000, level=0.9)
    np.testing.assert_allclose(width, np.quantile(np.abs(residuals), 0.9 * 2001 / 2000, axis=0, method="inverted_cdf"))
    # Each group has a width of its own, whatever its number of spots; level 0.4 of two groups is the smaller, 0.7 the larger.
    residuals_of = np.r_[np.full(10, 5.0), np.full(990, 1.0)]
    groups = ["small"] * 10 + ["large"] * 990
    assert metrics.residual_quantile(residuals_of, groups, level=0.33) == 1
    assert metrics.residual_quantile(residuals_of, groups, level=0.7) == 5
    with pytest.raises(ValueError, match="level must be a number between 0 and 1, got 90"):
        metrics.residual_quantile(residuals, ["A"] * 2000, level=90)


def test_intervals_hold_what_they_promise_in_groups_that_differ(rng):
    """At level 0.8 at least 80 % of spots are inside in at least 80 % of new groups, though groups are not equally hard."""
    inside = []
    for _ in range(200):
        spread = rng.lognormal(0, 0.6, 11)
        residuals = rng.normal(size=(11, 200)) * spread[:, None]
        known, new = residuals[:10].reshape(-1, 1), residuals[10]
        width = metrics.residual_quantile(known, np.repeat(np.arange(10), 200), level=0.8)
        inside.append((np.abs(new) <= width).mean())
    assert (np.array(inside) >= 0.78).mean() > 0.75


def test_the_ceiling_is_what_the_true_rate_reaches(rng):
    rate = np.exp(rng.normal(0, 0.7, (3000, 6))) * np.array([0.3, 0.6, 1.0, 3.0, 10.0, 50.0])
    totals = np.full(3000, 10_000)
    counts = rng.poisson(rate)
    ceiling = metrics.ceiling(counts, totals=totals)
    reached = metrics.pearson(np.log1p(rate), np.log1p(counts))
    np.testing.assert_allclose(ceiling, reached, atol=0.06)
    assert (np.diff(ceiling) > 0).all()  # deeper counts, higher ceiling
    np.testing.assert_allclose(ceiling**2, metrics.reliability(counts, totals=totals))


def test_metrics_take_the_sparse_counts_of_a_table(rng):
    counts = rng.poisson(2.0, (40, 3))
    stored = sparse.csr_matrix(counts)
    dense = metrics.ceiling(counts, totals=counts.sum(axis=1))
    np.testing.assert_array_equal(metrics.ceiling(stored, totals=stored.sum(axis=1)), dense)
    np.testing.assert_allclose(metrics.pearson(counts + 1.0, stored), 1)


def test_the_ceiling_of_noise_is_low_and_of_constants_missing(rng):
    counts = np.stack([rng.poisson(5.0, 2000), np.zeros(2000)], axis=1)
    noise, nothing = metrics.reliability(counts, totals=np.full(2000, 5000))
    assert noise < 0.1
    assert np.isnan(nothing)
    with pytest.raises(ValueError, match="raw counts"):
        metrics.ceiling(np.log1p(counts))
    with pytest.raises(ValueError, match="totals"):
        metrics.ceiling(counts, totals=np.zeros(2000))


def test_each_metric_that_there_is_data_for_is_a_row_of_the_scores(rng):
    truth = rng.gamma(1.0, size=(500, 3))
    prediction = truth + rng.normal(size=truth.shape)
    options = {"baseline": truth.mean(axis=0), "counts": rng.poisson(truth), "xy": rng.random((500, 2))}
    options["totals"] = options["counts"].sum(axis=1) + 1
    scores = metrics.score(
        prediction, truth, slides=["A"] * 500, domains=rng.integers(5, size=500), metrics="all", **options
    )
    assert scores["metric"].nunique() == 21


def test_morans_i_does_not_depend_on_the_order_of_spots_on_a_lattice(rng):
    xy = np.stack(np.meshgrid(np.arange(9.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    prediction, truth = rng.normal(size=(72, 3)).cumsum(axis=0), rng.normal(size=(72, 3))
    expected = metrics.moran_gap(prediction, truth, xy)
    for _ in range(3):
        order = rng.permutation(72)
        found = metrics.moran_gap(prediction[order], truth[order], xy[order])
        np.testing.assert_allclose(found, expected, atol=1e-12)


# -- the page on metrics


def rows_of_the_page() -> dict[str, list[str]]:
    """The cells of the table of ``docs/metrics.md`` after the name of each metric."""
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name.strip("`").split(".")[-1]: cells for name, *cells in rows[2:]}


def test_the_page_lists_every_metric_with_what_it_needs():
    rows = rows_of_the_page()
    assert list(rows) == list(METRICS)
    for name, (*_, needs) in rows.items():
        assert set(re.findall(r"`(\w+)`", needs)) == _needs(name) - {"prediction", "truth"}, name
    with_negative = metrics.score(*2 * [np.array([[0.0, 1], [1, 0], [-1, 1]])], slides=["A"] * 3, metrics="all")
    limited = {name for name, (*_, needs) in rows.items() if "truth ≥ 0" in needs}
    assert limited == {"js", "ssim_global"}
    assert not limited & set(with_negative["metric"])


def test_the_page_says_what_constants_score(rng):
    truth = rng.gamma(1.0, size=(60, 4))
    arrays = {"prediction": truth + rng.normal(size=truth.shape), "truth": truth, "baseline": truth + 0.1}
    arrays |= {
        "counts": rng.poisson(truth),
        "totals": rng.integers(40, 90, 60),
        "xy": rng.random((60, 2)),
        "domains": rng.integers(3, size=60),
    }
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    still = re.findall(r"`(\w+)`", re.search(r"If the truth is constant, the value is NaN \(except (.*?)\)", page)[1])
    for name, (_, _, of_prediction, _) in rows_of_the_page().items():
        function, arguments = METRICS[name]
        of_truth = "" if name in still else "NaN"
        for cell, constant in (
            (of_prediction, {"prediction": np.full((60, 4), 0.3)}),
            (of_truth, {"truth": np.full((60, 4), 0.3), "counts": np.ones((60, 4))}),
        ):
            given = arrays | constant
            given |= {drawn: draw(given["counts"], given["totals"]) for drawn, draw in DRAWN.items()}
            value = function(*(given[argument] for argument in arguments))
            if cell in ("0", "0.5", "NaN"):
                np.testing.assert_array_equal(value, np.full_like(value, float(cell)), name)
            else:
                assert np.isfinite(value).all(), name
