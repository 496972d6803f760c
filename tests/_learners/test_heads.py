"""Heads are those of scikit-learn, are chosen and drawn towards the mean by groups, and cost little for many spots."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from h2e._learners import linear as _linear
from h2e._learners import nearest as _nearest
from h2e._learners.linear import PENALTIES, fit_linear, pls_path
from h2e._learners.nearest import fit_nearest
from h2e._learners.standardization import N_FOLDS, mean_and_std
from h2e._learners.texture import Texture
from h2e.metrics import skill

HEADS = ("ridge", "pls", "knn")
pairs = np.tile(["A", "B"], 30)


@pytest.fixture(scope="module")
def signal():
    """Features of several units, and targets that follow them."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 12)) * np.arange(1, 13) + 5
    return x, x @ rng.normal(size=(12, 3)) + rng.normal(size=(60, 3))


@pytest.mark.parametrize("d", [7, 90])
def test_ridge_is_that_of_scikit_learn(d):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, d)).clip(-2, 2)
    y = x @ rng.normal(size=(d, 3)) + 4
    ours = fit_linear(x, y, pairs, kind="ridge", setting=1e-3)
    scaler = StandardScaler().fit(x)
    theirs = Ridge(alpha=1e-3 * 60 * d).fit(scaler.transform(x), y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(scaler.transform(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_targets", [1, 3])
def test_partial_least_squares_converges_where_that_of_scikit_learn_does(n_targets):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 9)) @ rng.normal(size=(9, 9))
    y = x[:, :n_targets] + x[:, -n_targets:] ** 2 + rng.normal(size=(50, n_targets))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    path = pls_path(x, y, len(x), np.arange(1, 12))
    for k in range(1, 10):
        theirs = PLSRegression(k, scale=False, max_iter=100_000, tol=1e-14).fit(x, y).coef_.T
        np.testing.assert_allclose(path[k - 1], theirs, rtol=1e-5, atol=1e-7)
    # There are no more components than features.
    np.testing.assert_array_equal(path[9:], path[[8, 8]])


def test_nearest_neighbours_are_those_of_scikit_learn(signal, monkeypatch):
    x, y = signal
    z = StandardScaler().fit_transform(x).clip(-4, 4)
    expected = KNeighborsRegressor(5).fit(z, y).predict(z)
    np.testing.assert_allclose(fit_nearest(x, y, pairs, k=5).predict(x), expected, rtol=1e-4)
    monkeypatch.setattr(_nearest, "BLOCK", 7 * len(x))
    np.testing.assert_allclose(fit_nearest(x, y, pairs, k=5).predict(x), expected, rtol=1e-4)
    np.testing.assert_allclose(fit_nearest(x, y, pairs, k=99).predict(x), np.tile(y.mean(axis=0), (60, 1)), rtol=1e-4)


def test_of_a_large_group_some_spots_are_kept_and_of_a_small_one_all(signal, monkeypatch):
    x, y = signal
    monkeypatch.setattr(_nearest, "MOST", 20)
    groups = np.repeat(["A", "B"], [45, 15])
    model, every = fit_nearest(x, y, groups, k=1), StandardScaler().fit_transform(x).clip(-4, 4)
    at = [int(np.abs(every - row).sum(axis=1).argmin()) for row in model.x]
    np.testing.assert_allclose(model.x, every[at], rtol=1e-5)
    assert len(set(at)) == len(at) == 35
    assert set(at) > set(range(45, 60))


def test_features_beyond_those_of_training_change_nothing_more(signal):
    x, y = signal
    for model in (fit_linear(x, y, pairs, kind="ridge"), fit_nearest(x, y, pairs, k=3)):
        far = model.center + 5 * model.scale
        np.testing.assert_array_equal(model.predict(far[None]), model.predict(far[None] + 1000))


def test_settings_are_chosen_by_folds_that_never_divide_a_group(signal, monkeypatch):
    x, y = signal
    groups = np.random.default_rng(0).permutation(np.repeat([f"g{i}" for i in range(N_FOLDS + 2)], range(4, 12)))
    trained = []
    real = _linear.ridge_path
    monkeypatch.setattr(_linear, "ridge_path", lambda a, y, n, *args: trained.append(n) or real(a, y, n, *args))
    fit_linear(x, y, groups, kind="ridge")
    *inner, every = trained
    assert (every, len(inner)) == (60, N_FOLDS)
    # Of groups of 4 to 11 spots, the smallest two go to the folds that have fewest.
    assert sorted(60 - n for n in inner) == [8, 9, 10, 11, 11, 11]


def test_the_penalty_is_the_one_that_generalizes_to_left_out_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(list("ABCD"), 30)
    for noise in (0.1, 5, 20):
        x = rng.normal(size=(120, 40)).clip(-2, 2)
        y = x[:, :3] + noise * rng.normal(size=(120, 3))
        scores = []
        for penalty in PENALTIES:
            score = []
            for train, test in LeaveOneGroupOut().split(x, y, groups):
                scaler = StandardScaler().fit(x[train])
                model = Ridge(alpha=penalty * len(train) * 40).fit(scaler.transform(x[train]), y[train])
                p = model.predict(scaler.transform(x[test]))
                score.append(np.mean([np.corrcoef(p[:, i], y[test, i])[0, 1] for i in range(3)]))
            scores.append(np.mean(score))
        chosen = fit_linear(x, y, groups, kind="ridge").settings
        assert PENALTIES[np.argmax(scores)] in chosen
        np.testing.assert_array_equal(chosen, PENALTIES[np.array(scores) >= max(scores) - 0.2 * abs(max(scores))])


def test_settings_that_are_about_as_good_are_averaged(signal):
    x, y = signal
    model = fit_linear(x, y, pairs, kind="ridge")
    each = [fit_linear(x, y, pairs, kind="ridge", setting=s).coefficients for s in model.settings]
    assert len(each) > 1
    np.testing.assert_allclose(model.coefficients, np.mean(each, axis=0))


def test_one_group_gets_a_fixed_penalty(signal):
    x, y = signal
    assert fit_linear(x, y, np.repeat("A", 60), kind="ridge").settings == [3e-4]
    assert fit_linear(x, y, np.repeat("A", 60), kind="pls").settings == [5]


def test_constant_features_and_targets_give_finite_predictions():
    x, y = np.ones((10, 4)), np.zeros((10, 2))
    for kind in ("ridge", "pls"):
        assert np.isfinite(fit_linear(x, y, np.repeat(["A", "B"], 5), kind=kind).predict(x)).all()


def test_a_target_without_variation_does_not_disturb_the_others_of_pls(signal):
    x, y = signal
    groups = np.repeat(["A", "B", "C"], 20)
    constant = np.column_stack([y, np.full(len(y), 0.1, np.float32)])
    one, two = (fit_linear(x, values, groups, kind="pls").predict(x) for values in (y, constant))
    np.testing.assert_allclose(two[:, :-1], one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(two[:, -1], 0.1, atol=1e-5)


@pytest.mark.parametrize("kind", ["ridge", "pls"])
def test_many_spots_give_the_model_that_all_their_rows_would(kind, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 30)) @ rng.normal(size=(30, 30)) + np.repeat(rng.normal(size=(3, 30)), 100, axis=0)
    x[:, 7] = 1
    y, groups = x[:, :2] + 30 * rng.normal(size=(300, 2)), np.repeat(list("ABC"), 100)
    monkeypatch.setattr(_linear, "BLOCK", 40)
    fewer = fit_linear(x, y, groups, kind=kind)
    rows = []

    def every_row(x, y, scaling, about=None):
        z, (center, scale) = StandardScaler().fit(x), scaling
        assert z.scale_.shape == scale.shape
        z = ((x - center) / scale).clip(-4, 4)
        mean_x, mean_y = z.mean(axis=0), y.mean(axis=0)
        about = (mean_x, mean_y) if about is None else about
        rows.append(len(x))
        last = np.sqrt(len(x)) * (mean_x - about[0]), np.sqrt(len(x)) * (mean_y - about[1])
        return mean_x, np.vstack([z - mean_x, last[0]]), np.vstack([y - mean_y, last[1]])

    monkeypatch.setattr(_linear, "_fewer_rows", every_row)
    model = fit_linear(x, y, groups, kind=kind)
    assert rows == [200, 100] * 3 + [300]
    np.testing.assert_array_equal(fewer.settings, model.settings)
    np.testing.assert_allclose(fewer.coefficients, model.coefficients, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fewer.intercept, model.intercept, rtol=1e-5, atol=1e-7)


@pytest.fixture
def no_shrinkage(monkeypatch):
    """Models as they are without it."""
    with monkeypatch.context() as patch:
        for module in (_linear, _nearest):
            patch.setattr(module, "shrinkage", lambda *_: 1.0)
        yield patch


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("names", ["A", "ABC"])
def test_nothing_to_learn_gives_nothing(head, names, no_shrinkage):
    rng, values = np.random.default_rng(1), []
    x, groups = rng.normal(size=(400, 80)) @ rng.normal(size=(80, 80)), np.repeat(list(names), 240 // len(names))

    def worst() -> float:
        for _ in range(3):
            y = rng.normal(size=(400, 10))
            model = Texture(head).fit(x[:240], y[:240], groups)
            values.append(skill(model.predict(x[240:]), y[240:], y[:240].mean(axis=0)).mean())
        return min(values[-3:])

    assert worst() < -0.02
    no_shrinkage.undo()
    assert worst() > -0.02


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("groups", [pairs, np.repeat("A", 60)], ids=["AB", "A"])
def test_what_generalizes_is_not_drawn_towards_the_mean(head, groups, signal, no_shrinkage):
    x, y = signal
    free = Texture(head, k=3).fit(x, y, groups).predict(x)
    no_shrinkage.undo()
    np.testing.assert_array_equal(Texture(head, k=3).fit(x, y, groups).predict(x), free)


def test_shrinkage_sees_predictions_of_left_out_groups_with_their_level(signal, monkeypatch):
    x, y = (
        signal[0] + 3 * (pairs == "A")[:, None],
        StandardScaler().fit_transform(signal[1] + 5 * (pairs == "B")[:, None]),
    )
    seen, expected = [], []
    monkeypatch.setattr(_linear, "shrinkage", lambda *sums: seen.append(sums) or 1.0)
    fit_linear(x, y, pairs, kind="ridge", setting=1e-2)
    for name in "AB":
        inner, outer = pairs != name, pairs == name
        scaler = StandardScaler().fit(x[inner])
        model = Ridge(alpha=1e-2 * 30 * 12).fit(scaler.transform(x[inner]).clip(-4, 4), y[inner])
        p, mean = model.predict(scaler.transform(x[outer]).clip(-4, 4)), y[inner].mean(axis=0)
        expected.append((((p - mean) * (y[outer] - mean)).sum(), ((p - mean) ** 2).sum()))
    # In whatever order groups were left out.
    np.testing.assert_allclose(sorted(zip(*seen[0], strict=True)), sorted(expected), rtol=1e-6)


def test_training_holds_no_second_copy_of_all_features():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (40_000, 60)).astype(np.float32), rng.normal(size=(40_000, 2)).astype(np.float32)
    np.testing.assert_allclose(mean_and_std(x), (x.mean(0, np.float64), x.std(0, np.float64)), rtol=1e-12)
    groups = np.repeat(["A", "B"], 20_000)
    tracemalloc.start()
    fit_linear(x, y, groups, kind="ridge")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Those of an inner fold and of what it leaves out are copies; nothing is in double precision but a block of spots.
    assert peak < 1.6 * x.nbytes


def test_ridge_on_wide_features_is_that_of_the_rows_in_double_precision(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 30)).astype(np.float32)
    y = (x[:, :3] + rng.normal(size=(240, 3))).astype(np.float32)
    groups = np.repeat(["A", "B", "C"], 80)
    with monkeypatch.context() as patch:
        patch.setattr(_linear, "PENALTIES", _linear.PENALTIES[::2])
        narrow = fit_linear(x, y, groups, kind="ridge")
    monkeypatch.setattr(_linear, "WIDE", 30)
    monkeypatch.setattr(_linear, "LARGE", 30)
    monkeypatch.setattr(_linear, "BLOCK", 70)
    wide = fit_linear(x, y, groups, kind="ridge")
    assert wide.coefficients.dtype == np.float32
    np.testing.assert_array_equal(wide.settings, narrow.settings)
    np.testing.assert_allclose(wide.predict(x), narrow.predict(x), atol=2e-3)
