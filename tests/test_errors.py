"""Bad input on the spine: the message says what was asked, what is there and what to do, and nothing was written."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale, set_transformation

import h2e
from h2e._slide.tiles import View

FAST = {"learners": h2e.tl.Texture(views=(View(2, 16),)), "n_targets": 3, "progress": False}


def rename_table(sdata: SpatialData) -> None:
    sdata["other"] = sdata["table"]
    del sdata.tables["table"]


def drop_image(sdata: SpatialData) -> None:
    del sdata.images["toy_A1_image"]


def second_image(sdata: SpatialData) -> None:
    pixels = sdata.images["toy_A1_image"]["scale0"]["image"].data
    sdata.images["again"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"toy_A1": Identity()})


def move_out(sdata: SpatialData) -> None:
    set_transformation(sdata.shapes["toy_B1"], Scale([2, 2], ("x", "y")), "toy_B1")


def dash(sdata: SpatialData) -> None:
    sdata["table"].obs["donor"] = sdata["table"].obs["donor"].astype(str).replace("A", "–")


def set_x(value: float) -> Callable[[SpatialData], None]:
    def change(sdata: SpatialData) -> None:
        x = sdata["table"].X.toarray().astype(np.float32)
        x[3, 4] = value
        sdata["table"].X = sparse.csr_matrix(x)

    return change


def no_x(sdata: SpatialData) -> None:
    sdata["table"].X = None


CASES = {
    "no table": (rename_table, {}, KeyError, r"'table' is not in sdata.tables; it has \['other'\]"),
    "no image": (
        drop_image,
        {},
        ValueError,
        r"region 'toy_A1' shares a coordinate system with no image; sdata.images has",
    ),
    "image asked": (None, {"image_key": "hires"}, KeyError, r"'hires' is not in sdata.images; it has \['toy_A1_image'"),
    "ambiguous": (second_image, {}, ValueError, r"region 'toy_A1' .* 2 images .*Pass image_key"),
    "outside": (
        move_out,
        {},
        ValueError,
        r"spots of slide 'toy_B1' lie outside of image 'toy_B1_image' \(416 × 416 px\)",
    ),
    "no layer": (None, {"layer": "counts"}, KeyError, r"'counts' is not in adata.layers; it has \[\]"),
    "NaN": (set_x(np.nan), {}, ValueError, "1 NaN or infinite values"),
    "negative": (set_x(-2.0), {}, ValueError, r"1 negative values \(smallest -2\)"),
    "no counts": (set_x(0.5), {}, ValueError, "holds no counts .*log_normalized=True"),
    "empty X": (no_x, {}, ValueError, "adata.X is empty; pass layer="),
    "no group column": (None, {"group_key": "patient"}, KeyError, r"'patient' is not in table.obs; it has \['region'"),
    "no target": (None, {"targets": ["TOY01", "ERBB2"]}, KeyError, "ERBB2"),
    "no obsm": (None, {"obsm": "celltypes"}, KeyError, r"celltypes.*proportions"),
    "too many targets": (None, {"n_targets": 1000}, ValueError, "n_targets=1000 genes were asked for"),
    "no learner": (None, {"learners": "transformer"}, ValueError, r"learner must be one of \[.*, got 'transformer'"),
    "no learners": (None, {"learners": []}, ValueError, "learners must be a learner or a sequence of at least one"),
    "no transform": (None, {"transform": "square"}, ValueError, "transform must be one of .*, got 'square'"),
    "one rank": (
        None,
        {"transform": "spot_rank", "targets": ["TOY01"]},
        ValueError,
        "transform 'spot_rank' must have several targets",
    ),
    "dash": (dash, {}, ValueError, "a group is called '–'"),
    "no stack": (None, {"stack": "magic"}, ValueError, "stack must be one of .*, got 'magic'"),
}


def state(sdata: SpatialData) -> dict[str, list[str]]:
    """Everything that could have been written to."""
    found = {"elements": sorted(name for _, name, _ in sdata.gen_elements()), "attrs": sorted(sdata.attrs)}
    for key, table in sdata.tables.items():
        for slot in ("obs", "var", "obsm", "uns", "layers"):
            found[f"{key}.{slot}"] = sorted(getattr(table, slot))
    return found


@pytest.mark.parametrize("function", [h2e.tl.fit, h2e.tl.evaluate], ids=["fit", "evaluate"])
@pytest.mark.parametrize(("change", "options", "error", "message"), CASES.values(), ids=CASES.keys())
def test_training_refuses(cohort, function, change, options: dict, error: type[Exception], message: str):
    if change is not None:
        change(cohort)
    before = state(cohort)
    with pytest.raises(error, match=message):
        function(cohort, **FAST | {"group_key": "donor"} | options)
    assert state(cohort) == before


def test_a_metric_that_has_nothing_to_score_is_refused_before_anything_is_read(cohort, monkeypatch):
    monkeypatch.setattr("h2e._ensemble.extraction.Features.extract", None)
    one = "needs at least 2 targets, over which it correlates, got 1; leave it out"
    for metrics, message in {"spot_rho": one, ("spot_rho_constant",): one, (): "metrics is empty"}.items():
        with pytest.raises(ValueError, match=message):
            h2e.tl.evaluate(cohort, **FAST | {"n_targets": 1}, group_key="donor", metrics=metrics)


def test_a_table_on_disk_is_refused(cohort, tmp_path):
    cohort["table"].write_h5ad(tmp_path / "table.h5ad")
    table = ad.read_h5ad(tmp_path / "table.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"on disk \(backed\); bring it into memory with adata.to_memory"):
        h2e.pp.select_targets(table)
    table.file.close()


def test_donors_on_one_image_are_told_of(cohort, caplog):
    obs = cohort["table"].obs
    half = np.where(np.arange(len(obs)) % 2, "x", "y")
    obs["piece"], obs["donor"] = obs["region"].astype(str) + half, obs["donor"].astype(str) + half
    h2e.tl.fit(cohort, **FAST | {"learners": "mean"}, group_key="donor", library_key="piece")
    assert "groups ['Ax', 'Ay'] lie on one image, 'toy_A1_image'" in caplog.text


def test_one_donor_of_several_slides_is_refused(cohort):
    cohort["table"].obs["donor"] = "A"
    with pytest.raises(
        ValueError, match=r"groups must be at least 2 to leave one out, got \['A'\] for 4 slides; without group_key"
    ):
        h2e.tl.fit(cohort, **FAST, group_key="donor")


def test_leaving_out_slides_warns_that_donors_leak(cohort):
    with pytest.warns(UserWarning, match="no group_key: slides are left out"):
        ensemble = h2e.tl.fit(cohort, **FAST)
    assert ensemble.settings["left_out"] == "slide"


def test_one_slide_is_cut_into_quarters(cohort):
    one = cohort.filter_by_coordinate_system("toy_A1")
    with pytest.warns(UserWarning, match="one slide: its quarters are left out"):
        ensemble = h2e.tl.fit(one, **FAST | {"learners": h2e.tl.Texture(views=(View(1, 16),))})
    assert ensemble.settings["left_out"] == "quarter of the slide"
    assert ensemble.loo.notna().all(axis=None)
    with pytest.warns(UserWarning, match="one slide"):
        scores = h2e.tl.evaluate(one, **FAST | {"learners": h2e.tl.Texture(views=(View(1, 16),))}, baselines="mean")
    assert set(scores["slide"]) == {"toy_A1"}
    assert scores["group"].str.startswith("within slide: ").all()
    assert scores["group"].nunique() == 4


def test_an_anndata_is_told_how_to_become_a_spatialdata(cohort, ensemble):
    table = cohort["table"]
    for call in (
        lambda: h2e.tl.fit(table),
        lambda: h2e.tl.evaluate(table),
        lambda: h2e.tl.predict(table, ensemble),
        lambda: h2e.pp.normalize(table),
        lambda: h2e.pp.detect_tissue(table),
        lambda: h2e.pp.make_spots(table, um_per_px=1.0),
        lambda: h2e.pp.tissue_fraction(table),
        lambda: h2e.pl.tissue(table),
    ):
        with pytest.raises(TypeError, match=r"must be a SpatialData, got AnnData.*join_slides"):
            call()


def test_a_table_of_another_name_is_not_passed_over(cohort):
    rename_table(cohort)
    with pytest.raises(KeyError, match=r"'table' is not in sdata.tables; it has \['other'\]"):
        h2e.pp.normalize(cohort)
    cohort["another"] = cohort["other"]
    with pytest.raises(KeyError, match="get one table by h2e.pp.join_slides"):
        h2e.tl.fit(cohort)


def test_what_is_odd_about_expression_is_told(cohort, caplog):
    options = FAST | {"group_key": "donor", "targets": ["TOY01"]}
    with pytest.raises(ValueError, match=r"must hold log-normalized expression, got values up to \d+; leave out"):
        h2e.tl.fit(cohort, **options | {"log_normalized": True})
    table = cohort["table"]
    table.var_names = ["TOY01", "twice", "twice", *table.var_names[3:]]
    x = table.X.toarray()
    x[3], x[:, 4] = 0, 0
    table.X = x
    h2e.tl.fit(cohort, **options | {"targets": ["TOY01", table.var_names[4]]})  # duplicates that nobody asked for
    assert "1 of 230 spots on tissue have no counts: drop them" in caplog.text
    assert f"targets ['{table.var_names[4]}'] have one value at all 230 spots" in caplog.text


def test_features_in_a_sparse_matrix_are_features(cohort):
    x = np.random.default_rng(0).random((cohort["table"].n_obs, 5)).astype(np.float32)
    options = {"targets": ["TOY01"], "group_key": "donor", "progress": False}
    cohort["table"].obsm["dense"], cohort["table"].obsm["sparse"] = x, sparse.csr_matrix(x)
    one, two = (h2e.tl.fit(cohort, learners=h2e.tl.Embedding(obsm=k), **options) for k in ("dense", "sparse"))
    np.testing.assert_array_equal(one.loo, two.loo)


def test_a_size_that_is_no_number_is_refused(cohort):
    with pytest.raises(ValueError, match="um_per_px of each image must be a positive number of µm, got '2.5 µm'"):
        h2e.tl.fit(cohort, **FAST, um_per_px="2.5 µm")
    for prepare in (h2e.pp.detect_tissue, h2e.pp.fit_stain_reference, h2e.pp.normalize):
        with pytest.raises(ValueError, match="um_per_px of toy_A1_image must be a positive number of µm, got -1"):
            prepare(cohort, um_per_px={"toy_A1_image": -1})
    assert not cohort.labels
    cohort["table"].obs["um_per_px"] = 0.0
    with pytest.raises(ValueError, match="of slide 'toy_A1' must be a positive number of µm, got 0.0"):
        h2e.tl.fit(cohort, **FAST)


def test_slides_that_need_to_be_told_their_images_are_prepared_and_shown(cohort):
    second_image(cohort)
    image_key = {name: f"{name}_image" for name in ("toy_A1", "toy_A2", "toy_B1", "toy_C1")}
    h2e.pp.normalize(cohort, image_key=image_key)
    assert h2e.get.report(cohort)["spots_kept"].sum() == 230
    titles = [ax.get_title() for ax in h2e.pl.tissue(cohort, image_key=image_key)]
    assert titles[0] == "toy_A1: 60 spots, 1 invalid"
    assert h2e.pl.stains(cohort).shape == h2e.pl.stains(cohort, image_key=image_key).shape == (4, 4)
    plt.close("all")


def blank(sdata: SpatialData, slides: list[str]) -> None:
    """Say of some slides that they have no tissue."""
    if not sdata.labels:
        h2e.pp.detect_tissue(sdata)
    for slide in slides:
        mask = sdata.labels[f"{slide}_image_tissue"]
        mask.data = np.zeros(mask.shape, np.uint8)


def test_what_cannot_be_scored_is_refused_before_anything_is_trained(cohort, monkeypatch):
    def train(*_: object, **__: object) -> None:
        pytest.fail("trained")

    monkeypatch.setattr("h2e._ensemble.held_out.held_out_predictions", train)
    with pytest.raises(ValueError, match="metric 'pearsn' is not known"):
        h2e.tl.evaluate(cohort, **FAST, group_key="donor", metrics=["pearson", "pearsn"])
    with pytest.raises(ValueError, match="metric 'auroc_detect' needs counts"):
        h2e.tl.evaluate(cohort, **FAST, group_key="donor", obsm="proportions", metrics="auroc_detect")
    table = cohort["table"]
    table.obsm["change"] = table.obsm["proportions"] - 0.5
    with pytest.raises(ValueError, match=r"truth must be at least 0 for this metric.*negative for \d of"):
        h2e.tl.evaluate(cohort, **FAST, group_key="donor", obsm="change", metrics="js")
    of_b = np.flatnonzero((table.obs["region"] == "toy_B1") & (table.obs["array_row"] == 5) & table.obs["on_tissue"])
    others = np.flatnonzero(table.obs["region"] != "toy_B1")
    cohort.tables["table"] = table[np.r_[others, of_b[2:4]]].copy()
    with pytest.raises(ValueError, match="slide 'toy_B1' has 2 spots on tissue; a correlation needs 3"):
        h2e.tl.evaluate(cohort, **FAST, group_key="donor")


def test_slides_without_a_spot_on_tissue_are_left_out_and_named(cohort, ensemble, caplog):
    blank(cohort, ["toy_A1", "toy_C1"])
    with pytest.warns(UserWarning, match="no tissue under them and are left out: .* of slide 'toy_A1'"):
        h2e.tl.predict(cohort, ensemble, in_sample=True, progress=False)
    assert "slide 'toy_C1' has no spot on tissue and is left out" in caplog.text
    there = cohort["table"].obsm["h2e"].notna().all(axis=1)
    assert set(cohort["table"].obs["region"][there]) == {"toy_A2", "toy_B1"}
    assert "images" not in caplog.text  # of slides that have spots
    blank(cohort, ["toy_A2"])
    with (
        pytest.warns(UserWarning, match="one slide: its quarters are left out"),
        pytest.warns(match="are left out: 56"),
    ):
        alone = h2e.tl.fit(cohort, **FAST | {"learners": h2e.tl.Texture(views=(View(1, 16),))})
    assert alone.settings["left_out"] == "quarter of the slide"
    blank(cohort, ["toy_B1"])
    with pytest.raises(ValueError, match=r"none of the 2\d\d spots of slides .* lies on tissue"):
        h2e.tl.predict(cohort, ensemble, overwrite=True, progress=False)


@pytest.mark.parametrize("case", ["no image", "image asked", "ambiguous", "outside", "no layer", "NaN", "negative"])
def test_normalize_refuses_and_writes_nothing(cohort, case: str):
    change, options, error, message = CASES[case]
    if change is not None:
        change(cohort)
    before = state(cohort)
    with pytest.raises(error, match=message):
        h2e.pp.normalize(cohort, **options)
    assert state(cohort) == before


@pytest.fixture(scope="module")
def ensemble(cohort_source):
    return h2e.tl.fit(cohort_source, **FAST, group_key="donor")


@pytest.mark.parametrize("case", ["no image", "image asked", "ambiguous", "outside"])
def test_predict_refuses_and_writes_nothing(cohort, ensemble, case: str):
    change, options, error, message = CASES[case]
    if change is not None:
        change(cohort)
    before = state(cohort)
    with pytest.raises(error, match=message):
        h2e.tl.predict(cohort, ensemble, progress=False, **options)
    assert state(cohort) == before


def test_predict_never_replaces_what_somebody_else_wrote(cohort, ensemble):
    mine = np.ones((cohort["table"].n_obs, 2))
    cohort["table"].obsm["h2e"] = mine
    with pytest.raises(ValueError, match=r"adata.obsm\['h2e'\] is there, and there is no record"):
        h2e.tl.predict(cohort, ensemble, progress=False)
    np.testing.assert_array_equal(cohort["table"].obsm["h2e"], mine)
    h2e.tl.predict(cohort, ensemble, progress=False, key_added="theirs")
    h2e.tl.predict(cohort, ensemble, progress=False, overwrite=True)
    h2e.tl.predict(cohort, ensemble, progress=False)  # its own it may replace
    assert list(cohort["table"].obsm["h2e"].columns) == list(ensemble.targets)
    for there in ("text", {"variance": [1.0]}):
        cohort["table"].uns["pca"] = there
        with pytest.raises(ValueError, match=r"table.uns\['pca'\] is there, and h2e.tl.predict did not write it"):
            h2e.tl.predict(cohort, ensemble, progress=False, key_added="pca")
    assert not [key for key in cohort["table"].obsm if "pca" in key]


def test_a_slide_without_the_targets_is_predicted_all_the_same(cohort, ensemble):
    table = cohort["table"][:, :2].copy()
    assert not set(ensemble.targets) <= set(table.var_names)
    del cohort.tables["table"]
    cohort["table"] = table
    h2e.tl.predict(cohort, ensemble, progress=False, in_sample=True)
    assert list(table.obsm["h2e"].columns) == list(ensemble.targets)


def test_images_normalized_elsewhere_or_not_all_are_refused(cohort):
    h2e.pp.normalize_stains(cohort, image_key="toy_A1_image")
    with pytest.raises(
        ValueError, match=r"images \['toy_A2_image', 'toy_B1_image', 'toy_C1_image'\] are not normalized"
    ):
        h2e.tl.fit(cohort, **FAST, group_key="donor")
    h2e.pp.normalize_stains(cohort)
    del cohort.attrs["h2e"]
    with pytest.raises(ValueError, match="were not normalized by h2e"):
        h2e.tl.fit(cohort, **FAST, group_key="donor")


def test_a_failed_prediction_of_a_bare_image_leaves_no_grid(cohort, ensemble):
    new = SpatialData(images={"slide": cohort.images["toy_C1_image"]})
    with pytest.raises(KeyError, match="nowhere"):
        h2e.tl.predict(new, ensemble, um_per_px=6.25, tissue_mask_key="nowhere", progress=False)
    assert state(new) == {"elements": ["slide"], "attrs": []}


def test_an_encoder_for_no_learner_is_refused(ensemble, tmp_path):
    ensemble.save(tmp_path / "ensemble")
    with pytest.raises(
        ValueError, match=r"encoders must be those of learners that have one, \[\], got \['embedding'\]"
    ):
        h2e.Ensemble.load(tmp_path / "ensemble", encoders={"embedding": abs})


def test_predictions_that_are_not_there_are_named(cohort):
    with pytest.raises(KeyError, match=r"'h2e' is not in adata.obsm; it has \['proportions'\]"):
        h2e.get.predictions(cohort["table"])


def test_images_without_spots_beside_a_table_are_named(cohort, ensemble, caplog):
    pixels = cohort.images["toy_C1_image"]["scale0"]["image"].data
    cohort.images["bare"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"elsewhere": Identity()})
    h2e.tl.predict(cohort, ensemble, progress=False)
    assert "images ['bare'] have no spots and are left out; lay some with h2e.pp.make_spots" in caplog.text


def test_normalized_images_that_were_not_stored_are_missed(cohort):
    h2e.pp.normalize(cohort)
    for name in cohort.shapes:
        del cohort.images[f"{name}_image_normalized"]
    with pytest.warns(UserWarning, match=r"images \['toy_A1_image_normalized'.* were made once and are not there"):
        ensemble = h2e.tl.fit(cohort, **FAST, group_key="donor")
    assert ensemble.reference is None


def test_a_folder_is_no_file_and_an_ensemble_no_folder(cohort, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="run_dir must be a folder, which may be new, got the file '.*file'"):
        h2e.tl.fit(cohort, **FAST, group_key="donor", run_dir=tmp_path / "file")
    with pytest.raises(TypeError, match="this needs an Ensemble, got str; h2e.Ensemble.load"):
        h2e.tl.predict(cohort, "folder")


def test_a_key_that_cannot_be_stored_is_refused(cohort, ensemble):
    with pytest.raises(ValueError, match="key_added must consist of letters"):
        h2e.tl.predict(cohort, ensemble, key_added="a/b", progress=False)
    with pytest.raises(ValueError, match=r"key_added='my_std' ends like the keys that are stored beside"):
        h2e.tl.predict(cohort, ensemble, key_added="my_std", progress=False)
    with pytest.raises(ValueError, match="key_added must consist of letters"):
        h2e.pp.tissue_fraction(cohort, key_added="a/b")
