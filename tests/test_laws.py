"""The laws of the whole path, through the public functions."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import KDTree
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, TableModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    Sequence,
    Translation,
    get_transformation,
    set_transformation,
)

import h2e
from h2e._ensemble import mlp as _mlp
from h2e._ensemble.stack import STACKS
from h2e._learners.baselines import Coordinates
from h2e._learners.embedding import Embedding
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture
from h2e._sdata.cohort import open_cohort, open_new_cohort
from h2e._sdata.keys import Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.targets import measured
from h2e._slide.tiles import View


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


SMALL = (View(2, 32),)  # one small view, so that the tests are quick
TEXTURE = Texture(views=SMALL)
# Flipped counts are those of spots that lie beside the tissue.
pytestmark = pytest.mark.filterwarnings("ignore:spots with counts have no tissue under them")

NETWORK = Multiscale(epochs=1, tile_px=26, subtile_px=16, encoders=("center",), symmetries=False)
QUICK = [TEXTURE, Texture(head="knn", views=SMALL)]


def documented_learner() -> h2e.tl.Learner:
    """The learner of a user: the first block of the page that says how to write one."""
    page = (Path(__file__).parents[1] / "docs" / "learners.md").read_text(encoding="utf-8")
    code, names = re.search(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)[1], {"__name__": "own"}
    exec(compile(code, "docs/learners.md", "exec", dont_inherit=True), names)
    return names["KernelRidge"]()


OWN = documented_learner()
EVERY_LEARNER = [*QUICK, Embedding(lambda images: images.mean((2, 3)), px=8), Coordinates(), NETWORK, OWN]


@pytest.fixture(autouse=True)
def short_training_of_the_perceptron(monkeypatch):
    monkeypatch.setattr(_mlp, "MAX_EPOCHS", 3)


def fit(sdata, **kwargs):
    options = {"learners": TEXTURE, "n_targets": 5, "group_key": "donor", "progress": False}
    return h2e.tl.fit(sdata, **options | kwargs)


def evaluate(sdata, **kwargs):
    options = {
        "learners": TEXTURE,
        "baselines": ["mean", "coordinates"],
        "n_targets": 5,
        "group_key": "donor",
        "progress": False,
        "metrics": "pearson",
    }
    return h2e.tl.evaluate(sdata, **options | kwargs)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A folder of finished models: a stack that is tested after another trains only what the others did not ask for."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def one(cohort_source) -> h2e.Ensemble:
    """An ensemble of one target, trained once for all that only predict with it."""
    return fit(cohort_source, targets=["TOY01"])


@pytest.fixture(scope="module")
def three(cohort_source) -> h2e.Ensemble:
    """An ensemble of three targets."""
    return fit(cohort_source, targets=["TOY01", "TOY02", "TOY05"])


@pytest.fixture(scope="module")
def of_proportions(cohort_source) -> h2e.Ensemble:
    """An ensemble of the proportions of cell types."""
    return fit(cohort_source, obsm="proportions")


def with_labels_of(sdata, group: str, change) -> SpatialData:
    """Change the expression of one donor's spots, and nothing else."""
    table = sdata["table"]
    x = table.X.toarray()
    of_group = (table.obs["donor"] == group).to_numpy()
    x[of_group] = change(x[of_group])
    table.X = type(table.X)(x)
    return sdata


def flipped(x: np.ndarray) -> np.ndarray:
    """Other genes vary, in other places, at other levels."""
    return np.roll(x.max() - x[::-1], 7, axis=1)


# 1. Nothing of the held-out group reaches its predictions.


def learners_with(stack: str) -> list:
    """All learners; quick ones with the stack that trains a model for each two groups: who learns does not matter."""
    return QUICK if stack == "nested" else EVERY_LEARNER


@pytest.mark.parametrize("stack", STACKS)
def test_flipping_a_groups_labels_leaves_its_held_out_predictions_as_they_were(few, stack: str, run_dir: Path):
    targets = ["TOY01", "TOY05", "TOY09"]
    options = {"learners": learners_with(stack), "targets": targets, "stack": stack, "run_dir": run_dir}
    before = fit(few, **options).loo
    after = fit(with_labels_of(few, "B", flipped), **options).loo
    of_b = before.index.get_level_values("region") == "toy_B1"
    pd.testing.assert_frame_equal(after[of_b], before[of_b], check_exact=True)
    assert (after[~of_b] != before[~of_b]).any(axis=None)


@pytest.mark.parametrize(
    ("stack", "normalize"), [*((stack, False) for stack in STACKS), ("mean", True)], ids=[*STACKS, "normalized"]
)
def test_evaluate_predicts_a_group_without_its_labels(few, stack: str, normalize: bool, monkeypatch, run_dir: Path):
    if normalize:
        h2e.pp.normalize_stains(few)
    learners = QUICK if normalize else learners_with(stack)
    assert_held_out_labels_do_not_matter(few, learners, stack, monkeypatch, run_dir)


def test_an_epoch_is_chosen_without_the_labels_of_the_group(few, monkeypatch):
    stopped = replace(NETWORK, epochs=2, stopping="inner group")
    assert_held_out_labels_do_not_matter(few, [stopped], "mean", monkeypatch)


def assert_held_out_labels_do_not_matter(
    few, learners: list, stack: str, monkeypatch, run_dir: Path | None = None
) -> None:
    """Flip the labels of one slide, and compare what is predicted for it."""
    options = {"learners": learners, "stack": stack, "run_dir": run_dir}
    options["group_key"] = "region"  # four groups: three inside, which are enough to fit a stack on
    seen = []
    spy_on_predictions(monkeypatch, seen)
    leave_out_those_looked_at(monkeypatch)
    evaluate(few, **options)
    before = dict(seen)
    seen.clear()
    evaluate(with_labels_of(few, "B", flipped), **options)
    after = dict(seen)
    assert set(before) == set(after) == LOOKED_AT
    for method, prediction in before["toy_B1"].items():
        np.testing.assert_array_equal(after["toy_B1"][method], prediction, err_msg=method)
    assert (after["toy_A1"]["ensemble"] != before["toy_A1"]["ensemble"]).any()


LOOKED_AT = {"toy_B1", "toy_A1"}
"""The slide whose labels are flipped, and one other."""


def leave_out_those_looked_at(monkeypatch) -> None:
    """Evaluate no other groups, which halves what is trained; inside a group nothing is different."""
    from h2e.tl import _evaluate

    real = _evaluate.folds_within
    monkeypatch.setattr(_evaluate, "folds_within", lambda *args: [f for f in real(*args) if f.name in LOOKED_AT])


def spy_on_predictions(monkeypatch, seen: list) -> None:
    from h2e._ensemble import held_out as _held_out

    real = _held_out.held_out_predictions

    def spy(features, spec, fold, *args, **kwargs):
        found = real(features, spec, fold, *args, **kwargs)
        told = {method: p for method, p in found.predictions.items() if "domains" not in method}  # the oracle is told
        told |= {f"half width {level}": width for level, width in found.half_widths.items()}
        seen.append((fold.name, {**told, "mean": found.mean, "targets": np.array(found.truth.columns, dtype=str)}))
        return found

    monkeypatch.setattr(_held_out, "held_out_predictions", spy)


def test_the_leak_test_sees_a_leak_in_the_choice_of_targets(few, monkeypatch):
    from h2e._sdata.target_spec import TargetSpec

    real = TargetSpec.measured
    monkeypatch.setattr(TargetSpec, "measured", lambda self, train: real(self, np.arange(len(self.cohort.rows))))
    with pytest.raises(AssertionError):
        assert_held_out_labels_do_not_matter(few, QUICK, "mean", monkeypatch)


def test_the_leak_test_sees_a_leak_into_the_stack(few, monkeypatch):
    from h2e._ensemble import fitting as _fitting
    from h2e._ensemble import held_out as _held_out

    everything = []
    real_train, real_stack = _held_out.train, _fitting.fit_stack

    def train(features, spec, spots, *args, **kwargs):
        everything[:] = [spec.measured(spots).to_numpy()]
        return real_train(features, spec, spots, *args, **kwargs)

    def leaky_stack(kind, predictions, y, groups, **kwargs):
        stack = real_stack(kind, predictions, y, groups, **kwargs)
        return type(stack)(stack.kind, everything[0].mean(axis=0) if everything else stack.center, stack.weights * 0.9)

    monkeypatch.setattr(_held_out, "train", train)
    monkeypatch.setattr(_fitting, "fit_stack", leaky_stack)
    with pytest.raises(AssertionError):
        assert_held_out_labels_do_not_matter(few, QUICK, "ridge", monkeypatch)


# 2. Ranks: tests/test_ranks.py. 3. Tiles: tests/test_tiles.py. 4. Stains: tests/test_stains.py.

# 5. Same seed, same ensemble.


def test_the_same_seed_gives_the_same_ensemble_and_another_seed_another(few):
    network = [NETWORK]
    first, again, other = (fit(few, learners=network, targets=["TOY01"], seed=s).loo for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first != other).to_numpy().any()


def test_training_leaves_the_global_random_state_alone(few):
    import torch

    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    fit(few, learners=[NETWORK], targets=["TOY01"])
    assert (torch.rand(1), np.random.rand()) == before  # noqa: NPY002


# 6. Predictions do not depend on the order of slides.


def test_the_order_of_slides_and_spots_does_not_matter(cohort, three):
    shuffle_rows(cohort)
    after = fit(cohort, targets=["TOY01", "TOY02", "TOY05"]).loo
    pd.testing.assert_frame_equal(after.sort_index(), three.loo.sort_index(), rtol=1e-4)


def test_nor_does_the_order_of_rows_to_a_network_that_is_trained_in_random_batches(two_slides):
    before = fit(two_slides, learners=[NETWORK], targets=["TOY01"]).loo
    shuffle_rows(two_slides)
    after = fit(two_slides, learners=[NETWORK], targets=["TOY01"]).loo
    pd.testing.assert_frame_equal(after.sort_index(), before.sort_index(), rtol=1e-5)


def test_spots_at_one_place_are_told_apart_by_their_instance(two_slides):
    region = two_slides["table"].obs["region"].iloc[0]
    circles = two_slides.shapes[region]
    circles.geometry = [circles.geometry.iloc[10]] * 5 + list(circles.geometry[5:])
    before = open_cohort(two_slides, Keys()).identity
    shuffle_rows(two_slides)
    assert open_cohort(two_slides, Keys()).identity.equals(before)


def shuffle_rows(sdata) -> None:
    """Put the rows of the table into another order."""
    table = sdata["table"]
    del sdata.tables["table"]
    sdata["table"] = table[np.random.default_rng(0).permutation(table.n_obs)].copy()


def test_a_distributed_client_changes_nothing(cohort):
    from distributed import Client, LocalCluster

    h2e.pp.normalize_stains(cohort)
    before = fit(cohort, targets=["TOY01"]).loo
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster):
        after = fit(cohort, targets=["TOY01"]).loo
    pd.testing.assert_frame_equal(after, before, check_exact=True)


def test_chunks_do_not_matter(cohort, one):
    for image in cohort.images.values():
        for level in image.children.values():
            level["image"] = level["image"].chunk({"y": 77, "x": 50})
    pd.testing.assert_frame_equal(fit(cohort, targets=["TOY01"]).loo, one.loo, rtol=1e-5)


# 7. Constant and shuffled predictions.


def test_the_mean_scores_nothing_and_shuffled_labels_score_nothing(cohort):
    scores = evaluate(cohort, learners="mean", baselines=["mean"], metrics=["pearson", "spearman", "skill"])
    scores = scores[scores["method"] != "ceiling"]
    assert (scores.loc[scores["metric"].isin(["pearson", "spearman"]), "value"] == 0).all()
    rng = np.random.default_rng(0)
    for donor in "ABC":
        with_labels_of(cohort, donor, lambda x: x[rng.permutation(len(x))])
    genes = [f"TOY{i:02}" for i in range(1, 31)]
    shuffled = evaluate(cohort, targets=genes, baselines=[])
    shuffled = shuffled[(shuffled["metric"] == "pearson") & (shuffled["method"] == "ensemble")]
    mean = shuffled.groupby("slide")["value"].mean().mean()
    assert abs(mean) < 0.06  # 30 genes on 4 slides of 60 spots: 0.13 / sqrt(30 · 4) if independent, which genes are not


def test_counts_without_biology_score_what_is_said_of_them_and_nothing_at_equal_depth(cohort):
    """Through ``evaluate``: genes at constant shares; what is left of a score is that of depth, and 0 at equal depth."""
    table = cohort["table"]
    rng = np.random.default_rng(0)
    # As real tissue has it: where there are more cells, there are more counts.
    totals = (400 * (1 + np.asarray(table.X.sum(axis=1)).ravel() / table.X.sum() * table.n_obs)).astype(int)
    genes = [f"TOY{i:02}" for i in range(1, 31)]
    shares = np.where(table.var_names.isin(genes), 5e-3, 1.0)
    table.X = sparse.csr_matrix(rng.poisson(np.outer(totals, shares / shares.sum())).astype(np.float32))
    scores = evaluate(cohort, targets=genes, baselines=["depth"], metrics=None)
    for method in ("ensemble", "oracle: depth"):
        means = scores[scores["method"] == method].groupby(["metric", "target"])["value"].mean().unstack("metric")
        error = means.std() / np.sqrt(len(genes))
        difference = (means["pearson"] - means["pearson_no_biology"]).mean()
        assert abs(difference) < 2.5 * error["pearson"]
        assert abs(means["pearson_equal_depth"].mean()) < 2.5 * error["pearson_equal_depth"]


def test_predictions_that_are_returned_are_those_that_were_scored(few):
    options = {"learners": "texture", "group_key": "donor", "progress": False, "baselines": []}
    scores, predictions = h2e.tl.evaluate(few, n_targets=4, **options, return_predictions=True)
    table = few["table"]
    assert predictions.index.equals(table.obs_names)
    table.obsm["evaluated"] = predictions
    pearson = scores[(scores["metric"] == "pearson") & (scores["method"] == "ensemble")]
    for slide, of_slide in pearson.groupby("slide"):
        part = table[(table.obs["region"] == slide) & predictions.notna().any(axis=1)]
        # Each donor has its own targets.
        assert set(part.obsm["evaluated"].dropna(axis=1, how="all")) == set(of_slide["target"])
        truth = measured(table, list(of_slide["target"])).loc[part.obs_names]
        r = h2e.metrics.pearson(part.obsm["evaluated"][list(of_slide["target"])], truth)
        np.testing.assert_allclose(r, of_slide["value"], atol=1e-6)


def test_a_planted_relation_is_found_where_the_donor_was_never_seen(cohort):
    scores = evaluate(cohort, n_targets=10, metrics=["pearson", "skill"])
    table = h2e.metrics.summarize(scores).set_index(["method", "metric"])["mean"]
    assert table["ensemble", "pearson"] > 0.3
    assert table["ensemble", "pearson"] > table["baseline: coordinates", "pearson"] + 0.2


def test_a_given_reference_is_evaluated_as_it_is_and_a_pooled_one_anew(cohort):
    h2e.pp.normalize_stains(cohort)
    opened = open_cohort(cohort, Keys(group_key="donor"))
    without_a = np.flatnonzero(opened.groups != "A")
    assert opened.reference_of(without_a) != opened.reference
    h2e.pp.normalize_stains(cohort, opened.reference)
    opened = open_cohort(cohort, Keys(group_key="donor"))
    assert opened.reference_of(without_a) == opened.reference


# 8. Resolution and grids.


def finer(sdata, factor: int) -> SpatialData:
    """The same tissue with ``factor`` times the pixels."""
    images = {}
    for key, element in sdata.images.items():
        pixels = element["scale0"]["image"].data.compute().repeat(factor, axis=1).repeat(factor, axis=2)
        system = key.removesuffix("_image")
        images[key] = Image2DModel.parse(
            pixels,
            dims=("c", "y", "x"),
            c_coords=["r", "g", "b"],
            scale_factors=[2, 2, 2],
            transformations={system: Scale([1 / factor, 1 / factor], ("x", "y"))},
        )
    table = sdata["table"].copy()
    table.obs["um_per_px"] /= factor  # of a pixel of these images
    return SpatialData(images=images, shapes=dict(sdata.shapes), tables={"table": table})


def test_the_same_tissue_at_twice_the_resolution_gives_the_same_predictions(cohort, three):
    twice = finer(cohort, 2)
    h2e.tl.predict(cohort, three, in_sample=True, progress=False)
    h2e.tl.predict(twice, three, in_sample=True, progress=False)
    a, b = cohort["table"].obsm["h2e"].dropna(), twice["table"].obsm["h2e"].dropna()
    both = a.index.intersection(b.index)
    assert len(both) > 0.97 * len(a)
    assert np.abs(a.loc[both] - b.loc[both]).to_numpy().mean() < 0.1 * a.to_numpy().std(axis=0).mean()


def test_a_grid_twice_as_fine_gives_the_same_values_at_the_shared_points(new, three):
    grids = []
    for spacing in (200.0, 100.0):
        bare = SpatialData(images={"slide": new.images["toy_C1_image"]})
        h2e.pp.make_spots(bare, spacing_um=spacing, um_per_px=6.25)
        h2e.tl.predict(bare, three, progress=False)
        (region,) = bare.shapes
        xy = np.column_stack([bare.shapes[region].geometry.x, bare.shapes[region].geometry.y]).round(3)
        frame = bare["table"].obsm["h2e"]
        grids.append({tuple(p): v for p, v in zip(xy.tolist(), frame.to_numpy().tolist(), strict=True)})
    coarse, fine = grids
    shared = set(coarse) & set(fine)
    assert len(shared) == len(coarse)
    assert len(fine) > 3 * len(coarse)
    values = np.array([coarse[p] for p in shared])
    assert np.isfinite(values).all()
    np.testing.assert_allclose([fine[p] for p in shared], values, rtol=1e-5)


# 9. Light import: tests/test_conventions.py.

# 10. A subset of the spots.


def test_predicting_a_subset_of_the_spots_gives_the_same_values(cohort, three):
    h2e.tl.predict(cohort, three, in_sample=True, progress=False)
    every, novelties = cohort["table"].obsm["h2e"], cohort["table"].obs["h2e_novelty"]
    table = cohort["table"][::3].copy()
    table.obsm.clear()
    table.uns.pop("h2e")
    del table.obs["h2e_novelty"]
    del cohort.tables["table"]
    cohort["table"] = table
    h2e.tl.predict(cohort, three, in_sample=True, progress=False)
    pd.testing.assert_frame_equal(table.obsm["h2e"], every.loc[table.obs_names], rtol=1e-6)
    novelty = cohort["table"].obs["h2e_novelty"]
    np.testing.assert_allclose(novelty, novelties.loc[table.obs_names], rtol=1e-4)


def test_positions_do_not_depend_on_the_other_spots_and_are_in_um(cohort):
    from h2e._ensemble.extraction import from_middle_um

    mask = np.zeros((104, 104), bool)
    mask[20:80, 10:60] = True  # in pixels of 4: from (40, 80) to (240, 320)
    slide = replace(find_slides(cohort)[0], tissue=(mask, 4.0))
    xy = from_middle_um(slide)
    np.testing.assert_allclose(xy, (slide.xy - [140, 200]) * 6.25, rtol=1e-5)
    np.testing.assert_array_equal(from_middle_um(slide.take(np.arange(0, 60, 7))), xy[::7])


# Stored keys.


def test_training_spots_get_held_out_predictions_and_new_spots_predictions(cohort, new, one):
    h2e.tl.predict(cohort, one, progress=False)
    table = cohort["table"]
    assert table.obsm["h2e"].isna().all(axis=None)
    valid = table.obsm["h2e_loo"].notna()["TOY01"]
    assert valid.sum() == len(one.loo)
    np.testing.assert_array_equal(np.sort(table.obsm["h2e_loo"]["TOY01"].dropna()), np.sort(one.loo["TOY01"]))
    h2e.tl.predict(new, one, progress=False)
    assert "h2e_loo" not in new["table"].obsm
    assert new["table"].obsm["h2e"].notna().to_numpy().mean() > 0.9
    assert new["table"].obsm["h2e"].dtypes.unique() == [np.float32]
    assert new["table"].uns["h2e"]["unit"] == "log-normalized expression"


def renamed(sdata: SpatialData) -> SpatialData:
    table = sdata["table"].copy()
    table.obs["region"] = (table.obs["region"].astype(str) + "_v2").astype("category")
    del table.uns["spatialdata_attrs"]
    names = sorted(table.obs["region"].unique())
    table = TableModel.parse(table, region=names, region_key="region", instance_key="instance_id")
    shapes = {f"{key}_v2": value for key, value in sdata.shapes.items()}
    return SpatialData(images=dict(sdata.images), shapes=shapes, tables={"table": table})


def coarser(sdata: SpatialData) -> SpatialData:
    images = {}
    for key, element in sdata.images.items():
        system = key.removesuffix("_image")
        images[key] = Image2DModel.parse(
            element["scale1"]["image"].data,
            dims=("c", "y", "x"),
            c_coords=["r", "g", "b"],
            transformations={system: Scale([2, 2], ("x", "y"))},
        )
    table = sdata["table"].copy()
    table.obs["um_per_px"] *= 2  # of a pixel of these images
    return SpatialData(images=images, shapes=dict(sdata.shapes), tables={"table": table})


def realigned(sdata: SpatialData) -> SpatialData:
    h2e.pp.realign_spots(sdata)
    return sdata


@pytest.mark.parametrize("change", [renamed, coarser, realigned])
def test_a_training_slide_is_recognized_whatever_was_done_to_it(cohort, change, one):
    same = change(cohort)
    h2e.tl.predict(same, one, progress=False)
    assert same["table"].obsm["h2e"].isna().all(axis=None)
    assert same["table"].obs["h2e_novelty"].isna().all()
    stayed = one.loo  # of a spot that was moved, it is the prediction of another place
    if change is realigned:
        stayed = stayed.drop("toy_A2", level="region")
    assert len(stayed) >= same["table"].obsm["h2e_loo"].notna().sum().item() > 0.97 * len(stayed)


def test_spots_of_a_training_slide_that_were_not_trained_on_are_no_new_spots(cohort):
    half = cohort["table"][::2].copy()
    few = SpatialData(images=dict(cohort.images), shapes=dict(cohort.shapes), tables={"table": half})
    ensemble = fit(few, targets=["TOY01"])
    h2e.tl.predict(cohort, ensemble, progress=False)
    assert cohort["table"].obsm["h2e"].isna().all(axis=None)
    assert cohort["table"].obsm["h2e_loo"].notna().sum().item() == len(ensemble.loo)
    h2e.tl.predict(cohort, ensemble, in_sample=True, progress=False)
    assert cohort["table"].obsm["h2e"].notna().sum().item() > 1.8 * len(ensemble.loo)


@pytest.mark.parametrize("keep_residual", [True, False])
def test_a_raw_image_is_predicted_like_one_normalized_to_the_ensembles_reference(cohort, new, keep_residual: bool):
    h2e.pp.normalize_stains(cohort, keep_residual=keep_residual)
    ensemble = fit(cohort, targets=["TOY01", "TOY02"])
    assert ensemble.reference is not None
    raw, prepared = new, h2e.datasets.toy_cohort(seed=1)
    h2e.pp.normalize_stains(prepared, ensemble.reference, keep_residual=keep_residual)
    h2e.tl.predict(raw, ensemble, progress=False)
    h2e.tl.predict(prepared, ensemble, progress=False)
    pd.testing.assert_frame_equal(raw["table"].obsm["h2e"], prepared["table"].obsm["h2e"])
    keys = {region: f"{region}_image_normalized" for region in prepared.shapes}
    with pytest.raises(ValueError, match="was normalized by h2e; pass 'toy_A1_image', which it was made from"):
        h2e.tl.predict(prepared, ensemble, image_key=keys, progress=False)


def test_predictions_survive_the_store_and_are_read_by_scanpy(cohort, tmp_path):
    h2e.pp.normalize(cohort)
    ensemble = fit(cohort, targets=["TOY01", "TOY02"])
    h2e.tl.predict(cohort, ensemble, progress=False)
    cohort.write(tmp_path / "cohort.zarr")
    back = SpatialData.read(tmp_path / "cohort.zarr")
    pd.testing.assert_frame_equal(back["table"].obsm["h2e_loo"], cohort["table"].obsm["h2e_loo"])
    table = h2e.get.predictions(back["table"], key="h2e_loo")
    assert list(table.var_names) == ["TOY01", "TOY02"]
    assert table.n_obs == len(ensemble.loo)
    h2e.tl.predict(back, ensemble, progress=False)  # what was stored is recognized as ours, and the slides as known
    pd.testing.assert_frame_equal(back["table"].obsm["h2e_loo"], cohort["table"].obsm["h2e_loo"])


def test_fit_writes_nothing(cohort):
    keys = {slot: sorted(getattr(cohort["table"], slot)) for slot in ("obs", "obsm", "uns", "var", "layers")}
    elements = sorted(name for _, name, _ in cohort.gen_elements())
    fit(cohort, targets=["TOY01"])
    assert {slot: sorted(getattr(cohort["table"], slot)) for slot in keys} == keys
    assert sorted(name for _, name, _ in cohort.gen_elements()) == elements


def test_slides_with_only_an_image_get_a_grid_of_spots(new, one):
    element = new.images["toy_C1_image"]["scale0"]["image"].data
    bare = SpatialData(
        images={"he": Image2DModel.parse(element, dims=("c", "y", "x"), transformations={"g": Identity()})}
    )
    with pytest.raises(ValueError, match="um_per_px"):
        h2e.tl.predict(bare, one, progress=False)
    assert not bare.tables
    h2e.tl.predict(bare, one, um_per_px=6.25, progress=False)
    assert bare["table"].obsm["h2e"].notna().all(axis=None)
    assert h2e.get.predictions(bare["table"]).n_obs > 30


def test_proportions_of_cell_types_are_predicted_in_their_unit(cohort_source, of_proportions):
    assert list(of_proportions.targets) == list(cohort_source["table"].obsm["proportions"])
    assert of_proportions.settings["unit"] == "as in obsm['proportions']"
    assert of_proportions.loo.to_numpy().mean() == pytest.approx(1 / len(of_proportions.targets), abs=0.05)


def test_a_grid_on_a_training_slide_is_predicted_only_where_asked(cohort, one):
    for in_sample in (False, True):
        bare = SpatialData(images={"slide": cohort.images["toy_C1_image"]})
        bare.shapes["slide_spots"] = cohort["toy_A1"]  # replaced, as asked for
        h2e.tl.predict(bare, one, um_per_px=6.25, in_sample=in_sample, overwrite=True, progress=False)
        assert bare["table"].obsm["h2e"].notna().all(axis=None) == in_sample
        assert bare["table"].obsm["h2e"].isna().all(axis=None) != in_sample


def test_training_spots_are_recognized_by_their_place_and_not_by_their_number(cohort, one, caplog):
    bare = SpatialData(images={"slide": cohort.images["toy_C1_image"]})
    h2e.tl.predict(bare, one, um_per_px=6.25, progress=False)  # the numbers of a grid are those of training spots
    assert "slide 'slide_spots' was trained on: nothing is predicted for" in caplog.text
    held_out = bare["table"].obsm["h2e_loo"]["TOY01"].to_numpy()
    distance, nearest = KDTree(cohort["toy_C1"].get_coordinates()).query(bare["slide_spots"].get_coordinates())
    assert 0 < np.isfinite(held_out).sum() < 0.5 * len(held_out)
    assert distance[np.isfinite(held_out)].max() < 3.2  # a tenth of a spacing
    there = cohort["toy_C1"].index.to_numpy()[nearest[np.isfinite(held_out)]]
    expected = one.loo["TOY01"].loc[[("toy_C1", str(instance)) for instance in there]]
    np.testing.assert_array_equal(held_out[np.isfinite(held_out)], expected)


def test_a_training_slide_whose_spots_were_numbered_anew_keeps_its_held_out_predictions(cohort, one):
    h2e.tl.predict(cohort, one, progress=False)
    expected = cohort["table"].obsm["h2e_loo"].copy()
    table, order = cohort["table"], {}
    for key in ("toy_A1", "toy_A2", "toy_B1", "toy_C1"):
        order[key] = np.random.default_rng(0).permutation(len(cohort.shapes[key]))
        cohort.shapes[key].index = order[key]
    numbers = [order[region][i] for region, i in zip(table.obs["region"], table.obs["instance_id"], strict=True)]
    table.obs["instance_id"] = numbers
    h2e.tl.predict(cohort, one, progress=False)
    pd.testing.assert_frame_equal(table.obsm["h2e_loo"], expected)


def test_slides_of_two_scanners_that_have_only_an_image_are_predicted_in_one_call(new, one):
    images = {"fine": new.images["toy_A1_image"]}
    images["coarse"] = Image2DModel.parse(
        new.images["toy_B1_image"]["scale1"]["image"].data,
        dims=("c", "y", "x"),
        transformations={"coarse": Identity()},
    )
    bare = SpatialData(images=images)
    with pytest.raises(KeyError, match=r"um_per_px names \['corse'\].*there are .*'coarse', 'fine'"):
        h2e.tl.predict(bare, one, um_per_px={"fine": 6.25, "corse": 12.5}, progress=False)
    with pytest.raises(ValueError, match="slide 'coarse' is not known: no spots tell it"):
        h2e.tl.predict(bare, one, um_per_px={"fine": 6.25}, progress=False)
    with pytest.raises(ValueError, match="image_key maps regions to images, but without a table"):
        h2e.tl.predict(bare, one, um_per_px=6.25, image_key={"a": "fine"}, progress=False)
    assert not bare.shapes
    h2e.tl.predict(bare, one, um_per_px={"fine": 6.25, "coarse": 12.5}, progress=False)
    spots = bare["table"].obs.groupby("region", observed=True).size()
    assert abs(spots["coarse_spots"] / spots["fine_spots"] - 1) < 0.3
    assert bare["table"].obsm["h2e"].notna().all(axis=None)


def test_two_regions_on_one_image_keep_their_held_out_predictions(cohort):
    table = cohort["table"]
    half = np.flatnonzero(table.obs["region"] == "toy_A1")[::2]
    table.obs["region"] = table.obs["region"].astype(str)
    table.obs.iloc[half, table.obs.columns.get_loc("region")] = "toy_A1b"
    cohort.shapes["toy_A1b"] = cohort["toy_A1"].copy()
    table.obs["region"] = table.obs["region"].astype("category")
    table.uns["spatialdata_attrs"]["region"] = list(table.obs["region"].cat.categories)
    ensemble = fit(cohort, targets=["TOY01"])
    h2e.tl.predict(cohort, ensemble, progress=False)
    known = table.obsm["h2e_loo"]["TOY01"].notna()
    assert known.sum() == len(ensemble.loo) == 230
    loo = ensemble.loo["TOY01"]
    instance = table.obs["instance_id"].astype(str)
    expected = [loo[region, i] for region, i in zip(table.obs["region"][known], instance[known], strict=True)]
    np.testing.assert_array_equal(table.obsm["h2e_loo"]["TOY01"][known], expected)


def test_proportions_are_needed_only_where_there_is_tissue(cohort, of_proportions):
    h2e.pp.tissue_fraction(cohort)
    table = cohort["table"]
    beside = table.obs["tissue_fraction"] == 0
    assert beside.sum() == 8
    table.obsm["proportions"].loc[beside] = np.nan
    pd.testing.assert_frame_equal(fit(cohort, obsm="proportions").loo, of_proportions.loo)


def test_models_see_tissue_where_the_image_was_normalized(cohort):
    h2e.pp.detect_tissue(cohort)
    for name in cohort.shapes:
        mask = cohort.labels.pop(f"{name}_image_tissue")
        cohort.labels[f"{name}_whole"] = mask.copy(data=np.ones_like(mask.data))
        h2e.pp.normalize_stains(cohort, image_key=f"{name}_image", tissue_mask_key=f"{name}_whole")
    opened = open_new_cohort(cohort, Keys(), spacing_um=200.0, reference=None, keep_residual=True)
    assert all(slide.tissue[0].all() for slide in opened.slides)


def test_an_image_that_h2e_normalized_is_no_source(cohort):
    h2e.pp.normalize_stains(cohort)
    keys = {region: f"{region}_image_normalized" for region in cohort.shapes}
    for train in (h2e.tl.fit, h2e.tl.evaluate):
        with pytest.raises(ValueError, match="was normalized by h2e; pass 'toy_A1_image'"):
            train(cohort, image_key=keys, group_key="donor", progress=False)


def test_numbers_of_numpy_are_numbers(cohort, tmp_path):
    learner = h2e.tl.Texture(head="knn", k=np.int64(5))
    ensemble = fit(cohort, learners=learner, targets=["TOY01"], seed=np.int64(3), n_programmes=np.int64(2))
    ensemble.save(tmp_path / "saved")
    assert h2e.Ensemble.load(tmp_path / "saved").settings == ensemble.settings


def test_a_crop_of_a_training_slide_is_recognized_by_what_was_measured(cohort):
    ensemble = fit(cohort)
    crop = cohort.query.bounding_box(("x", "y"), [60, 60], [300, 330], "toy_A1")
    h2e.tl.predict(crop, ensemble, progress=False)
    table = crop["table"]
    known = table.obsm["h2e_loo"].notna().any(axis=1).to_numpy()
    assert known.sum() >= table.n_obs - 1 > 50  # one has no tissue left
    assert table.obsm["h2e"].isna().all(axis=None)
    names = list(zip(table.obs["region"].astype(str), table.obs["instance_id"].astype(str), strict=True))
    np.testing.assert_array_equal(table.obsm["h2e_loo"][known], ensemble.loo.reindex(names)[known])
    table.X = table.X[::-1].copy()  # another slide whose spots have these names
    h2e.tl.predict(crop, ensemble, progress=False)
    assert "h2e_loo" not in table.obsm
    assert table.obsm["h2e"][known].notna().all(axis=None)


def test_a_crop_with_fewer_genes_is_recognized_too(cohort):
    ensemble = fit(cohort, targets=["TOY01", "TOY02", "TOY03"])
    crop = cohort.query.bounding_box(("x", "y"), [60, 60], [300, 330], "toy_A1")
    table = crop["table"][:, :40].copy()
    crop.tables["table"] = table
    h2e.tl.predict(crop, ensemble, progress=False)
    assert table.obsm["h2e_loo"].notna().any(axis=1).sum() >= table.n_obs - 1 > 50
    assert table.obsm["h2e"].isna().all(axis=None)
    with pytest.raises(ValueError, match="was trained on"):
        h2e.metrics.score_adata(table)


def test_spots_without_counts_are_no_evidence_of_a_training_slide(cohort, new):
    ensemble = fit(cohort, learners="mean", targets=["TOY01"])
    both = []
    for table in (cohort["table"], new["table"]):
        without = table.obs[table[:, "TOY01"].X.toarray().ravel() == 0]
        both.append(set(zip(without["region"], without["instance_id"], strict=True)))
    chosen = [
        x in both[0] & both[1] for x in zip(*(new["table"].obs[k] for k in ("region", "instance_id")), strict=True)
    ]
    assert any(chosen)
    h2e.tl.predict(new, ensemble, progress=False)
    expected = new["table"].obsm["h2e"][chosen]
    empty = new["table"][chosen].copy()
    del new.tables["table"], empty.uns["spatialdata_attrs"]
    empty.obs["region"] = empty.obs["region"].astype(str).astype("category")
    regions = list(empty.obs["region"].cat.categories)
    new["table"] = TableModel.parse(empty, region=regions, region_key="region", instance_key="instance_id")
    h2e.tl.predict(new, ensemble, overwrite=True, progress=False)
    pd.testing.assert_frame_equal(new["table"].obsm["h2e"], expected)
    assert expected.notna().any(axis=None)
    assert "h2e_loo" not in new["table"].obsm


def on_glass(sdata: SpatialData, times: int = 5) -> SpatialData:
    """The same slides in the middle of scans that are so many times as wide, and mostly glass."""
    for key, element in list(sdata.images.items()):
        pixels = element["scale0"]["image"].to_numpy().astype(float)
        glass = np.median(pixels[:, :5], axis=(1, 2))
        height, width = pixels.shape[1:]
        scan = np.full((3, times * height, times * width), 245, np.uint8)
        top, left = (times - 1) * height // 2, (times - 1) * width // 2
        pixels = np.clip(pixels / glass[:, None, None] * 245, 0, 255)
        scan[:, top : top + height, left : left + width] = pixels
        system = key.removesuffix("_image")
        where = {system: Translation([-left, -top], ("x", "y"))}
        sdata.images[key] = Image2DModel.parse(
            scan, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=where
        )
    return sdata


@pytest.mark.filterwarnings("ignore:Key .* already exists:UserWarning")
def test_new_slides_are_not_taken_for_training_slides_where_most_of_a_scan_is_glass(cohort, new):
    ensemble = fit(on_glass(cohort), learners="mean", targets=["TOY01"])
    new = on_glass(new)
    h2e.tl.predict(new, ensemble, progress=False)
    assert "h2e_loo" not in new["table"].obsm
    assert new["table"].obsm["h2e"].notna().to_numpy().mean() > 0.9
    h2e.tl.predict(cohort, ensemble, progress=False)
    assert cohort["table"].obsm["h2e"].isna().all(axis=None)


def test_no_prediction_leaves_the_range_that_was_measured(cohort, new):
    ensemble = fit(cohort, n_targets=10, n_programmes=3)
    h2e.tl.predict(new, ensemble, progress=False)
    lowest, highest = ensemble.truth.min(axis=0), ensemble.truth.max(axis=0)
    for values in (ensemble.loo, new["table"].obsm["h2e"].dropna()):
        assert (values >= lowest).all(axis=None)
        assert (values <= highest).all(axis=None)
    assert (new["table"].obsm["h2e_lower"].dropna() >= 0).all(axis=None)


def test_spots_that_space_ranger_saw_no_tissue_at_are_left_out(cohort):
    table = cohort["table"]
    h2e.pp.tissue_fraction(cohort)
    out = np.flatnonzero(table.obs["tissue_fraction"] > 0)[:7]
    for said in (1, "1", True):
        table.obs["in_tissue"] = said
        assert len(fit(cohort, targets=["TOY01"]).loo) == 230
    for beside, inside in ((0, 1), (0.0, 1.0), (False, True)):
        table.obs["in_tissue"] = [beside if i in out else inside for i in range(table.n_obs)]
        assert len(fit(cohort, targets=["TOY01"]).loo) == 223
    h2e.pp.normalize(cohort)
    assert h2e.get.report(cohort)["spots_kept"].sum() == 223
    h2e.tl.predict(cohort, fit(cohort, targets=["TOY01"]), progress=False, in_sample=True)
    assert table.obsm["h2e"].notna().sum().item() == 223
    assert table.obsm["h2e"].iloc[out].isna().all(axis=None)


# 11. Sources of the size of a pixel: tests/_sdata/test_scale.py.


# 12. An affine of image and spots changes nothing; one of the spots alone is noticed, or the report says that it cannot.


@pytest.mark.parametrize(
    "matrix",
    [[[-2, 0, 30], [0, 2, 5], [0, 0, 1]], [[0, 0.5, 7], [0.5, 0, -3], [0, 0, 1]]],
    ids=["mirrored", "exchanged"],
)
def test_an_affine_of_image_and_spots_alike_changes_no_prediction(new, one, matrix: list):
    h2e.tl.predict(new, one, progress=False)
    expected = new["table"].obsm.pop("h2e")
    for region in new.shapes:
        for element in (new.shapes[region], new.images[f"{region}_image"]):
            placed = Affine(matrix, ("x", "y"), ("x", "y"))
            set_transformation(element, {region: Sequence([get_transformation(element, region), placed])}, set_all=True)
    h2e.tl.predict(new, one, progress=False)
    np.testing.assert_allclose(new["table"].obsm["h2e"], expected, atol=1e-5)


MISPLACED = {
    "mirrored": [[-1, 0, 416], [0, 1, 0], [0, 0, 1]],
    "rows for columns": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    "turned": [[-1, 0, 416], [0, -1, 416], [0, 0, 1]],
    "two spacings away": [[1, 0, 64], [0, 1, 0], [0, 0, 1]],
}


@pytest.mark.parametrize("how", MISPLACED)
def test_an_affine_of_the_spots_alone_is_noticed_or_the_report_says_that_it_cannot_be(cohort, how: str):
    for region, shapes in cohort.shapes.items():
        set_transformation(shapes, {region: Affine(MISPLACED[how], ("x", "y"), ("x", "y"))}, set_all=True)
        beside = ~((slide_positions(cohort, region) > 0) & (slide_positions(cohort, region) < 416)).all(axis=1)
        of_region = cohort["table"].obs["region"] == region
        cohort["table"].obs.loc[of_region, "in_tissue"] = ~beside
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        h2e.pp.normalize(cohort)
    told = " ".join(str(one.message) for one in said)
    report = h2e.get.report(cohort)
    for region, row in report.iterrows():
        assert f"'{region}'" in told or row["orientation"] == "cannot be told", row["placement"]
    assert all(one.filename == __file__ for one in said)


def slide_positions(sdata, region: str) -> np.ndarray:
    """Where the spots of a region lie on its image, in the order of the table."""
    placed = get_transformation(sdata.shapes[region], region).to_affine_matrix(("x", "y"), ("x", "y"))
    table = sdata["table"]
    xy = sdata.shapes[region].get_coordinates().loc[table.obs["instance_id"][table.obs["region"] == region]].to_numpy()
    return xy @ placed[:2, :2].T + placed[:2, 2]
