"""What of a correlation is depth: thinned counts, counts without biology, what is beyond depth, and the ceilings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from h2e import metrics

N = 300


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def totals(rng):
    return rng.lognormal(8, 0.7, N).astype(int)


def test_thinning_draws_as_many_molecules_of_every_spot_as_the_shallowest_tenth_has(rng, totals):
    from h2e.metrics._depth import at_equal_depth, common_depth

    deep, depth = common_depth(totals)
    assert 0.88 * N <= deep.sum() < N
    assert depth == totals[deep].min() > totals[~deep].max()
    # A target that is all that a spot has is constant at equal depth, however deep the spots are.
    assert np.isnan(at_equal_depth(totals[:, None], totals)).all()
    half = np.column_stack([totals // 2, totals - totals // 2])
    of_depth = np.log(totals)[:, None].repeat(2, axis=1)
    found = metrics.pearson_equal_depth(of_depth, half, n_draws=20)
    assert np.abs(found).max() < 3 / np.sqrt(N)


def test_one_thinning_is_scipys_correlation_with_it(rng, totals):
    counts, prediction = rng.binomial(totals, 0.01)[:, None], rng.normal(size=(N, 1))
    same = np.full(N, 5000)
    # All spots are of one depth, so nothing is left to chance.
    expected = stats.pearsonr(prediction[:, 0], np.log1p(counts[:, 0] * 2)).statistic
    np.testing.assert_allclose(metrics.pearson_equal_depth(prediction, counts, totals=same), expected)


def test_what_follows_the_depth_alone_scores_nothing_at_equal_depth_and_alike_without_biology(rng, totals):
    shares = rng.uniform(2e-4, 3e-3, 20)
    counts = rng.poisson(np.outer(totals, shares))
    prediction = np.log(totals)[:, None].repeat(20, axis=1)
    truth = np.log1p(1e4 * counts / totals[:, None])
    plain = metrics.pearson(prediction, truth)
    equal = metrics.pearson_equal_depth(prediction, counts, totals=totals)
    none = metrics.pearson_no_biology(prediction, counts, totals=totals)
    assert plain.mean() > 0.15
    error = 1 / np.sqrt(N * 20)
    assert abs(equal.mean()) < 2 * error
    assert abs(none.mean() - plain.mean()) < 2 * error


def test_the_law_of_no_biology_holds_for_any_prediction(rng, totals):
    """Over 20 draws of counts at constant shares the mean score is that without biology, and at equal depth it is 0."""
    prediction = np.log(totals)[:, None] + rng.normal(size=(N, 6))
    rate = np.outer(totals, rng.uniform(5e-4, 3e-3, 6))
    draws = []
    for _ in range(20):
        counts = rng.poisson(rate)
        scores = metrics.score(
            prediction, np.log1p(1e4 * counts / totals[:, None]), slides=["A"] * N, counts=counts, totals=totals
        )
        draws.append(scores.groupby("metric")["value"].mean())
    table = pd.DataFrame(draws)
    difference = table["pearson"] - table["pearson_no_biology"]
    assert abs(difference.mean()) < 2 * table["pearson"].std() / np.sqrt(20)
    assert abs(table["pearson_equal_depth"].mean()) < 3 * table["pearson_equal_depth"].std() / np.sqrt(20)
    assert table["pearson"].mean() > 0.05


def test_biology_is_found_at_equal_depth_and_beyond_it(rng, totals):
    pattern = rng.normal(size=(N, 1))
    counts = rng.poisson(totals[:, None] * 2e-3 * np.exp(pattern))
    truth = np.log1p(1e4 * counts / totals[:, None])
    for score in (
        metrics.pearson_equal_depth(pattern, counts, totals=totals),
        metrics.pearson_beyond_depth(pattern, truth, totals),
    ):
        assert score[0] > 0.6
    assert abs(metrics.pearson_no_biology(pattern, counts, totals=totals)[0]) < 0.15


def test_beyond_depth_is_the_partial_correlation(rng, totals):
    x, y = rng.normal(size=(2, N)) + np.log(totals)
    depth = np.log1p(totals)
    rest = [values - np.polyval(np.polyfit(depth, values, 1), depth) for values in (x, y)]
    np.testing.assert_allclose(metrics.pearson_beyond_depth(x, y, totals), stats.pearsonr(*rest).statistic)
    assert metrics.pearson_beyond_depth(3 * depth + 1, y, totals) == 0
    assert np.isnan(metrics.pearson_beyond_depth(x, 3 * depth + 1, totals))


def test_the_ceiling_of_constant_shares_is_depth_and_nothing_at_equal_depth(rng, totals):
    counts = rng.poisson(np.outer(totals, np.full(30, 1e-3)))
    assert metrics.reliability(counts, totals=totals, equal_depth=False).mean() > 0.04
    assert abs(metrics.reliability(counts, totals=totals).mean()) < 0.04
    assert abs(metrics.ceiling(counts, totals=totals).mean()) < 0.15
    real = rng.poisson(totals[:, None] * 5e-3 * np.exp(rng.normal(size=(N, 1))))
    assert metrics.ceiling(real, totals=totals)[0] > 0.7


def test_shallow_spots_are_left_out_and_counted(rng, totals):
    counts = rng.poisson(np.outer(totals, [1e-3, 2e-3]))
    truth = np.log1p(1e4 * counts / totals[:, None])
    options = {"slides": ["A"] * N, "counts": counts, "totals": totals}
    scores = metrics.score(rng.normal(size=truth.shape), truth, **options).set_index("metric")["n_spots"]
    assert set(scores["pearson"]) == {N}
    assert set(scores["pearson_equal_depth"]) == {(totals >= np.quantile(totals, 0.1, method="higher")).sum()}
    nearly = metrics.score(rng.normal(size=truth.shape), truth, slides=["A"] * N, counts=counts)
    assert not nearly["metric"].str.contains("depth|biology").any()


@pytest.mark.parametrize("function", [metrics.pearson_equal_depth, metrics.pearson_no_biology])
def test_what_are_no_counts_is_refused(function, rng):
    prediction = rng.normal(size=(5, 1))
    with pytest.raises(ValueError, match="whole numbers"):
        function(prediction, np.full((5, 1), 0.5))
    with pytest.raises(ValueError, match="totals must be 5 whole numbers"):
        function(prediction, np.ones((5, 1)), totals=np.zeros(5))
    with pytest.raises(ValueError, match="n_draws"):
        function(prediction, np.ones((5, 1)), n_draws=0)


def test_a_slide_on_which_nothing_was_counted_has_no_score_and_leaves_the_others_alone(rng, totals):
    counts = rng.poisson(np.outer(totals, [1e-3, 2e-3]))
    truth, prediction = np.log1p(1e4 * counts / totals[:, None]), rng.normal(size=counts.shape)
    empty = np.zeros((5, 2))
    for equal_depth in (True, False):
        assert np.isnan(metrics.ceiling(empty, equal_depth=equal_depth)).all()
    counts_, totals_ = np.vstack([counts, empty]), np.append(totals, np.zeros(5, int))
    slides = ["A"] * N + ["empty"] * 5
    options = {"slides": slides, "counts": counts_, "totals": totals_, "baseline": [0, 0]}
    both = metrics.score(np.vstack([prediction, rng.normal(size=(5, 2))]), np.vstack([truth, empty]), **options)
    alone = metrics.score(
        prediction, truth, slides=["A"] * N, counts=counts, totals=totals, baseline=options["baseline"]
    )
    of_empty = both[both["slide"] == "empty"]
    assert of_empty["value"].isna().all()
    assert (of_empty.set_index("metric").loc["pearson_equal_depth", "n_spots"] == 0).all()
    pd.testing.assert_frame_equal(both[both["slide"] == "A"].reset_index(drop=True), alone)


def test_totals_below_nothing_are_refused(rng):
    with pytest.raises(ValueError, match="totals must be 5 numbers"):
        metrics.pearson_beyond_depth(rng.normal(size=5), rng.normal(size=5), [-1, 1, 1, 1, 1])
