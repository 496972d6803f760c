from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

import h2e
from h2e._ensemble import extraction as _extraction
from h2e._ensemble import fitting as _fitting
from h2e._ensemble import mlp as _mlp
from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._ensemble.fold_models import ALL, Spots, names_of
from h2e._ensemble.stack import STACKS, fit_stack
from h2e._ensemble.transforms import TRANSFORMS, fit_transform, ranks
from h2e._learners.baselines import Coordinates, Mean
from h2e._learners.folds import derive_seed, make_folds
from h2e._learners.texture import Texture
from h2e._slide.tiles import View
from h2e._statistics import group_mean


def recipe(*learners, stack: str = "mean", transform: str = "standardized", **kwargs) -> FitConfig:
    return FitConfig(learners or (Texture(),), transform, stack, 0, progress=False, **kwargs)


def folds_of(spots: Spots) -> list:
    return make_folds(spots.slides, spots.groups, np.zeros((len(spots.slides), 2)), buffer_um=0)


# folds


def test_folds_leave_out_whole_groups_and_cover_every_spot_once(spots: Spots):
    folds = folds_of(spots)
    assert [f.name for f in folds] == ["A", "B", "C", "D"]
    np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(100))
    for fold in folds:
        assert set(spots.groups[fold.train]).isdisjoint(spots.groups[fold.test])
        assert len(fold.train) + len(fold.test) == 100


def test_quarters_of_one_slide_keep_their_distance():
    xy = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1).reshape(-1, 2) * 100.0
    one = np.full(100, "A")
    folds = make_folds(one, one, xy, buffer_um=300)
    assert len(folds) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(100))
    for fold in folds:
        distance = np.linalg.norm(xy[fold.train, None] - xy[None, fold.test], axis=-1)
        assert distance.min() > 300
    with pytest.raises(ValueError, match="too small for folds within it"):
        make_folds(one, one, xy, buffer_um=2000)
    with pytest.raises(ValueError, match="spots on tissue must be at least 8 .*, got 3"):
        make_folds(one[:3], one[:3], xy[:3], buffer_um=0)


def test_one_group_of_several_slides_is_refused():
    slides = np.array(["A", "B"])
    with pytest.raises(ValueError, match=r"groups must be at least 2 .*, got \['x'\] for 2 slides"):
        make_folds(slides, np.array(["x", "x"]), np.zeros((2, 2)), buffer_um=0)


def test_several_groups_are_left_out_at_a_time():
    groups = np.repeat(list("ABCDEFG"), [30, 1, 20, 9, 5, 5, 30])
    folds = make_folds(groups, groups, np.zeros((100, 2)), buffer_um=0, n_folds=3)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(100))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert sorted([*fold.train, *fold.test]) == list(range(100))
        # Seven groups of very different sizes in three parts.
        assert 30 <= len(fold.test) <= 36
        assert set(fold.name.split(", ")) == set(groups[fold.test]) or "others" in fold.name
    assert len({fold.name for fold in folds}) == 3
    again = make_folds(groups[::-1], groups[::-1], np.zeros((100, 2)), buffer_um=0, n_folds=3)
    assert {frozenset(groups[fold.test]) for fold in folds} == {frozenset(groups[::-1][fold.test]) for fold in again}


@pytest.mark.parametrize("n_folds", [0, 1, 4])
def test_so_many_folds_cannot_be_made(n_folds: int):
    groups = np.array(list("AABBCC"))
    with pytest.raises(ValueError, match=f"n_folds must be between 2 and the number of groups, 3, got {n_folds}"):
        make_folds(groups, groups, np.zeros((6, 2)), buffer_um=0, n_folds=n_folds)


def test_seeds_depend_on_names_only():
    assert derive_seed(0, "A", "texture") == derive_seed(0, "A", "texture")
    assert len({derive_seed(s, g, n) for s in (0, 1) for g in "AB" for n in ("x", "y")}) == 8


# transforms


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_the_way_back_gives_the_unit_of_the_targets(spots: Spots, kind: str):
    z, transform = fit_transform(kind, spots.y, spots.slides, spots.groups)
    back = transform.invert(z)
    assert back.dtype == np.float32
    assert np.abs(back.mean(axis=0) - spots.y.mean(axis=0)).max() < 0.5
    for t in range(4):
        assert np.corrcoef(back[:, t], spots.y[:, t])[0, 1] > (0.2 if kind == "spot_rank" else 0.6)
    if kind == "log":
        np.testing.assert_array_equal(back, spots.y)


def test_standardized_targets_have_mean_zero_and_spread_one_in_each_slide(spots: Spots):
    z, _ = fit_transform("standardized", spots.y, spots.slides, spots.groups)
    for slide in np.unique(spots.slides):
        np.testing.assert_allclose(z[spots.slides == slide].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(z[spots.slides == slide].std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_ranks_do_not_change_under_a_monotone_map(axis: int):
    y = np.random.default_rng(0).poisson(2, (30, 8)).astype(float)
    np.testing.assert_array_equal(ranks(y, axis=axis), ranks(np.expm1(y) * 3, axis=axis))


def test_a_target_that_is_constant_on_a_slide_stays_finite():
    y = np.zeros((6, 2), np.float32)
    y[:3, 1] = [1, 2, 3]
    for kind in TRANSFORMS:
        z, transform = fit_transform(kind, y, *[np.repeat(["A", "B"], 3)] * 2)
        assert np.isfinite(z).all()
        assert np.isfinite(transform.invert(z)).all()


def test_a_group_with_many_slides_does_not_set_the_level():
    y = np.array([[0.0], [2.0], [0.0], [2.0], [10.0], [12.0]])
    slides, groups = np.repeat(["A1", "A2", "B1"], 2), np.repeat(["A", "A", "B"], 2)
    _, transform = fit_transform("standardized", y, slides, groups)
    np.testing.assert_allclose(transform.invert(np.zeros((1, 1))), [[6.0]])  # (1 + 11) / 2


# stack


def test_the_mean_stack_is_the_mean(spots: Spots):
    predictions = np.stack([spots.y + 1, spots.y - 2])
    stack = fit_stack("mean", predictions, spots.y, spots.groups)
    np.testing.assert_allclose(stack.combine(predictions), predictions.mean(axis=0), rtol=1e-5)


def test_a_ridge_stack_trusts_the_better_learner_and_never_weighs_negatively(spots: Spots):
    rng = np.random.default_rng(0)
    good, noise = spots.y + rng.normal(0, 0.3, spots.y.shape), rng.normal(5, 1, spots.y.shape)
    predictions = np.stack([good, noise])
    stack = fit_stack("ridge", predictions, spots.y, spots.groups)
    assert stack.kind == "ridge"
    assert (stack.weights >= 0).all()
    assert (stack.weights[0] > stack.weights[1]).all()
    error = ((stack.combine(predictions) - spots.y) ** 2).mean()
    assert error < ((predictions.mean(axis=0) - spots.y) ** 2).mean()


def test_two_groups_cannot_choose_a_stack(spots: Spots):
    two = np.isin(spots.groups, ["A", "B"])
    predictions = np.stack([spots.y, -spots.y])[:, two]
    assert fit_stack("ridge", predictions, spots.y[two], spots.groups[two]).kind == "mean"


def test_groups_weigh_the_same_whatever_their_size():
    np.testing.assert_allclose(group_mean(np.array([[0.0], [0.0], [6.0]]), np.array(["A", "A", "B"])), [3.0])


def test_an_unknown_stack_or_transform_is_refused():
    with pytest.raises(ValueError, match=r"stack must be one of \['mean', 'ridge'.*, got 'best'"):
        recipe(stack="best")
    with pytest.raises(ValueError, match=r"transform must be one of \['log', .*, got 'square'"):
        recipe(transform="square")


# members


def test_held_out_predictions_come_from_models_that_did_not_see_the_group(spots: Spots):
    fitted = fit_members(spots, folds_of(spots), recipe())
    assert [m.held_out for m in fitted.members] == ["A", "B", "C", "D", ALL]
    flipped = Spots(spots.slides, spots.groups, spots.x, spots.y.copy())
    of_b = spots.groups == "B"
    flipped.y[of_b] = spots.y[of_b][::-1] * 7
    held_out, after = fitted.held_out[0], fit_members(flipped, folds_of(spots), recipe()).held_out[0]
    np.testing.assert_array_equal(after[of_b], held_out[of_b])
    assert (after[~of_b] != held_out[~of_b]).any()


def test_without_folds_there_is_one_model_of_all_and_the_mean(spots: Spots):
    fitted = fit_members(spots, [], recipe(Texture(), Texture(head="knn"), stack="ridge"))
    assert [(m.learner, m.held_out) for m in fitted.members] == [("texture", ALL), ("knn", ALL)]
    assert fitted.stack.kind == "mean"
    assert np.isnan(fitted.held_out).all()


class NoFeatures:
    """Features that no model may touch."""

    def __getitem__(self, rows: object) -> None:
        raise AssertionError(f"rows {rows} of another learner's features")


def test_a_model_takes_the_features_of_its_own_learner_only(spots: Spots):
    own = replace(spots, x={"texture": spots.x["texture"], "embedding": NoFeatures()})
    expected = fit_members(spots, folds_of(spots), recipe()).held_out
    np.testing.assert_array_equal(fit_members(own, folds_of(spots), recipe()).held_out, expected)


def test_models_of_all_spots_or_of_a_piece_in_a_row_are_trained_on_no_copy(spots: Spots, monkeypatch):
    shared = []
    fit = Texture.fit
    monkeypatch.setattr(
        Texture,
        "fit",
        lambda self, x, *args, **kwargs: (
            shared.append((len(x), np.shares_memory(x, spots.x["texture"]), x.flags.writeable))
            or fit(self, x, *args, **kwargs)
        ),
    )
    fit_members(spots, folds_of(spots), recipe())
    # Without A and without D the spots are in one piece; without B and without C they are in two.
    assert shared == [(60, True, False), (80, False, False), (80, False, False), (80, True, False), (100, True, False)]
    assert spots.x["texture"].flags.writeable


def test_targets_are_prepared_once_for_all_learners(spots: Spots, monkeypatch):
    calls = []
    real = _fitting.fit_transform
    monkeypatch.setattr(_fitting, "fit_transform", lambda *args: calls.append(1) or real(*args))
    fit_members(spots, folds_of(spots), recipe(Texture(), Texture(head="knn"), Mean()))
    assert len(calls) == 5


@pytest.fixture
def bars(monkeypatch) -> list[tuple[int, int]]:
    """Models counted and announced by each bar that was closed."""
    closed = []

    class Bar(tqdm):
        def close(self) -> None:
            if not self.disable:
                closed.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(_fitting, "tqdm", Bar)
    return closed


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4])
@pytest.mark.parametrize("stack", STACKS)
def test_the_progress_bar_counts_the_models_that_are_trained(
    spots: Spots, monkeypatch, caplog, bars, stack: str, n_groups: int
):
    monkeypatch.setattr(_mlp, "MAX_EPOCHS", 2)
    some = spots.take(np.flatnonzero(np.isin(spots.groups, list("ABCD")[:n_groups])))
    folds = folds_of(some) if n_groups > 1 else []
    fit_members(some, folds, replace(recipe(Texture(), Mean(), stack=stack), progress=True))
    ((n, total), *_) = bars
    pairs = n_groups * (n_groups - 1) // 2 if stack == "nested" and n_groups > 2 else 0
    assert n == total == 2 * (1 + len(folds) + pairs)
    assert (f"needs {n} models" in caplog.text) == (pairs > 0)


def test_evaluate_counts_the_models_of_all_groups_in_one_bar(few, bars):
    h2e.tl.evaluate(few, learners=[Mean(), Coordinates()], baselines="mean", targets=["TOY01"], group_key="donor")
    models = [(n, total) for n, total in bars if total is not None]
    # Two donors are left of three: a model without each, and one of both.
    assert models[0] == (18, 18)


def test_finished_models_are_taken_from_the_run_folder(spots: Spots, tmp_path: Path, monkeypatch):
    first = fit_members(spots, folds_of(spots), recipe(run_dir=tmp_path)).held_out
    stored = sorted(tmp_path.iterdir())
    assert len(stored) == 5
    (stored[0] / "weights.safetensors").write_bytes(b"broken")
    calls = []
    fit = Texture.fit
    monkeypatch.setattr(Texture, "fit", lambda *args, **kwargs: calls.append(1) or fit(*args, **kwargs))
    again = fit_members(spots, folds_of(spots), recipe(run_dir=tmp_path)).held_out
    assert len(calls) == 1  # only the broken one
    np.testing.assert_array_equal(first, again)
    fit_members(spots, folds_of(spots), recipe(run_dir=tmp_path, transform="log"))
    assert len(calls) == 6  # another recipe is another run


def test_two_learners_of_a_kind_have_two_names():
    assert names_of([Texture(), Mean(), Texture(setting=0.1)]) == ["texture", "mean", "texture 2"]


# files


@pytest.fixture(scope="module")
def fitted(cohort_source):
    return h2e.tl.fit(
        cohort_source,
        learners=[Texture(views=(View(2, 32),)), Mean()],
        n_targets=5,
        group_key="donor",
        stack=STACKS[1],
        progress=False,
    )


def test_a_saved_ensemble_loads_with_the_same_predictions(fitted, cohort, tmp_path: Path):
    fitted.save(tmp_path / "a" / "ensemble")
    loaded = h2e.Ensemble.load(tmp_path / "a" / "ensemble")
    assert repr(loaded) == repr(fitted)
    pd.testing.assert_frame_equal(loaded.loo, fitted.loo)
    pd.testing.assert_frame_equal(loaded.training, fitted.training)
    pd.testing.assert_frame_equal(loaded.history, fitted.history)
    assert (loaded.reference, loaded.spacing_um, loaded.learners) == (
        fitted.reference,
        fitted.spacing_um,
        fitted.learners,
    )
    h2e.tl.predict(cohort, fitted, in_sample=True, progress=False)
    h2e.tl.predict(cohort, loaded, in_sample=True, progress=False, key_added="loaded")
    table = cohort["table"]
    np.testing.assert_array_equal(table.obsm["loaded"], table.obsm["h2e"])
    np.testing.assert_array_equal(table.obsm["loaded_loo"], table.obsm["h2e_loo"])


def test_of_slides_that_were_trained_on_no_tile_is_read(fitted, cohort, new, monkeypatch):
    read, real = [], _extraction.view_windows
    monkeypatch.setattr(
        _extraction, "view_windows", lambda slide, *args, **kw: read.append(slide.name) or real(slide, *args, **kw)
    )
    h2e.tl.predict(cohort, fitted, progress=False)
    assert not read
    assert len(cohort["table"].obsm["h2e_loo"].dropna()) == len(fitted.loo)
    assert cohort["table"].obsm["h2e"].isna().all(axis=None)
    # Beside a new slide, too; what is new is predicted as without them.
    h2e.tl.predict(new, fitted, progress=False)
    part = h2e.pp.join_slides(
        {"known": cohort.filter_by_coordinate_system("toy_B1"), "new": new.filter_by_coordinate_system("toy_A1")}
    )
    read.clear()
    h2e.tl.predict(part, fitted, key_added="joined", progress=False)
    assert set(read) == {"new"}
    rows = new["table"].obs["region"].eq("toy_A1").to_numpy()
    np.testing.assert_array_equal(part["table"].obsm["joined"][-rows.sum() :], new["table"].obsm["h2e"][rows])


def test_saving_again_replaces_the_ensemble_and_nothing_else(fitted, tmp_path: Path):
    folder = tmp_path / "ensemble"
    fitted.save(folder)
    (folder / "notes.txt").write_text("years of work")
    (folder / "figures").mkdir()
    inode = folder.stat().st_ino
    fitted.save(folder)
    own = ["README.md", "ensemble.json", "weights.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*own, "figures", "notes.txt"])
    assert (folder / "notes.txt").read_text() == "years of work"
    assert folder.stat().st_ino == inode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ensemble"]
    h2e.Ensemble.load(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "years of work"},
        {"weights.safetensors": "of another tool"},
        {"ensemble.json": '{"layers": 3}', "weights.safetensors": "of another tool"},
        {"ensemble.json": "not even JSON"},
    ],
    ids=["other files", "other weights", "another's ensemble", "no JSON"],
)
def test_what_h2e_did_not_write_is_never_replaced(fitted, tmp_path: Path, files: dict[str, str]):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(FileExistsError, match=f"must be new, empty or hold an ensemble .* with .*{min(files)}"):
        fitted.save(tmp_path)
    with pytest.raises(FileExistsError, match="must not be a file"):
        fitted.save(tmp_path / min(files))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("weights.safetensors", lambda b: b[:-7], "truncated or changed"),
        ("weights.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "truncated or changed"),
        ("ensemble.json", lambda b: b[: len(b) // 2], "damaged: it is not JSON"),
        ("ensemble.json", lambda b: b.replace(b'"spacing_um": 2', b'"spacing_um": 3'), "changed after saving"),
        (
            "ensemble.json",
            lambda b: b.replace(b'"format": 1', b'"format": 99'),
            "has format 99, this version of h2e reads",
        ),
        ("ensemble.json", lambda _: b'{"layers": 3}', "was not written by h2e"),
        ("ensemble.json", lambda _: b"[1]", "was not written by h2e"),
    ],
    ids=["truncated", "bit flipped", "half a description", "number changed", "newer", "foreign", "no object"],
)
def test_a_damaged_folder_is_refused(fitted, tmp_path: Path, name: str, change, complaint: str):
    fitted.save(tmp_path / "ensemble")
    path = tmp_path / "ensemble" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=complaint):
        h2e.Ensemble.load(tmp_path / "ensemble")


def test_a_folder_without_an_ensemble_is_named(fitted, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="has no ensemble.json: it has nothing"):
        h2e.Ensemble.load(tmp_path / "nowhere")
    fitted.save(tmp_path / "ensemble")
    (tmp_path / "ensemble" / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights.safetensors: it has \['README.md', 'ensemble.json'\]"):
        h2e.Ensemble.load(tmp_path / "ensemble")


def test_the_description_is_plain_json(fitted, tmp_path: Path):
    fitted.save(tmp_path / "ensemble")
    about = json.loads((tmp_path / "ensemble" / "ensemble.json").read_text())
    assert about["targets"] == list(fitted.targets)
    assert about["settings"]["unit"] == "log-normalized expression"


@pytest.mark.parametrize("fails", range(1, 10))
def test_nothing_is_lost_wherever_saving_fails(fitted, tmp_path: Path, monkeypatch, fails: int):
    folder = tmp_path / "ensemble"
    fitted.save(folder)
    (folder / "notes.txt").write_text("years of work")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls = []

    def failing(real):
        """The function, which fails once: at one of the three writings or six movings."""

        def call(*args, **options):
            calls.append(args)
            if len(calls) == fails:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        return call

    for owner, name in ((Path, "write_bytes"), (Path, "write_text"), (os, "replace")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    with pytest.raises(OSError, match="No space left"):
        replace(fitted, spacing_um=1.0).save(folder)
    assert len(calls) >= fails
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ensemble"]
    replace(fitted, spacing_um=1.0).save(folder)
    assert h2e.Ensemble.load(folder).spacing_um == 1.0


@pytest.mark.parametrize("value", [0.1, 1 / 3, 3.7, 1e4])
def test_a_constant_of_a_slide_is_no_deviation_from_it(value: float):
    y = np.random.default_rng(0).normal(value, 1, (3000, 1)).astype(np.float32)
    slides = np.repeat(["A", "B", "C"], 1000)
    y[slides == "B"] = value
    z, _ = fit_transform("standardized", y, slides, slides)
    assert np.abs(z[slides == "B"]).max() < 1e-3 < z[slides == "A"].std()


def test_ranks_within_the_spot_need_two_targets():
    with pytest.raises(ValueError, match="must have several targets to rank at a spot, got one"):
        fit_transform("spot_rank", np.ones((3, 1)), *[np.repeat("A", 3)] * 2)
