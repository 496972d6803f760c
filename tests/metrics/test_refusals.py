"""Settings and tables that make no sense are refused by name, and not computed with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from h2e import metrics

RNG = np.random.default_rng(0)
XY = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
TRUTH, PREDICTION = RNG.random((36, 2)), RNG.random((36, 2))
COUNTS = RNG.poisson(3.0, (36, 2))
LABELS = ["A", "B"] * 18


def tidy(values, **columns):
    """Scores of one target and one slide per group."""
    names = [f"D{i}" for i in range(len(values))]
    table = {"group": names, "slide": names, "target": "g", "metric": "pearson", "value": values, "n_spots": 99}
    return pd.DataFrame(table | columns)


CALLS = {
    "bootstrap_interval": lambda **options: metrics.bootstrap_interval(tidy(RNG.random(8)), **options),
    "block_bootstrap": lambda **options: metrics.block_bootstrap(
        PREDICTION, TRUTH, XY, metric=metrics.pearson, **{"block": 2.0, "n_draws": 10} | options
    ),
    "spatial_pvalue": lambda **options: metrics.spatial_pvalue(PREDICTION, TRUTH, XY, **options),
    "moran_gap": lambda **options: metrics.moran_gap(PREDICTION, TRUTH, XY, **options),
    "nmi": lambda **options: metrics.nmi(PREDICTION, TRUTH, **options),
    "reliability": lambda **options: metrics.reliability(COUNTS, **options),
    "ceiling": lambda **options: metrics.ceiling(COUNTS, **options),
    "residual_quantile": lambda **options: metrics.residual_quantile(TRUTH, LABELS, **options),
    "cross_coverage": lambda **options: metrics.cross_coverage(PREDICTION, TRUTH, LABELS, **options),
}
WRONG = {
    "n_draws": (("bootstrap_interval", "block_bootstrap", "spatial_pvalue", "reliability", "ceiling"), (0, -1, 2.5)),
    "n_permutations": (("nmi",), (0, -3, 1.5)),
    "n_neighbors": (("moran_gap",), (-1, 0, 2.5, np.nan)),
    "max_spots": (("spatial_pvalue",), (-1, 0, 3, 19, 99.5)),
    "level": (("bootstrap_interval", "block_bootstrap", "residual_quantile"), (-1, 0, 1, 95, np.nan, None)),
    "levels": (("cross_coverage",), ((0.8, 90), (np.nan,), (-1,), ())),
    "block": (("block_bootstrap",), (0, -2.0, np.nan, np.inf)),
    "target_sum": (("reliability", "ceiling"), (0, -1e4, np.nan, np.inf)),
    "seed": (
        ("bootstrap_interval", "block_bootstrap", "spatial_pvalue", "nmi", "reliability", "ceiling"),
        (-1, 0.5, None),
    ),
}
NAMES = {"levels": "levels?"}
CASES = [(name, key, value) for key, (names, values) in WRONG.items() for name in names for value in values]


@pytest.mark.parametrize(("name", "key", "value"), CASES, ids=[f"{n}-{k}={v}" for n, k, v in CASES])
def test_settings_that_make_no_sense_are_refused_by_name(name, key, value):
    with pytest.raises(ValueError, match=f"^{NAMES.get(key, key)} must be .*, got "):
        CALLS[name](**{key: value})


def test_every_call_works_with_settings_that_make_sense():
    for name, call in CALLS.items():
        call(**({"level": 0.9} if name == "residual_quantile" else {}))


def test_tables_with_two_values_of_a_slide_and_target_are_not_averaged():
    twice = pd.concat([tidy([0.1] * 6), tidy([0.3] * 6)])
    for function in (metrics.bootstrap_interval, metrics.summarize):
        with pytest.raises(ValueError, match="one value per slide and target, got 6 rows"):
            function(twice)
        assert len(function(twice.assign(model=["one"] * 6 + ["two"] * 6))) == 2  # a column tells them apart
    with pytest.raises(ValueError, match="one value per slide and target, got 6 rows"):
        metrics.compare(twice.assign(model=["one"] * 6 + ["two"] * 6), tidy([0.1] * 6))


def test_tables_without_any_value_are_not_compared():
    nothing = tidy([np.nan] * 6)
    with pytest.raises(ValueError, match=r"scores must have a value of metric 'pearson', got values of \[\]"):
        metrics.compare(nothing, nothing)
    assert metrics.bootstrap_interval(nothing)["n_groups"].tolist() == [0]


def test_redrawn_blocks_skip_the_few_draws_with_few_blocks():
    xy = np.stack(np.meshgrid(np.arange(20.0), np.arange(10.0)), axis=-1).reshape(-1, 2)
    truth = np.sin(xy[:, 0] / 2)
    prediction = truth + RNG.normal(size=200)
    # Three draws of five cut 20 × 10 spots into at least six blocks of this side.
    lower, upper = metrics.block_bootstrap(prediction, truth, xy, metric=metrics.pearson, block=11)
    assert lower < metrics.pearson(prediction, truth)[0] < upper
    assert metrics.block_bootstrap(prediction, truth, xy, metric=metrics.pearson, block=30) is None


def test_one_target_is_refused_for_scores_over_targets():
    for name in ("spot_rho", "spot_rho_constant"):
        with pytest.raises(ValueError, match=f"metric '{name}' needs at least 2 targets, .* got 1; leave it out"):
            metrics.score(PREDICTION[:, 0], TRUTH[:, 0], slides=LABELS, baseline=[0.5], metrics=name)


@pytest.mark.parametrize("p", [[0.1, 1.5], [-0.1], [np.inf]])
def test_p_values_outside_of_zero_to_one_are_refused(p):
    with pytest.raises(ValueError, match="p must be between 0 and 1, or NaN, got"):
        metrics.false_discovery_rate(p)


def test_totals_and_profiles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="totals must be 36 whole numbers"):
        metrics.ceiling(COUNTS, totals=np.full(36, np.inf))
    with pytest.raises(ValueError, match=r"profile must have shape \(2,\), .*, got \(3,\)"):
        metrics.constant_profile_rho(TRUTH, [0.1, 0.2, 0.3])


def test_named_baselines_are_brought_into_the_order_of_the_truth():
    truth = pd.DataFrame(TRUTH, columns=["a", "b"])
    mean = truth.mean()
    turned = mean[["b", "a"]]
    np.testing.assert_array_equal(metrics.skill(PREDICTION, truth, turned), metrics.skill(PREDICTION, truth, mean))
    np.testing.assert_array_equal(
        metrics.constant_profile_rho(truth, turned), metrics.constant_profile_rho(truth, mean)
    )


def test_positions_and_domains_of_spots_in_another_order_are_refused():
    truth, xy, domains = pd.DataFrame(TRUTH), pd.DataFrame(XY), pd.Series(LABELS)
    for call in (
        lambda: metrics.moran_gap(truth, truth, xy[::-1]),
        lambda: metrics.spatial_pvalue(truth, truth, xy[::-1]),
        lambda: metrics.block_bootstrap(truth, truth, xy[::-1], metric=metrics.pearson, block=2),
        lambda: metrics.within_domain(truth, truth, domains[::-1]),
        lambda: metrics.skill(truth, truth, truth[::-1]),
        lambda: metrics.score(truth, truth, slides=["A"] * 36, xy=xy[::-1]),
    ):
        with pytest.raises(ValueError, match="has the spots of truth in another order"):
            call()
