"""Laws of spots: their share of tissue, where they are, and grids of new ones."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from spatialdata import SpatialData, get_extent
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import h2e.pp
from h2e._sdata.images import open_image
from h2e._sdata.keys import Keys
from h2e._sdata.masks import find_mask
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._slide.image import Image
from h2e._slide.lattice import hexagonal_grid
from h2e._slide.registration import place
from h2e._slide.tissue import fraction_at, tissue_mask
from h2e.datasets import toy_cohort


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


def blob(side: int = 400) -> np.ndarray:
    """Tissue of an irregular outline."""
    y, x = np.indices((side, side)) / side - 0.5
    angle = np.arctan2(y, x)
    return np.hypot(y, x) < 0.25 + 0.04 * np.cos(3 * angle) + 0.03 * np.sin(2 * angle + 1)


def spots_on(mask: np.ndarray, spacing: float) -> np.ndarray:
    """A square grid of spots on the tissue."""
    steps = np.arange(spacing / 2, len(mask), spacing)
    xy = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return xy[mask[xy[:, 1].astype(int), xy[:, 0].astype(int)]]


def test_the_fraction_is_the_mean_of_the_mask_in_the_square():
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.random((60, 80)), 3) > 0.5
    xy = rng.uniform(-10, 90, (300, 2))
    found = fraction_at(mask, 2.5, xy, 17.0)
    fine = np.zeros((60 * 25 + 2000, 80 * 25 + 2000), bool)  # tenths of level-0 pixels, and nothing around
    fine[1000 : 1000 + 1500, 1000 : 1000 + 2000] = np.kron(mask, np.ones((25, 25), bool))
    for (x, y), share in zip(xy, found, strict=True):
        x0, x1, y0, y1 = (round(10 * v) + 1000 for v in (x - 8.5, x + 8.5, y - 8.5, y + 8.5))
        assert share == pytest.approx(fine[max(y0, 0) : y1, max(x0, 0) : x1].sum() / 170**2, abs=0.02)


def test_the_fraction_does_not_depend_on_the_scale_of_the_mask():
    mask = blob(200)
    xy = np.random.default_rng(0).uniform(20, 180, (50, 2))
    fine = np.kron(mask, np.ones((4, 4), bool))
    np.testing.assert_allclose(fraction_at(fine, 0.25, xy, 13.0), fraction_at(mask, 1.0, xy, 13.0), atol=1e-5)


def test_spots_beside_the_tissue_have_a_fraction_of_zero(cohort):
    h2e.pp.detect_tissue(cohort)
    h2e.pp.tissue_fraction(cohort)
    obs = cohort["table"].obs
    assert obs["tissue_fraction"].dtype == np.float32
    assert obs["tissue_fraction"].between(0, 1).all()
    straight = obs[obs["region"] != "toy_A2"]
    assert straight.loc[straight["on_tissue"], "tissue_fraction"].min() > 0.2
    assert straight.loc[~straight["on_tissue"], "tissue_fraction"].max() < 0.5
    far = np.zeros((416, 416), np.uint8)
    far[:5, :5] = 1
    for key in cohort.images:
        system = key.removesuffix("_image")
        cohort.labels[f"far_{key}"] = Labels2DModel.parse(far, dims=("y", "x"), transformations={system: Identity()})
    with pytest.raises(ValueError, match="shares no coordinate system"):
        h2e.pp.tissue_fraction(cohort, tissue_mask_key="far_toy_A1_image")


def test_a_subset_of_the_spots_has_the_same_fractions(cohort):
    h2e.pp.tissue_fraction(cohort)
    whole = cohort["table"].obs["tissue_fraction"]
    cohort.tables["table"] = cohort["table"][::3].copy()
    del cohort["table"].obs["tissue_fraction"]
    h2e.pp.tissue_fraction(cohort)
    np.testing.assert_allclose(cohort["table"].obs["tissue_fraction"], whole.iloc[::3], atol=1e-5)


def test_a_second_run_replaces_the_fractions_and_a_foreign_column_is_kept(cohort):
    h2e.pp.tissue_fraction(cohort)
    h2e.pp.tissue_fraction(cohort)
    cohort["table"].obs["mine"] = 0.5
    with pytest.raises(ValueError, match=r"obs\['mine'\] is there, and there is no record of h2e having written it"):
        h2e.pp.tissue_fraction(cohort, key_added="mine")
    assert (cohort["table"].obs["mine"] == 0.5).all()
    h2e.pp.tissue_fraction(cohort, key_added="mine", overwrite=True)
    assert (cohort["table"].obs["mine"] == cohort["table"].obs["tissue_fraction"]).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_shift_is_found_to_a_tenth_of_a_spacing(seed):
    mask, rng = blob(), np.random.default_rng(seed)
    xy = spots_on(mask, 20.0) + rng.normal(0, 1, 2)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
    plant = length * np.array([np.cos(angle), np.sin(angle)])
    before = place(mask, 1.0, xy, 20.0)
    after = place(mask, 1.0, xy + 20 * plant, 20.0)
    np.testing.assert_allclose(np.subtract(after.shift, before.shift), -plant, atol=0.1)
    assert after.score == pytest.approx(before.score, abs=0.02)
    assert after.score > after.score_before + 0.02


def test_a_planted_rotation_and_stretch_are_found():
    mask = blob()
    xy = spots_on(mask, 10.0)
    angle = np.deg2rad(4)
    turn = 1.03 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wrong = (xy - xy.mean(axis=0)) @ turn.T + xy.mean(axis=0) + [10, -5]
    found = place(mask, 1.0, wrong, 10.0, max_rotation_deg=6, max_zoom=0.05)
    assert found.rotation_deg == pytest.approx(-4, abs=1.6)
    assert found.zoom == pytest.approx(1 / 1.03, abs=0.02)
    np.testing.assert_allclose(found.shift, (-1, 0.5), atol=0.15)
    assert place(mask, 1.0, xy, 16.0).rotation_deg == 0


def centres(sdata: SpatialData, slide: str) -> np.ndarray:
    """Where the spots of a slide are, in pixels of the image."""
    return next(s for s in find_slides(sdata) if s.name == slide).xy


def test_misplaced_spots_are_moved_back_and_well_placed_ones_are_not(cohort):
    before = {slide.name: slide.xy for slide in find_slides(cohort)}
    geometry = cohort["toy_A2"].geometry.copy()
    h2e.pp.realign_spots(cohort)
    report = cohort["table"].uns["h2e"]["realign"]
    assert [region for region in report if report[region]["moved"]] == ["toy_A2"]
    truth = before["toy_A2"] - cohort["table"].uns["toy"]["shift_px"]["toy_A2"]
    assert np.abs(centres(cohort, "toy_A2") - truth).max() < 0.2 * 32
    for name in ("toy_A1", "toy_B1", "toy_C1"):
        np.testing.assert_array_equal(centres(cohort, name), before[name])
    assert (cohort["toy_A2"].geometry == geometry).all()
    assert report["toy_A2"]["gain"] > 0.1
    assert "moved by" in report["toy_A2"]["reason"]


def test_realignment_can_be_undone_and_repeated(cohort):
    set_transformation(
        cohort["toy_A2"],
        {"toy_A2": Identity(), "micron": Scale([6.25, 6.25], axes=("x", "y"))},
        set_all=True,
    )
    before = get_transformation(cohort["toy_A2"], get_all=True)
    x_before = get_extent(cohort["toy_A2"], coordinate_system="micron")["x"][0]
    h2e.pp.realign_spots(cohort)
    once = centres(cohort, "toy_A2")
    x_once = get_extent(cohort["toy_A2"], coordinate_system="micron")["x"][0]
    report = cohort["table"].uns["h2e"]["realign"]["toy_A2"]
    assert x_once - x_before == pytest.approx(6.25 * report["shift_x_px"])
    h2e.pp.realign_spots(cohort)
    np.testing.assert_allclose(centres(cohort, "toy_A2"), once)
    h2e.pp.realign_spots(cohort, undo=True)
    assert get_transformation(cohort["toy_A2"], get_all=True) == before
    assert "realign" not in cohort["table"].uns["h2e"]


def test_realignment_can_be_undone_after_a_round_trip(cohort, tmp_path):
    h2e.pp.realign_spots(cohort)
    matrix = np.array(cohort["table"].uns["h2e"]["realign"]["toy_A2"]["matrix"])
    cohort["table"].write_h5ad(tmp_path / "table.h5ad")
    back = ad.read_h5ad(tmp_path / "table.h5ad")
    back.uns["spatialdata_attrs"] = cohort["table"].uns["spatialdata_attrs"]
    cohort.tables["table"] = back
    np.testing.assert_array_equal(cohort["table"].uns["h2e"]["realign"]["toy_A2"]["matrix"], matrix)
    h2e.pp.realign_spots(cohort, undo=True)
    to = get_transformation(cohort["toy_A2"], "toy_A2").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(to, np.eye(3), atol=1e-9)


def test_spots_whose_centres_left_the_image_are_brought_back(cohort):
    mask, _ = find_mask(cohort, open_image(cohort, "toy_B1_image")) or tissue_mask(find_slides(cohort)[2].image)
    before = centres(cohort, "toy_B1")
    away = np.array([-2.4 * 32, 0.3 * 32])
    shifted = cohort["toy_B1"].copy()
    shifted.geometry = shifted.geometry.translate(*away)
    shifted.attrs = cohort["toy_B1"].attrs
    cohort.shapes["toy_B1"] = shifted
    h2e.pp.realign_spots(cohort)
    assert cohort["table"].uns["h2e"]["realign"]["toy_B1"]["moved"]
    assert np.abs(centres(cohort, "toy_B1") - before).max() < 0.3 * 32
    assert mask.any()


@pytest.mark.parametrize("what", ["all tissue", "no tissue", "far"])
def test_weak_evidence_moves_nothing(cohort, what):
    full = np.full((416, 416), what == "all tissue", np.uint8)
    if what == "far":
        full[:60, -60:] = 1
    cohort.labels["toy_A2_image_tissue"] = Labels2DModel.parse(
        full, dims=("y", "x"), transformations={"toy_A2": Identity()}
    )
    before = centres(cohort, "toy_A2")
    h2e.pp.realign_spots(cohort)
    report = cohort["table"].uns["h2e"]["realign"]["toy_A2"]
    assert not report["moved"]
    assert report["reason"].startswith("not moved")
    np.testing.assert_array_equal(centres(cohort, "toy_A2"), before)


def test_a_grid_twice_as_fine_has_all_points_of_the_coarse_one():
    for spacing in (100 / 6.25, 55 / 0.69, 13.7):
        coarse, _ = hexagonal_grid((417, 1031), spacing)
        fine, _ = hexagonal_grid((417, 1031), spacing / 2)
        assert set(map(tuple, coarse)) <= set(map(tuple, fine))
        assert len(fine) > 3.5 * len(coarse)


def test_the_grid_is_hexagonal_and_covers_the_image():
    xy, array = hexagonal_grid((500, 700), 40.0)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(distance.min(axis=1), 40)
    inner = ((xy > 60) & (xy < [640, 440])).all(axis=1)
    assert (np.isclose(distance[inner], 40).sum(axis=1) == 6).all()
    assert len(set(map(tuple, array))) == len(array)
    y, x = np.indices((500, 700))[:, ::10, ::10].reshape(2, -1)
    assert np.linalg.norm(np.column_stack([x, y])[:, None] - xy[None], axis=-1).min(axis=1).max() < 45


def he_only() -> SpatialData:
    """Slides without spots."""
    cohort = toy_cohort(n_slides=2, n_donors=2)
    return SpatialData(images=dict(cohort.images))


def test_spots_are_made_where_the_tissue_is():
    sdata = he_only()
    h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25)
    table = sdata["table"]
    assert table.n_vars == 0
    assert set(table.obs["um_per_px"]) == {6.25}
    for slide in find_slides(sdata):
        assert slide.spacing_px == pytest.approx(32)
        assert slide.um_per_px == 6.25
        assert slide.radius_px == pytest.approx(0.275 * 32)
        mask, scale = tissue_mask(slide.image, um_per_px=6.25)
        at = (slide.xy / scale).astype(int)
        assert mask[at[:, 1], at[:, 0]].all()
        assert len(slide) == pytest.approx(mask.sum() * scale**2 / (32**2 * np.sqrt(3) / 2), rel=0.1)
    h2e.pp.tissue_fraction(sdata)
    assert (table.obs["tissue_fraction"] > 0).all()


def test_finer_spots_include_the_coarser_ones():
    sdata = he_only()
    key = sorted(sdata.images)[0]
    h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25, image_key=key, key_added="coarse")
    h2e.pp.make_spots(sdata, spacing_um=100, um_per_px=6.25, image_key=key, key_added="fine")
    coarse, fine = (set(zip(sdata[k].geometry.x, sdata[k].geometry.y, strict=True)) for k in ("coarse", "fine"))
    assert coarse < fine
    assert dict(sdata["table"].obs["region"].value_counts()) == {"fine": len(fine), "coarse": len(coarse)}


def test_making_spots_again_replaces_them_and_foreign_shapes_are_kept():
    sdata = he_only()
    first, second = sorted(sdata.images)
    h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25)
    n = sdata["table"].n_obs
    h2e.pp.make_spots(sdata, spacing_um=200, um_per_px=6.25)
    assert sdata["table"].n_obs == n
    sdata["table"].obsm["h2e"] = np.ones((n, 2), np.float32)
    h2e.pp.make_spots(sdata, spacing_um=400, um_per_px=6.25, image_key=first)
    assert sdata["table"].n_obs < n
    sdata.shapes["mine"] = sdata[f"{second}_spots"].copy()
    with pytest.raises(ValueError, match="'mine'\\] is there, and there is no record"):
        h2e.pp.make_spots(sdata, um_per_px=6.25, image_key=second, key_added="mine")


def test_spots_without_a_known_pixel_size_are_refused():
    sdata = he_only()
    with pytest.raises(ValueError, match="size of a pixel of slide .* is not known: no spots tell it. Pass um_per_px"):
        h2e.pp.make_spots(sdata)
    with pytest.raises(ValueError, match="spacing_um must be a positive number of µm, got -5"):
        h2e.pp.make_spots(sdata, spacing_um=-5, um_per_px=1)
    with pytest.raises(ValueError, match="image_key must name one image"):
        h2e.pp.make_spots(sdata, um_per_px=6.25, key_added="x")
    with pytest.raises(ValueError, match="no point of a grid of 90000 µm"):
        h2e.pp.make_spots(sdata, um_per_px=6.25, spacing_um=90000, tissue_mask_key=edge_mask(sdata))
    assert not sdata.shapes
    assert not sdata.tables


def edge_mask(sdata: SpatialData) -> str:
    """Tissue in one corner only, for all images."""
    mask = np.zeros((416, 416), np.uint8)
    mask[:9, :9] = 1
    placed = {key.removesuffix("_image"): Identity() for key in sdata.images}
    sdata.labels["edge"] = Labels2DModel.parse(mask, dims=("y", "x"), transformations=placed)
    return "edge"


def test_a_grid_does_not_enter_a_table_of_measured_genes(cohort):
    with pytest.raises(ValueError, match="each image already has spots"):
        h2e.pp.make_spots(cohort, um_per_px=6.25)
    with pytest.raises(ValueError, match="holds 60 measured genes"):
        h2e.pp.make_spots(cohort, um_per_px=6.25, image_key="toy_A1_image")
    h2e.pp.make_spots(cohort, um_per_px=6.25, image_key="toy_A1_image", table_key="grid")
    assert cohort["grid"].n_obs == len(cohort["toy_A1_image_spots"])
    assert cohort["table"].n_vars == 60


def test_a_tiny_blank_image_has_an_empty_mask():
    array = da.from_array(np.full((3, 64, 64), 230, np.uint8))
    assert not tissue_mask(Image("blank", (array,), (1.0,)))[0].any()


def test_a_grid_that_cannot_enter_its_table_leaves_nothing_behind():
    sdata = he_only()
    sdata["table"] = ad.AnnData(np.zeros((3, 0)))
    with pytest.raises(ValueError, match="the table annotates no element"):
        h2e.pp.make_spots(sdata, um_per_px=6.25, image_key=sorted(sdata.images)[0])
    assert not sdata.shapes


def bare(*names: str) -> SpatialData:
    """Slides of which only the images are there, all in one coordinate system."""
    cohort = toy_cohort(n_slides=4, n_donors=4, seed=1)
    levels = {name: cohort.images[f"toy_{name}1_image"]["scale0"]["image"].data for name in names}
    return SpatialData(images={name: Image2DModel.parse(level, dims=("c", "y", "x")) for name, level in levels.items()})


def test_a_grid_knows_the_image_that_it_was_laid_over():
    sdata = bare("B", "D")
    h2e.pp.make_spots(sdata, um_per_px=6.25, spacing_um=200)
    assert {slide.name: slide.image.key for slide in find_slides(sdata)} == {"B_spots": "B", "D_spots": "D"}
    with pytest.raises(ValueError, match="the spots 'B_spots' are a grid over image 'B', not over 'D'"):
        find_slides(sdata, image_key="D")
    small = sdata.images["B"].data[:, ::2, ::2]
    sdata.images["small"] = Image2DModel.parse(small, transformations={"global": Scale([2, 2], ("x", "y"))})
    keys = {"B_spots": "small"}  # the same scene; of others the record holds
    assert {slide.name: slide.image.key for slide in find_slides(sdata, image_key=keys)} == {
        "B_spots": "small",
        "D_spots": "D",
    }


def test_bare_slides_in_one_system_are_predicted_one_by_one_and_together():
    ensemble = h2e.tl.fit(toy_cohort(), learners="mean", targets=["TOY01"], group_key="donor", progress=False)
    options = {"um_per_px": 6.25, "progress": False}
    together, one = bare("B", "D"), bare("B", "D")
    h2e.tl.predict(together, ensemble, **options)
    assert set(together["table"].obs["region"]) == {"B_spots", "D_spots"}
    h2e.tl.predict(one, ensemble, **options, image_key="B")
    with pytest.raises(ValueError, match=r"lay one over that, too, with h2e.pp.make_spots\(sdata, image_key='D'"):
        h2e.tl.predict(one, ensemble, **options, image_key="D")
    h2e.pp.make_spots(one, um_per_px=6.25, spacing_um=ensemble.spacing_um)
    h2e.tl.predict(one, ensemble, **options)
    assert one["table"].obsm["h2e"].notna().all(axis=None)
    assert set(one["table"].obs["region"]) == {"B_spots", "D_spots"}


def test_a_grid_in_a_table_of_its_own_is_laid_where_nothing_was_measured(cohort):
    del cohort.tables["table"].uns["toy"]
    cohort.images["bare"] = bare("D").images["D"]
    h2e.pp.make_spots(cohort, um_per_px=6.25, table_key="grid")
    assert set(cohort["grid"].obs["region"]) == {"bare_spots"}


def test_an_image_that_no_spots_need_and_that_is_no_rgb_is_left_out(cohort, caplog):
    pixels = np.zeros((3, 50, 50), np.uint16)
    cohort.images["dapi"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"other": Identity()})
    h2e.pp.normalize(cohort)
    assert "an image without spots is left out: image 'dapi' must be 8-bit RGB, got uint16" in caplog.text
    assert "dapi_normalized" not in cohort.images
