"""The preparation in one call does what its steps do, says what it did, and does all of it or nothing."""

from __future__ import annotations

import copy
import logging

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, get_transformation, set_transformation

import h2e
from h2e._sdata.images import open_image
from h2e._sdata.masks import find_mask
from h2e.pp import _normalize

COLUMNS = [
    "um_per_px", "um_per_px_from", "tissue_mm2", "tissue_share", "spots", "spots_invalid", "spots_kept", "shift", "moved",
    "placement", "orientation", "on_tissue", "sharpness", "saturation", "hue", "looks_like", "hematoxylin", "eosin",
    "warnings",
]  # fmt: skip
TOY = ["toy_A1", "toy_A2", "toy_B1", "toy_C1"]


def placed(sdata: SpatialData, region: str) -> np.ndarray:
    return get_transformation(sdata.shapes[region], region).to_affine_matrix(("x", "y"), ("x", "y"))


def test_the_report_counts_what_is_stored(cohort):
    h2e.pp.normalize(cohort)
    report, table = h2e.get.report(cohort), cohort["table"]
    assert list(report.index) == TOY
    assert list(report) == COLUMNS
    for name, row in report.iterrows():
        fraction = table.obs["tissue_fraction"][table.obs["region"] == name]
        assert (row["spots"], row["spots_invalid"]) == (len(fraction), (fraction == 0).sum())
        assert row["spots_kept"] == (fraction > 0).sum()
        mask, scale = find_mask(cohort, open_image(cohort, f"{name}_image"))
        assert row["tissue_mm2"] == pytest.approx(mask.sum() * (scale * 6.25e-3) ** 2)
        assert row["tissue_share"] == pytest.approx(mask.mean())
        stains = cohort.attrs["h2e"]["stains"][f"{name}_image_normalized"]["slide"]["stains"]
        told = [[float(v) for v in row[stain].split()] for stain in ("hematoxylin", "eosin")]
        np.testing.assert_allclose(told, stains, atol=0.0051)


def test_the_report_says_in_words_what_is_odd(cohort):
    pixels = cohort["toy_A1_image"]["scale0"]["image"].data
    for name, image in {"again": pixels, "bgr": pixels[::-1], "glass": da.full_like(pixels, 240)}.items():
        cohort.images[name] = Image2DModel.parse(image, dims=("c", "y", "x"), transformations={name: Identity()})
    with pytest.warns(UserWarning, match="do not have the colours of an H&E: bgr: its dense tissue is redder") as told:
        h2e.pp.normalize(cohort, um_per_px={"again": 6.25, "bgr": 6.25})
    assert len(told) == 1
    report = h2e.get.report(cohort)
    assert report["looks_like"].to_dict() == dict.fromkeys(report.index, "") | {"toy_A1": "again", "again": "toy_A1"}
    words = report["warnings"]
    assert words["again"] == "looks like toy_A1"
    assert "redder" in words["bgr"]
    assert "no tissue" in words["glass"]
    assert not any(words[["toy_A2", "toy_B1", "toy_C1"]])
    assert report.loc[TOY, "on_tissue"].tolist() == (report["spots_kept"] / report["spots"])[TOY].tolist()
    assert np.isnan(report.loc["glass", ["on_tissue", "sharpness", "hue"]].astype(float)).all()


def test_spots_that_the_table_knows_to_be_beside_the_tissue_do_not_count(cohort):
    h2e.pp.normalize(cohort)
    cohort["table"].obs["in_tissue"] = (cohort["table"].obs["tissue_fraction"] > 0).astype(int)
    assert (h2e.get.report(cohort)["on_tissue"] < 1).all()
    h2e.pp.normalize(cohort)
    assert (h2e.get.report(cohort)["on_tissue"] == 1).all()


def test_what_squidpy_found_is_in_the_report(cohort):
    flagged = pd.DataFrame({"qc_outlier": ["True", "False", "False"], "is_tissue": ["True", "True", "False"]})
    flagged.index = flagged.index.astype(str)
    about = {"qc_image": {"image_key": "toy_A1_image"}}
    tiles = AnnData(np.array([[1.0], [3.0], [50.0]], np.float32), flagged, pd.DataFrame(index=["qc_tenengrad"]), about)
    cohort.tables["qc_img_toy_A1_image"] = tiles
    cohort.tables["qc_img_toy_B1_image"] = AnnData(tiles.X, uns=about, var=tiles.var)
    h2e.pp.normalize(cohort)
    report = h2e.get.report(cohort)
    assert report["qc_outliers"]["toy_A1"] == 0.5
    assert report["qc_tenengrad"].tolist() == pytest.approx([2.0, np.nan, 3.0, np.nan], nan_ok=True)


def test_spots_stay_where_they_are_unless_realignment_is_asked_for(cohort):
    before = {name: placed(cohort, name) for name in TOY}
    h2e.pp.normalize(cohort)
    report = h2e.get.report(cohort)
    assert not report["moved"].any()
    assert [name for name in TOY if report["shift"][name] > 0.5] == ["toy_A2"]  # where one is planted
    assert "not moved, realign=True was not asked for" in report["placement"]["toy_A2"]
    assert all((placed(cohort, name) == before[name]).all() for name in TOY)
    h2e.pp.normalize(cohort, realign=True)
    assert [name for name in TOY if (placed(cohort, name) != before[name]).any()] == ["toy_A2"]
    report = h2e.get.report(cohort)
    assert report["moved"].to_dict() == {name: name == "toy_A2" for name in TOY}
    planted = np.hypot(*cohort["table"].uns["toy"]["shift_px"]["toy_A2"]) / 32
    assert report["shift"]["toy_A2"] == pytest.approx(planted, abs=0.2)
    h2e.pp.normalize(cohort)  # knows what was moved before, and leaves it there
    pd.testing.assert_frame_equal(h2e.get.report(cohort), report)


def test_running_twice_changes_nothing(cohort):
    h2e.pp.normalize(cohort, realign=True)
    first, ranks = h2e.get.report(cohort), cohort["table"].layers["rank"].toarray()
    pixels = np.asarray(cohort["toy_A2_image_normalized"]["scale1"]["image"].data)
    h2e.pp.normalize(cohort, realign=True)
    pd.testing.assert_frame_equal(h2e.get.report(cohort), first)
    np.testing.assert_array_equal(cohort["table"].layers["rank"].toarray(), ranks)
    np.testing.assert_array_equal(cohort["toy_A2_image_normalized"]["scale1"]["image"].data, pixels)


def test_the_report_survives_the_disk(cohort, tmp_path):
    h2e.pp.normalize(cohort)
    cohort.write(tmp_path / "cohort.zarr")
    stored = read_zarr(tmp_path / "cohort.zarr")
    for source in (stored, stored["table"]):
        pd.testing.assert_frame_equal(h2e.get.report(source), h2e.get.report(cohort), check_index_type=False)


def test_slides_without_spots_are_prepared_and_reported(cohort, tmp_path):
    images = {"one": cohort["toy_A1_image"], "two": cohort["toy_B1_image"]}
    sdata = SpatialData(images=images)
    h2e.pp.normalize(sdata)
    h2e.pp.normalize(sdata)
    assert {"one_normalized", "two_normalized"} <= set(sdata.images)
    assert set(sdata.labels) == {"one_tissue", "two_tissue"}
    report = h2e.get.report(sdata)
    assert report["spots"].tolist() == [0, 0]
    assert report["tissue_mm2"].isna().all()
    assert (report["tissue_share"] > 0.2).all()
    sdata.write(tmp_path / "slides.zarr")
    pd.testing.assert_frame_equal(h2e.get.report(read_zarr(tmp_path / "slides.zarr")), report)
    h2e.pp.normalize(sdata, um_per_px={"one": 6.25})
    assert h2e.get.report(sdata)["tissue_mm2"].notna().tolist() == [True, False]


def test_slides_with_and_without_spots_are_prepared_together(cohort):
    pixels = cohort["toy_A1_image"]["scale0"]["image"].data
    cohort.images["alone"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"alone": Identity()})
    h2e.pp.normalize(cohort)
    report = h2e.get.report(cohort)
    assert list(report.index) == [*TOY, "alone"]
    assert report.loc["alone", "placement"] == "no spots"


def test_a_given_pixel_size_of_one_slide_is_used_for_its_areas(cohort):
    obs = cohort["table"].obs
    obs.loc[obs["region"] == "toy_A1", "um_per_px"] = np.nan
    h2e.pp.normalize(cohort, um_per_px={"toy_A1": 12.5})
    report = h2e.get.report(cohort)
    assert report["um_per_px_from"].tolist() == ["um_per_px=", *["table.obs"] * 3]
    assert report["um_per_px"].tolist() == [12.5, 6.25, 6.25, 6.25]
    mask, scale = find_mask(cohort, open_image(cohort, "toy_A1_image"))
    assert report["tissue_mm2"]["toy_A1"] == pytest.approx(mask.sum() * (scale * 12.5e-3) ** 2)


def test_a_grid_of_spots_without_genes_is_prepared(cohort):
    sdata = SpatialData(images={"he": cohort["toy_A1_image"]})
    h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25)
    h2e.pp.normalize(sdata)
    assert h2e.get.report(sdata).loc["he_spots", "spots_invalid"] == 0
    assert "rank" not in sdata["table"].layers


def test_spots_beside_their_image_need_realignment_to_be_prepared(cohort):
    shapes = cohort["toy_B1"].copy()
    shapes.geometry = shapes.geometry.translate(-2.4 * 32, 0)
    shapes.attrs = cohort["toy_B1"].attrs
    cohort.shapes["toy_B1"] = shapes
    with pytest.raises(ValueError, match="lie outside of image"):
        h2e.pp.normalize(cohort)
    h2e.pp.normalize(cohort, realign=True)
    assert h2e.get.report(cohort)["moved"].tolist() == [False, True, True, False]


@pytest.mark.parametrize("step", ["normalized.write_normalized", "masks.write_fraction", "rank_transform", "report_of"])
def test_what_fails_late_leaves_nothing_behind(cohort, monkeypatch: pytest.MonkeyPatch, step: str):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    before = {name: placed(cohort, name) for name in TOY}
    elements = sorted(name for _, name, _ in cohort.gen_elements())
    obs, attrs = cohort["table"].obs.copy(), dict(cohort.attrs)
    monkeypatch.setattr(f"h2e.pp._normalize.{step}", fail)
    with pytest.raises(OSError, match="disk full"):
        h2e.pp.normalize(cohort, realign=True)
    assert sorted(name for _, name, _ in cohort.gen_elements()) == elements
    assert cohort.attrs == attrs
    pd.testing.assert_frame_equal(cohort["table"].obs, obs)
    assert not cohort["table"].layers
    assert "h2e" not in cohort["table"].uns
    assert all((placed(cohort, name) == before[name]).all() for name in TOY)


def test_what_fails_late_leaves_an_earlier_run_as_it_was(cohort, monkeypatch: pytest.MonkeyPatch):
    h2e.pp.normalize(cohort)
    report, image, notes = h2e.get.report(cohort), cohort["toy_A1_image_normalized"], str(cohort.attrs)
    with monkeypatch.context() as patch:
        patch.setattr(_normalize, "report_of", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            h2e.pp.normalize(cohort, method="reinhard", realign=True)
    pd.testing.assert_frame_equal(h2e.get.report(cohort), report)
    assert cohort["toy_A1_image_normalized"] is image
    assert str(cohort.attrs) == notes


def test_a_missing_report_is_named(cohort):
    for source in (cohort, cohort["table"]):
        with pytest.raises(KeyError, match="there is no report on these slides. Make one with h2e.pp.normalize"):
            h2e.get.report(source)


def test_a_method_beside_a_reference_of_another_is_refused(cohort):
    reference = h2e.pp.fit_stain_reference(cohort, method="reinhard")
    with pytest.raises(ValueError, match="method must be that of the reference, 'reinhard', got 'vahadane'"):
        h2e.pp.normalize(cohort, reference=reference, method="vahadane")
    h2e.pp.normalize(cohort, reference=reference)
    assert cohort.attrs["h2e"]["stains"]["toy_A1_image_normalized"]["reference"]["method"] == "reinhard"


def part_of(cohort):
    """A crop of one slide and a choice of slides, which have the very attrs of the whole."""
    yield cohort.query.bounding_box(("x", "y"), [60, 60], [300, 330], "toy_A1")
    yield cohort.filter_by_coordinate_system(["toy_A2", "toy_B1"])


def test_preparing_a_part_leaves_the_whole_as_it_was(cohort):
    h2e.pp.normalize(cohort)
    before = copy.deepcopy(cohort.attrs)
    for part in part_of(cohort):
        assert part.attrs is cohort.attrs
        h2e.pp.detect_tissue(part, method="mean", overwrite=True)
        h2e.pp.normalize_stains(part)
        assert cohort.attrs == before != part.attrs
    with pytest.raises(ValueError, match="must be one of"):
        h2e.pp.normalize(cohort, method="none")
    assert cohort.attrs == before


def test_a_correction_that_was_not_stored_is_neither_reported_nor_taken_away(cohort, caplog):
    before = {region: get_transformation(shapes, get_all=True) for region, shapes in cohort.shapes.items()}
    h2e.pp.realign_spots(cohort)
    set_transformation(cohort.shapes["toy_A2"], before["toy_A2"], set_all=True)  # a store that only got the table
    h2e.pp.normalize(cohort)
    row = h2e.get.report(cohort).loc["toy_A2"]
    assert not row["moved"]
    assert "beside the tissue" in row["placement"]
    h2e.pp.realign_spots(cohort, undo=True)
    assert "'toy_A2': the spots are on record as moved, but their transformations do not" in caplog.text
    assert get_transformation(cohort.shapes["toy_A2"], get_all=True) == before["toy_A2"]


@pytest.mark.parametrize("limits", [{"max_shift": -1.0}, {"max_rotation_deg": -5.0}, {"max_zoom": 3.0}])
def test_limits_that_are_none_are_refused(cohort, limits):
    with pytest.raises(ValueError, match=f"{next(iter(limits))} must be 0 or more"):
        h2e.pp.realign_spots(cohort, **limits)


@pytest.mark.parametrize("scale", [0, -4, float("nan"), 1e6])
def test_a_scale_that_is_none_is_refused(cohort, scale):
    with pytest.raises(ValueError, match="between 1 and 416 image pixels"):
        h2e.pp.detect_tissue(cohort, scale=scale)


NO_EXPRESSION = {
    "no X": lambda table: setattr(table, "X", None),
    "antibodies only": lambda table: table.var.__setitem__("feature_types", "Antibody Capture"),
}


@pytest.mark.parametrize("change", NO_EXPRESSION.values(), ids=NO_EXPRESSION)
def test_slides_without_expression_are_prepared_and_the_report_says_so(two_slides, caplog, change):
    change(two_slides["table"])
    with caplog.at_level(logging.INFO):
        h2e.pp.normalize(two_slides, realign=True)
    assert "ranks skipped: no expression, on slides ['toy_A1', 'toy_B1']" in caplog.text
    assert set(h2e.get.report(two_slides)["warnings"]) == {"ranks skipped: no expression"}
    assert "rank" not in two_slides["table"].layers
    assert "toy_A1_image_normalized" in two_slides.images


def test_a_slide_without_counts_beside_others_is_named(two_slides):
    table = two_slides["table"]
    x = table.X.toarray()
    x[table.obs["donor"] == "B"] = 0
    table.X = x
    h2e.pp.normalize(two_slides)
    assert h2e.get.report(two_slides)["warnings"].to_dict() == {"toy_A1": "", "toy_B1": "ranks skipped: no expression"}


def test_a_layer_that_waits_to_be_named_is_asked_for(two_slides):
    table = two_slides["table"]
    table.layers["counts"], table.X = table.X, None
    with pytest.raises(ValueError, match=r"pass layer=, one of \['counts'\]"):
        h2e.pp.normalize(two_slides)
    h2e.pp.normalize(two_slides, layer="counts")
    assert "ranks" not in h2e.get.report(two_slides)


def test_lazily_read_counts_are_prepared_as_those_in_memory(two_slides):
    table = two_slides["table"]
    expected = h2e.pp.rank_transform(table, copy=True).layers["rank"].toarray()
    table.X = da.from_array(table.X.toarray(), chunks=(20, 60)).map_blocks(sparse.csr_matrix)
    h2e.pp.normalize(two_slides, realign=True)
    np.testing.assert_array_equal(table.layers["rank"].toarray(), expected)
