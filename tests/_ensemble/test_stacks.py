from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from h2e._ensemble import fitting as _fitting
from h2e._ensemble import mlp as _mlp
from h2e._ensemble import stack as _stack
from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._ensemble.fold_models import Spots
from h2e._ensemble.mlp import fit_mlp
from h2e._ensemble.stack import (
    STACKS,
    Stack,
    averaging_ratio,
    cross_fitted,
    fit_stack,
    for_averages,
    restore_stack,
)
from h2e._ensemble.transforms import fit_transform
from h2e._learners.baselines import Mean
from h2e._learners.folds import make_folds
from h2e._learners.texture import Texture


def fit(spots: Spots, stack: str, *learners):
    folds = make_folds(spots.slides, spots.groups, np.zeros((len(spots.slides), 2)), buffer_um=0)
    return fit_members(spots, folds, FitConfig(learners or (Texture(),), "log", stack, 0, progress=False))


def spied(monkeypatch) -> list:
    """The inputs of each stack that is fitted, and which models are trained."""
    seen = []
    real = _fitting.fit_stack
    monkeypatch.setattr(
        _fitting, "fit_stack", lambda kind, x, *args, **kw: seen.append(x) or real(kind, x, *args, **kw)
    )
    return seen


# what the literal stacks are given


def test_the_nested_stack_is_given_predictions_by_models_that_did_not_see_the_group(spots: Spots, monkeypatch):
    seen = spied(monkeypatch)
    fit(spots, "nested")
    other = Spots(spots.slides, spots.groups, spots.x, spots.y.copy())
    of_b = spots.groups == "B"
    other.y[of_b] = -7 * other.y[of_b][::-1]
    fit(other, "nested")
    before, after = seen
    assert before.shape == (4, 100, 4)  # a model for each group left out
    np.testing.assert_array_equal(after[:, of_b], before[:, of_b])
    assert (after[:, ~of_b] != before[:, ~of_b]).any()
    same = spots.groups == "A"  # the input of group A's model at A's own spots is the plain held-out prediction
    np.testing.assert_array_equal(before[0, same], fit(spots, "mean").held_out[0, same])


def test_the_in_sample_stack_is_given_what_the_labels_leaked_into(spots: Spots, monkeypatch):
    seen = spied(monkeypatch)
    fit(spots, "in_sample")
    other = Spots(spots.slides, spots.groups, spots.x, spots.y.copy())
    of_b = spots.groups == "B"
    other.y[of_b] = -7 * other.y[of_b][::-1]
    fit(other, "in_sample")
    assert (seen[1][:, of_b] != seen[0][:, of_b]).any()


def test_a_nested_stack_trains_each_pair_of_groups_once(spots: Spots, monkeypatch):
    trained = []
    real = _fitting._fit
    monkeypatch.setattr(_fitting, "_fit", lambda *args, **how: trained.append(how["label"]) or real(*args, **how))
    fit(spots, "nested")
    pairs = [f"{a} and {b}" for a, b in combinations("ABCD", 2)]
    assert sorted(trained) == sorted([*(f"texture without {name}" for name in [*"ABCD", *pairs]), "texture of all"])


def test_models_of_the_same_groups_are_the_same_whoever_asks_for_them(spots: Spots, tmp_path):
    def run(keep: str) -> int:
        some = spots.take(np.flatnonzero(spots.groups != keep))
        folds = make_folds(some.slides, some.groups, np.zeros((len(some.slides), 2)), buffer_um=0)
        fit_members(some, folds, FitConfig((Texture(),), "log", "mean", 0, run_dir=tmp_path, progress=False))
        return len(list(tmp_path.iterdir()))

    assert run("A") == 4  # without B, C, D, and of all three
    assert run("B") == 7  # the one without A and B is there already


# the perceptron


def test_the_perceptron_learns_what_no_weighted_mean_can(monkeypatch):
    rng = np.random.default_rng(0)
    predictions = rng.normal(size=(2, 600, 2)).astype(np.float32)
    y = np.stack([predictions[0, :, 1], -predictions[1, :, 0]], axis=1)  # targets swapped, one turned round
    groups = np.repeat(list("ABCDEF"), 100)
    stack = fit_stack("mlp", predictions[:, :500], y[:500], groups[:500])
    error = ((stack.combine(predictions[:, 500:]) - y[500:]) ** 2).mean()
    assert error < 0.2
    again = fit_stack("mlp", predictions[:, :500], y[:500], groups[:500])
    np.testing.assert_array_equal(again.combine(predictions), stack.combine(predictions))
    restored = restore_stack("mlp", stack.arrays())
    np.testing.assert_array_equal(restored.combine(predictions), stack.combine(predictions))


def test_the_perceptron_stops_by_a_group_that_it_is_not_trained_on(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1, 60, 2)).astype(np.float32), rng.normal(size=(60, 2))
    validation = np.arange(60) >= 40
    monkeypatch.setattr(_mlp, "MAX_EPOCHS", 1)
    first = fit_mlp("mlp", x, y, validation, seed=0)
    other = y.copy()
    other[40:] = other[40:][::-1]  # the same mean and spread, other values
    second = fit_mlp("mlp", x, other, validation, seed=0)
    np.testing.assert_array_equal(first.combine(x), second.combine(x))  # one epoch: they have had no say yet


@pytest.mark.parametrize("stack", STACKS)
def test_with_two_groups_every_stack_is_the_mean(spots: Spots, stack: str):
    two = spots.take(np.flatnonzero(np.isin(spots.groups, ["A", "B"])))
    assert fit(two, stack, Texture(), Texture(head="knn")).stack.kind == "mean"


# averages in place of single models


def test_least_squares_weights_of_averages_are_those_of_single_models_over_the_ratio_of_variances(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20000, 1))
    single = truth + rng.normal(size=(8, 20000, 1))  # eight models with errors of their own
    average = single.mean(axis=0)
    weight = (single[0] * truth).sum() / (single[0] ** 2).sum()
    ratio = np.array([[average.var() / single[0].var()]])
    monkeypatch.setattr(_stack, "averaging_ratio", lambda *args: ratio)
    stack = Stack("ridge", np.zeros(1), np.array([[weight]]))
    rescaled = for_averages(stack, None, [], []).weights[0, 0]
    assert rescaled == pytest.approx((average * truth).sum() / (average**2).sum(), rel=0.02)
    error = {w: ((w * average - truth) ** 2).mean() for w in (weight, rescaled)}
    assert error[rescaled] < 0.5 * error[weight]


def test_the_ratio_is_one_for_a_learner_whose_models_agree_and_less_for_others(spots: Spots):
    fitted = fit(spots, "mean", Texture(), Mean())
    ratio = averaging_ratio(spots, fitted.members, ["texture", "mean"])
    np.testing.assert_array_equal(ratio[1], 1)
    assert ((ratio[0] > 0.5) & (ratio[0] < 1)).all()
    plain = Stack("mean", np.zeros(4), np.full((2, 4), 0.5))
    assert for_averages(plain, spots, fitted.members, ["texture", "mean"]) is plain


def test_a_stack_for_calibration_is_fitted_without_the_group_itself(spots: Spots):
    predictions = np.stack([spots.y, spots.y + np.random.default_rng(0).normal(size=spots.y.shape)])
    of_b = spots.groups == "B"
    before = cross_fitted("ridge", predictions, spots.y, spots.groups)
    y = spots.y.copy()
    y[of_b] += 100
    np.testing.assert_array_equal(cross_fitted("ridge", predictions, y, spots.groups)[of_b], before[of_b])


# two values a target


def test_the_mixed_transform_is_the_mean_of_its_two_ways_back(spots: Spots):
    z, mixed = fit_transform("mixed", spots.y, spots.slides, spots.groups)
    assert z.shape == (100, 8)
    parts = [fit_transform(kind, spots.y, spots.slides, spots.groups) for kind in ("standardized", "log")]
    np.testing.assert_array_equal(z, np.hstack([part for part, _ in parts]))
    expected = np.mean([transform.invert(part) for part, transform in parts], axis=0)
    np.testing.assert_allclose(mixed.invert(z), expected, rtol=1e-6)
