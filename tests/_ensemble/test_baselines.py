from __future__ import annotations

import numpy as np
import pytest

import h2e
from h2e._ensemble.baselines import METHODS, domain_means, domains_of, of_depth, shuffled_within
from h2e._ensemble.fold_models import Spots
from h2e._learners.texture import Texture
from h2e._slide.tiles import View


@pytest.fixture(scope="module")
def scores(cohort_source):
    options = {"targets": ["TOY01", "TOY02"], "group_key": "donor", "progress": False, "metrics": "pearson"}
    found = h2e.tl.evaluate(cohort_source, learners="mean", **options)
    return found[found["metric"] == "pearson"].groupby("method")["value"].mean()


def test_all_baselines_stand_beside(scores):
    assert set(METHODS.values()) | {"ensemble", "ceiling"} == set(scores.index)


def test_what_cannot_know_scores_nothing_and_what_can_does(scores):
    assert scores["baseline: mean"] == 0
    assert abs(scores["baseline: shuffled labels"]) < 0.25 < scores["baseline: ridge on texture"]
    assert abs(scores["oracle: domains by chance"]) < 0.2 < scores["oracle: domains"]


@pytest.mark.parametrize("stack", ["mean", "ridge"])
def test_an_ensemble_without_a_learner_is_the_ensemble_of_the_others(few_source, stack: str):
    learners = [Texture(views=(View(2, 32),), head=head) for head in ("ridge", "knn", "pls")]
    options = {"targets": ["TOY01", "TOY02"], "group_key": "region", "progress": False, "metrics": ["pearson", "skill"]}
    options |= {"stack": stack, "baselines": []}
    more, fewer = (h2e.tl.evaluate(few_source, learners=some, **options) for some in (learners, learners[:2]))
    without = more.loc[more["method"] == "without pls", "value"].to_numpy()
    alone = fewer.loc[(fewer["method"] == "ensemble") & fewer["metric"].isin(options["metrics"]), "value"].to_numpy()
    assert len(alone) == 2 * 2 * 4
    np.testing.assert_array_equal(without, alone)


def test_the_depth_of_a_spot_is_a_line_with_the_slope_of_the_training_slides():
    rng = np.random.default_rng(0)
    depth, slides = rng.normal(8, 1, 90), np.repeat(["A", "B", "C"], 30)
    level = np.select([slides == "A", slides == "B"], [5.0, -3.0], 1.0)
    y = np.column_stack([2 * depth + level, rng.normal(size=90)])
    spots = Spots(slides, slides, {}, y.astype(np.float32))
    predicted = of_depth(spots, depth, np.array([7.0, 9.0]))
    np.testing.assert_allclose(np.diff(predicted[:, 0]), 4, rtol=1e-4)
    assert abs(np.diff(predicted[:, 1])) < 1
    np.testing.assert_allclose(of_depth(spots, depth, depth).mean(axis=0), y.mean(axis=0), rtol=1e-3)


def test_labels_are_shuffled_within_their_slide():
    values, slides = np.arange(60.0)[:, None], np.repeat(["A", "B", "C"], 20)
    shuffled = shuffled_within(values, slides, seed=0)
    for slide in "ABC":
        np.testing.assert_array_equal(np.sort(shuffled[slides == slide], axis=0), values[slides == slide])
    assert (shuffled != values).mean() > 0.8
    np.testing.assert_array_equal(shuffled, shuffled_within(values, slides, seed=0))


def test_a_spot_has_no_say_in_the_mean_of_its_own_domain():
    rng = np.random.default_rng(0)
    y, slides, domains = rng.normal(size=(80, 2)), np.repeat(["A", "B"], 40), rng.integers(3, size=80)
    before = domain_means(y, slides, domains, seed=0)
    for spot in (0, 17, 79):
        other = y.copy()
        other[spot] += 100
        after = domain_means(other, slides, domains, seed=0)
        np.testing.assert_array_equal(after[spot], before[spot])
        changed = np.flatnonzero((after != before).any(axis=1))
        assert len(changed)
        assert (slides[changed] == slides[spot]).all()
        assert (domains[changed] == domains[spot]).all()


def test_domains_are_found_slide_by_slide():
    rng = np.random.default_rng(0)
    kind = np.tile([0, 1], 60)
    x, slides = rng.normal(size=(120, 4)) + 20 * kind[:, None], np.repeat(["A", "B"], 60)
    domains = domains_of(x, slides)
    assert not set(domains[slides == "A"]) & set(domains[slides == "B"])
    for domain in np.unique(domains):
        assert len(set(kind[domains == domain])) == 1  # no domain has spots of both kinds


def test_a_baseline_that_is_not_known_is_refused(cohort_source):
    with pytest.raises(ValueError, match=r"baselines must be some of .*, got \['magic'\]"):
        h2e.tl.evaluate(cohort_source, baselines=["magic"], progress=False)


def test_a_slide_of_few_spots_has_domain_means():
    y, slides = np.arange(63.0)[:, None], np.repeat(["A", "B"], [60, 3])
    for seed in range(20):
        assert np.isfinite(domain_means(y, slides, np.zeros(63, int), seed=seed)).all()
