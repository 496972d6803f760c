from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData, concatenate
from spatialdata.models import Image2DModel, Image3DModel
from spatialdata.transformations import (
    Identity,
    Scale,
    Translation,
    get_transformation,
    remove_transformation,
    set_transformation,
)

import h2e
from h2e._sdata.images import _scale, open_image
from h2e._sdata.keys import Keys
from h2e._sdata.normalized import on_normalized_images
from h2e._sdata.pairing import find_pairing
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_images, open_slides, require_inside
from h2e._slide.lattice import lattice, lattice_of_array


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


def grid(kind: str, n: int = 12) -> np.ndarray:
    i, j = (a.ravel().astype(float) for a in np.meshgrid(np.arange(n), np.arange(n)))
    return np.column_stack([i + (j % 2) / 2, j * np.sqrt(3) / 2]) if kind == "hexagonal" else np.column_stack([i, j])


@pytest.mark.parametrize("kind", ["hexagonal", "square"])
@pytest.mark.parametrize("jitter", [0.0, 0.06])
def test_the_pitch_survives_jitter_rotation_and_holes(kind: str, jitter: float):
    rng = np.random.default_rng(0)
    xy = 290 * (grid(kind) + rng.normal(0, jitter, (144, 2)))
    turn = np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    pitch, found = lattice((xy @ turn)[rng.random(144) < 0.9])
    assert found == kind
    assert pitch == pytest.approx(290, rel=0.015)


@pytest.mark.parametrize("kind", ["hexagonal", "square"])
def test_array_coordinates_give_the_pitch_of_any_subset_through_jitter(kind: str):
    rng = np.random.default_rng(0)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(12), np.arange(12)))
    array = np.column_stack([2 * i + j % 2, j]) if kind == "hexagonal" else np.column_stack([i, j])
    xy = 290 * grid(kind) + rng.normal(0, 20, (144, 2))
    for some in (slice(None), slice(None, None, 7)):
        pitch, found = lattice_of_array(xy[some], array[some])
        assert found == kind
        assert pitch == pytest.approx(290, rel=0.03)
    assert lattice_of_array(xy[:12], array[:12]) is None  # one row
    assert lattice_of_array(xy, rng.permutation(array)) is None  # of other spots
    assert lattice_of_array(xy, np.full(array.shape, np.nan)) is None


def test_an_array_of_which_every_second_place_is_used_has_diagonal_neighbours():
    i, j = (a.ravel() for a in np.meshgrid(np.arange(12), np.arange(12)))
    array = np.column_stack([i, j])[(i + j) % 2 == 0]
    assert lattice_of_array(100.0 * array, array) == (pytest.approx(100 * np.sqrt(2)), "square")


def test_one_spot_has_no_pitch():
    with pytest.raises(ValueError, match="at least 2 spots"):
        lattice(np.zeros((1, 2)))


def test_slides_are_sorted_and_their_spots_keyed_by_region_and_instance(cohort):
    table = cohort["table"][np.random.default_rng(0).permutation(cohort["table"].n_obs)].copy()
    del cohort.tables["table"]
    cohort["table"] = table
    slides = find_slides(cohort, group_key="donor")
    assert [s.name for s in slides] == sorted(table.obs["region"].unique())
    for slide in slides:
        shapes = cohort.shapes[slide.name].loc[table.obs["instance_id"].to_numpy()[slide.rows]]
        np.testing.assert_allclose(slide.xy, np.column_stack([shapes.geometry.x, shapes.geometry.y]))
        assert set(table.obs["donor"].iloc[slide.rows]) == {slide.group}
        assert slide.image.key == f"{slide.name}_image"


def test_positions_go_through_the_transformations(cohort):
    region = find_slides(cohort)[0].region
    before = find_slides(cohort)[0]
    image = cohort.images[f"{region}_image"]
    set_transformation(image, Scale([2, 1.25], ("x", "y")), region)  # the pixels of the image are now larger
    after = find_slides(cohort)[0]
    np.testing.assert_allclose(after.xy, before.xy / [2, 1.25])
    assert after.um_per_px == before.um_per_px  # obs is about pixels of this image, always


def add_image(sdata, key: str, like: str, factor: int, **kwargs) -> None:
    source = sdata.images[like]["scale0"]["image"].data
    small = source[:, ::factor, ::factor]
    system = like.removesuffix("_image")
    transformations = {system: Scale([factor, factor], ("x", "y"))} if factor > 1 else {system: Identity()}
    sdata.images[key] = Image2DModel.parse(
        small, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=transformations, **kwargs
    )


def test_of_several_resolutions_the_finest_is_taken(cohort):
    add_image(cohort, "hires", "toy_A1_image", 2)
    add_image(cohort, "lowres", "toy_A1_image", 8)
    assert find_pairing(cohort).image_of("toy_A1") == "toy_A1_image"
    assert "hires" not in sorted(open_images(cohort, Keys()))
    named = {"toy_A1": "hires"} | {r: f"{r}_image" for r in ("toy_A2", "toy_B1", "toy_C1")}
    with pytest.warns(UserWarning, match=r"6.25 µm per pixel of table.obs are taken for image 'hires'.*'toy_A1_image'"):
        slide = find_slides(cohort, image_key=named)[0]
    cohort["table"].obs.loc[cohort["table"].obs["region"] == "toy_A1", "um_per_px"] = np.nan
    assert find_slides(cohort, image_key=named, um_per_px={"hires": 12.5})[0].um_per_px == 12.5
    assert slide.image.key == "hires"
    np.testing.assert_allclose(2 * slide.xy, find_slides(cohort, um_per_px={"toy_A1": 6.25})[0].xy)


def test_two_equally_fine_images_are_ambiguous(cohort):
    add_image(cohort, "other_stain", "toy_A1_image", 1)
    with pytest.raises(
        ValueError, match=r"region 'toy_A1' .* 2 images \['other_stain', 'toy_A1_image'\].*Pass image_key"
    ):
        find_slides(cohort)
    assert find_slides(cohort, image_key={r: f"{r}_image" for r in cohort.shapes})[0].image.key == "toy_A1_image"


def test_images_of_different_scenes_are_ambiguous(cohort):
    source = cohort.images["toy_A1_image"]["scale0"]["image"].data[:, :100, :100]
    cohort.images["corner"] = Image2DModel.parse(source, dims=("c", "y", "x"), transformations={"toy_A1": Identity()})
    with pytest.raises(ValueError, match="do not show one scene"):
        find_slides(cohort)


def test_a_normalized_image_is_never_a_source_but_is_used_where_asked(cohort):
    add_image(cohort, "toy_A1_image_normalized", "toy_A1_image", 1)
    assert sorted(open_images(cohort, Keys())) == [f"{r}_image" for r in sorted(cohort.shapes)]
    assert find_slides(cohort)[0].image.key == "toy_A1_image"
    assert on_normalized_images(cohort, find_slides(cohort))[0].image.key == "toy_A1_image_normalized"
    assert on_normalized_images(cohort, find_slides(cohort))[1].image.key == "toy_A2_image"


def test_slides_without_spots_are_source_images(cohort):
    lonely = cohort.images["toy_A1_image"]["scale0"]["image"].data
    cohort.images["only_he"] = Image2DModel.parse(
        lonely, dims=("c", "y", "x"), transformations={"elsewhere": Identity()}
    )
    assert "only_he" in sorted(open_images(cohort, Keys()))


def test_what_is_missing_is_named_with_what_is_there(cohort):
    with pytest.raises(KeyError, match=r"'tabel' is not in sdata.tables; it has \['table'\]"):
        find_slides(cohort, table_key="tabel")
    with pytest.raises(KeyError, match="'nobody' is not in table.obs"):
        find_slides(cohort, group_key="nobody")
    with pytest.raises(KeyError, match="'nope' is not in sdata.images"):
        find_slides(cohort, image_key="nope")
    with pytest.raises(ValueError, match="region 'toy_A2' shares no coordinate system with image 'toy_A1_image'"):
        find_slides(cohort, image_key="toy_A1_image")
    with pytest.raises(ValueError, match="names no image for region 'toy_A2'"):
        find_slides(cohort, image_key={"toy_A1": "toy_A1_image"})
    del cohort.images["toy_A1_image"]
    with pytest.raises(ValueError, match="shares a coordinate system with no image"):
        find_slides(cohort)
    del cohort.shapes["toy_A1"]
    with pytest.raises(KeyError, match="'toy_A1', which is not in sdata.shapes"):
        find_slides(cohort)


def test_spots_outside_of_the_image_are_refused(cohort):
    shapes = cohort.shapes["toy_A1"]
    set_transformation(shapes, Scale([1.5, 1.5], ("x", "y")), "toy_A1")
    with pytest.raises(
        ValueError, match=r"\d+ of 60 spots of slide 'toy_A1' lie outside of image 'toy_A1_image' \(416 × 416 px\)"
    ):
        find_slides(cohort)


def test_a_slide_lies_in_one_group(cohort):
    cohort["table"].obs["half"] = np.where(np.arange(cohort["table"].n_obs) % 2, "a", "b")
    with pytest.raises(ValueError, match=r"slide 'toy_A1' lies in several groups of obs\['half'\]: \['a', 'b'\]"):
        find_slides(cohort, group_key="half")


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (np.zeros((1, 9, 9), np.uint8), "1 channels"),
        (np.zeros((3, 9, 9), np.float32), "must be 8-bit RGB, got float32"),
        (np.zeros((3, 9, 9), np.uint16), r"got uint16\..*// 257.*if its values reach to 65535"),
        (np.zeros((9, 9, 3), np.uint8), "9 channels"),
    ],
)
def test_images_that_are_not_8_bit_rgb_are_refused(cohort, pixels: np.ndarray, complaint: str):
    cohort.images["odd"] = Image2DModel.parse(pixels, dims=("c", "y", "x"))
    with pytest.raises(ValueError, match=complaint):
        open_image(cohort, "odd")


@pytest.mark.parametrize("names", [None, ["r", "g", "b", "a"], ["A", "B", "G", "R"]])
def test_an_alpha_channel_is_left_out_and_channels_go_by_name(cohort, names: list | None):
    pixels = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 5, 5), np.uint8)
    cohort.images["rgba"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=names)
    expected = [3, 2, 1] if names and names[0] == "A" else [0, 1, 2]
    np.testing.assert_array_equal(open_image(cohort, "rgba").levels[0][:, 0, 0].compute(), expected)


def test_a_table_that_annotates_nothing_is_refused(cohort):
    del cohort["table"].uns["spatialdata_attrs"]
    with pytest.raises(ValueError, match="annotates no element"):
        find_slides(cohort)


def test_shapes_and_images_may_share_more_than_one_coordinate_system(cohort):
    shapes = cohort.shapes["toy_A1"]
    before = find_slides(cohort)[0].xy
    set_transformation(shapes, Scale([2, 2], ("x", "y")), "other")
    set_transformation(cohort.images["toy_A1_image"], Scale([2, 2], ("x", "y")), "other")
    np.testing.assert_allclose(find_slides(cohort)[0].xy, before)
    remove_transformation(shapes, "toy_A1")
    assert "toy_A1" not in get_transformation(shapes, get_all=True)
    np.testing.assert_allclose(find_slides(cohort)[0].xy, before)


def test_array_coordinates_that_some_slides_lack_are_not_needed(cohort):
    expected = [s.spacing_px for s in find_slides(cohort)]
    cohort["table"].obs.loc[cohort["table"].obs["region"] == "toy_A1", ["array_row", "array_col"]] = np.nan
    np.testing.assert_allclose([s.spacing_px for s in find_slides(cohort)], expected, rtol=0.01)


def test_an_image_normalized_under_another_key_is_no_second_source(cohort):
    h2e.pp.normalize_stains(cohort, image_key="toy_A1_image", key_added="mine")
    assert find_slides(cohort)[0].image.key == "toy_A1_image"


def test_two_slides_of_almost_one_size_in_one_system_are_not_one_scene(cohort):
    images = {}
    for key, name, n in (("A_image", "toy_A1", 416), ("B_image", "toy_B1", 412)):
        pixels = cohort.images[f"{name}_image"]["scale0"]["image"].data[:, :n, :n]
        images[key] = Image2DModel.parse(pixels, dims=("c", "y", "x"))
    assert sorted(open_images(SpatialData(images=images), Keys())) == ["A_image", "B_image"]
    shapes = cohort["toy_B1"]
    set_transformation(shapes, {"global": Identity()}, set_all=True)
    both = SpatialData(images=images, shapes={"toy_B1": shapes})
    with pytest.raises(ValueError, match="do not show one scene"):
        find_pairing(both).image_of("toy_B1")


def test_the_size_of_a_pixel_is_known_for_the_slides_that_tell_it(cohort):
    table = cohort["table"]
    table.obs.loc[table.obs["region"] == "toy_A1", "um_per_px"] = np.nan
    cohort["toy_A1"]["radius"] = 16.0
    sizes = {key: slide.um_per_px for key, slide in open_images(cohort, Keys()).items()}
    assert (sizes["toy_A1_image"], sizes["toy_B1_image"]) == (None, 6.25)


def test_shapes_of_one_name_are_refused(cohort):
    cohort["toy_A1"].index = [0, *cohort["toy_A1"].index[1:-1], 0]
    with pytest.raises(ValueError, match="shapes 'toy_A1' have several entries of one name, such as '0'"):
        find_slides(cohort)


def test_coordinate_systems_that_disagree_are_refused(cohort):
    circles, image = cohort.shapes["toy_A1"], cohort.images["toy_A1_image"]
    for element in (circles, image):
        set_transformation(element, get_transformation(element, "toy_A1"), "aligned")
    before = find_slides(cohort)[0].xy
    set_transformation(image, Translation([40, 0], ("x", "y")), "aligned")
    with pytest.raises(ValueError, match="'toy_A1' and 'aligned' disagree by up to 40 px where"):
        find_slides(cohort)
    remove_transformation(circles, "aligned")
    np.testing.assert_array_equal(find_slides(cohort)[0].xy, before)


def test_a_few_scattered_points_have_a_finite_pitch():
    assert lattice(np.array([[0.0, 0], [1, 0], [50, 0], [56, 0]]))[0] in (1.0, 6.0)


def test_the_scale_of_a_level_is_whole_where_a_pixel_was_trimmed_and_not_else():
    size = np.array([1637, 2001])
    for k in range(1, 5):
        assert _scale(size, size // 2**k) == _scale(size, -(-size // 2**k)) == 2**k
    assert _scale(np.array([1630, 1630]), np.array([100, 100])) == pytest.approx(16.3)


@pytest.mark.parametrize("kind", ["hexagonal", "square"])
@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3), (12, 2)])
def test_a_small_piece_of_a_lattice_has_its_kind(kind: str, shape: tuple[int, int]):
    i, j = (a.ravel().astype(float) for a in np.meshgrid(*map(np.arange, shape)))
    xy = np.column_stack([i + (j % 2) / 2, j * np.sqrt(3) / 2]) if kind == "hexagonal" else np.column_stack([i, j])
    assert lattice(60 * xy) == (pytest.approx(60), kind)


def test_an_image_of_other_axes_is_named(cohort):
    volume = Image3DModel.parse(np.zeros((3, 2, 40, 40), np.uint8), dims=("c", "z", "y", "x"))
    cohort.images["volume"] = volume
    with pytest.raises(ValueError, match=r"axes \(c, y, x\), got \('c', 'z', 'y', 'x'\)"):
        open_image(cohort, "volume")


def test_normalized_images_of_slides_that_were_joined_are_no_slides(cohort):
    bare = SpatialData(images={"toy_A1_image": cohort.images["toy_A1_image"]})
    h2e.pp.normalize(bare, um_per_px=6.25)
    other = SpatialData(images={"toy_B1_image": cohort.images["toy_B1_image"]})
    h2e.pp.normalize(other, um_per_px=6.25)
    joined = concatenate({"p": bare, "q": other})
    assert sorted(open_images(joined, Keys())) == ["toy_A1_image-p", "toy_B1_image-q"]


def test_rows_without_a_region_are_named(cohort):
    table = cohort["table"]
    table.obs["region"] = table.obs["region"].astype(object).where(np.arange(table.n_obs) > 1)
    with pytest.raises(ValueError, match=r"table.obs\['region'\] is missing for 2 of"):
        h2e.pp.normalize(cohort)


def test_several_rows_about_one_spot_are_refused(cohort):
    instances = cohort["table"].obs["instance_id"].to_numpy().copy()
    instances[1] = instances[0]
    cohort["table"].obs["instance_id"] = instances
    with pytest.raises(ValueError, match="several rows of the table are about one of the shapes 'toy_A1', such as '0'"):
        find_slides(cohort)


def test_an_image_without_its_finest_level_is_named_as_that(cohort):
    del cohort["toy_A1_image"]["scale0"]
    with pytest.raises(ValueError, match=r"must have its finest level, scale0, got \['scale1', 'scale2'\]"):
        find_slides(cohort)
