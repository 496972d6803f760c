"""Laws of tissue masks."""

from __future__ import annotations

import dask.array as da
import geopandas
import matplotlib as mpl
import numpy as np
import pytest
import shapely
import skimage
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.morphology import closing, disk, remove_small_holes
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel
from spatialdata.transformations import Affine, Identity, Scale, get_transformation

import h2e.pl
import h2e.pp
from h2e._sdata.images import open_image
from h2e._sdata.masks import find_mask
from h2e._slide.image import Image
from h2e._slide.tissue import fraction_at, tissue_mask

GLASS = np.array([238, 226, 236], float)


def stained(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour densities of a stain by Beer and Lambert, with grains as nuclei are; (y, x, 3)."""
    grains = 0.6 + 0.8 * ndimage.gaussian_filter(rng.random(density.shape), 1) / 0.5
    od = (density * grains)[..., None] * np.array([0.35, 0.75, 0.2])
    return GLASS * np.exp(-od) + rng.normal(0, 1.5, (*density.shape, 3))


def scene(side: int = 600) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Tissue as a disk on glass, and the truth."""
    rng = np.random.default_rng(0)
    y, x = np.indices((side, side))
    truth = np.hypot(y - side * 0.5, x - side * 0.45) < side * 0.25
    return stained(truth * 0.8, rng), truth, rng


def pyramid(rgb: np.ndarray) -> Image:
    """One level as the lazy pyramid that the masks read."""
    pixels = np.moveaxis(np.clip(rgb, 0, 255).round().astype(np.uint8), -1, 0)
    return Image("he", (da.from_array(pixels, chunks=(3, 256, 256)),), (1.0,))


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return (mask & truth).sum() / (mask | truth).sum()


def sdata_of(rgb: np.ndarray, **transformations: object) -> SpatialData:
    """An H&E without spots."""
    pixels = np.clip(rgb, 0, 255).round().astype(np.uint8)
    placed = transformations or {"global": Identity()}
    image = Image2DModel.parse(
        pixels, dims=("y", "x", "c"), c_coords=["r", "g", "b"], transformations=placed, scale_factors=[2]
    )
    return SpatialData(images={"he": image})


def uneven_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices(rgb.shape[:2]) / rgb.shape[0]
    return rgb * (0.75 + 0.25 * np.exp(-((y - 0.3) ** 2 + (x - 0.6) ** 2) / 0.4))[..., None]


def on_black(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices(rgb.shape[:2]) / rgb.shape[0]
    out = rgb.copy()
    out[np.hypot(y - 0.5, x - 0.45) > 0.27] = 0
    return out


def on_black_with_a_thumbnail(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = on_black(rgb, rng)
    out[:150, -150:] = rgb[::4, ::4]
    return out


def dark_border(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = rgb.copy()
    out[:40], out[-40:], out[:, :30], out[:, -30:] = 5, 5, 5, 5
    return out


def pen(rgb: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    y, x = np.indices(rgb.shape[:2])
    out = rgb.copy()
    out[np.abs(np.hypot(y - 300, x - 270) - 230) < 8] = colour
    return out


def dust(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = rgb.copy()
    for y, x in rng.integers(5, 595, (200, 2)):
        out[y : y + 3, x : x + 3] = rng.uniform(40, 200)
    return out


def gray_marks_out_of_focus(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shade = np.ones(rgb.shape[:2])
    shade[-60:, :200] = 0.5
    return rgb * ndimage.gaussian_filter(shade, 15)[..., None]


def stain_haze(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices(rgb.shape[:2])
    haze = np.exp(-((y - 300) ** 2 + (x - 480) ** 2) / 100**2)
    return rgb * np.exp(-haze[..., None] * np.array([0.03, 0.3, 0.12]))


CHANGES = [
    lambda rgb, rng: rgb, uneven_light, on_black, on_black_with_a_thumbnail, dark_border, dust, gray_marks_out_of_focus,
    stain_haze,
    lambda rgb, rng: pen(rgb, (30, 140, 60)),
    lambda rgb, rng: pen(rgb, (30, 60, 160)),
    lambda rgb, rng: pen(rgb, (25, 25, 25)),
    lambda rgb, rng: pen(rgb, (210, 30, 35)),
]  # fmt: skip
NAMES = ["plain", "light", "black", "thumbnail", "border", "dust", "marks", "haze", "green", "blue", "ink", "red"]


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_the_default_mask_is_the_tissue_whatever_else_is_on_the_glass(change):
    rgb, truth, rng = scene()
    mask, scale = tissue_mask(pyramid(change(rgb, rng)))
    assert scale == 1
    assert overlap(mask, truth) > 0.93


@pytest.mark.parametrize("size", [(300, 400), (257, 333), (1200, 900)])
def test_the_mean_mask_is_the_recipe(size):
    rng = np.random.default_rng(1)
    rgb = ndimage.gaussian_filter(rng.random((*size, 3)) * 255, (6, 6, 0))
    rgb = np.clip((rgb - rgb.mean()) * 8 + 150, 0, 255).round().astype(np.uint8)
    mask, scale = tissue_mask(pyramid(rgb), method="mean")
    gray = rgb2gray(rgb)
    expected = closing(gray <= gray.mean(), disk(2))
    key = "max_size" if tuple(map(int, skimage.__version__.split(".")[:2])) >= (0, 26) else "area_threshold"
    expected = remove_small_holes(expected, **{key: 5000})
    assert scale == 1
    np.testing.assert_array_equal(mask, expected)
    assert 0 < mask.mean() < 1


def test_a_large_image_is_reduced_by_means_of_blocks_and_no_level_is_needed():
    rgb, _, _ = scene(300)
    pixels = np.clip(rgb, 0, 255).round().astype(np.uint8)
    large = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    image = Image("he", (da.from_array(np.moveaxis(large, -1, 0), chunks=(3, 500, 700)),), (1.0,))
    mask, scale = tissue_mask(image, scale=8)
    assert scale == 8
    np.testing.assert_array_equal(mask, tissue_mask(pyramid(pixels))[0])
    assert tissue_mask(image)[1] == 2.0


def test_only_a_coarse_level_is_read():
    rgb, truth, _ = scene(1200)

    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError

    fine = da.zeros((3, 9600, 9600), dtype=np.uint8, chunks=(3, 1000, 1000)).map_blocks(fail, meta=np.empty((0,), "u1"))
    image = Image("he", (fine, pyramid(rgb).levels[0]), (1.0, 8.0))
    mask, scale = tissue_mask(image)
    assert scale == 8
    assert overlap(mask, truth) > 0.95


def test_areas_are_measured_in_um():
    rng = np.random.default_rng(0)
    truth = np.zeros((600, 600), bool)
    truth[200:400, 200:400] = truth[50:80, 50:80] = True
    rgb = stained(truth * 0.8, rng)
    near = tissue_mask(pyramid(rgb), um_per_px=4.0)[0]  # the speck is 0.0144 mm²
    far = tissue_mask(pyramid(rgb), um_per_px=10.0)[0]  # and 0.09 mm²
    assert not near[50:80, 50:80].any()
    assert far[55:75, 55:75].all()


@pytest.mark.parametrize("value", [255, 240, 0])
def test_an_image_without_tissue_has_an_empty_mask_and_the_log_says_so(value, caplog):
    sdata = sdata_of(np.full((200, 200, 3), float(value)))
    h2e.pp.detect_tissue(sdata)
    assert not find_mask(sdata, open_image(sdata, "he"))[0].any()
    assert "no tissue in image 'he'" in caplog.text


def test_noise_on_glass_is_not_tissue():
    rng = np.random.default_rng(0)
    assert not tissue_mask(pyramid(GLASS + rng.normal(0, 4, (400, 400, 3))))[0].any()


def test_an_image_full_of_tissue_is_all_tissue():
    rng = np.random.default_rng(0)
    assert tissue_mask(pyramid(stained(np.full((400, 400), 0.8), rng)))[0].mean() > 0.95


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"method must be one of \['otsu', 'mean'\], got 'median'"):
        tissue_mask(pyramid(scene()[0]), method="median")


def test_the_mask_lies_on_the_tissue_in_every_coordinate_system():
    rgb, truth, _ = scene()
    turned = Affine([[0, -2, 50], [2, 0, 30], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    sdata = sdata_of(rgb, a=Scale([3.0, 3.0], axes=("x", "y")), b=turned)
    h2e.pp.detect_tissue(sdata, image_key="he", scale=4)
    labels = sdata.labels["he_tissue"]
    assert labels.shape == (150, 150)
    assert labels.dtype == np.uint8
    y, x = np.nonzero(truth)
    middle = np.array([x.mean() + 0.5, y.mean() + 0.5, 1])
    for system, to in get_transformation(sdata["he"], get_all=True).items():
        expected = to.to_affine_matrix(("x", "y"), ("x", "y")) @ middle
        own = get_transformation(labels, system).to_affine_matrix(("x", "y"), ("x", "y"))
        row, column = np.nonzero(np.asarray(labels))
        found = own @ [column.mean() + 0.5, row.mean() + 0.5, 1]
        np.testing.assert_allclose(found, expected, atol=2)


def test_a_second_run_replaces_the_mask_and_a_foreign_one_is_kept(cohort):
    h2e.pp.detect_tissue(cohort)
    h2e.pp.detect_tissue(cohort, method="mean")
    assert cohort.attrs["h2e"]["tissue"]["toy_A1_image_tissue"]["method"] == "mean"
    foreign = Labels2DModel.parse(np.ones((416, 416), np.uint8), dims=("y", "x"))
    del cohort.labels["toy_A1_image_tissue"]
    cohort.labels["toy_A1_image_tissue"] = foreign
    with pytest.raises(ValueError, match="was changed or replaced since h2e wrote it"):
        h2e.pp.detect_tissue(cohort)
    assert cohort.labels["toy_A1_image_tissue"] is foreign
    h2e.pp.detect_tissue(cohort, overwrite=True)
    assert cohort.labels["toy_A1_image_tissue"] is not foreign


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")  # ome-zarr, by spatialdata
@pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")  # anndata
def test_a_mask_survives_the_disk(cohort, tmp_path):
    h2e.pp.detect_tissue(cohort)
    before = find_mask(cohort, open_image(cohort, "toy_B1_image"))
    cohort.write(tmp_path / "cohort.zarr")
    back = SpatialData.read(tmp_path / "cohort.zarr")
    after = find_mask(back, open_image(back, "toy_B1_image"))
    np.testing.assert_array_equal(after[0], before[0])
    assert after[1] == before[1]
    h2e.pp.detect_tissue(back, key_added="again", image_key="toy_B1_image")


def test_a_mask_of_someone_else_is_read_at_any_size():
    rgb, truth, _ = scene()
    sdata = sdata_of(rgb)
    assert find_mask(sdata, open_image(sdata, "he")) is None
    coarse = truth.reshape(150, 4, 150, 4).mean((1, 3)) > 0.5
    scale = {"global": Scale([4.0, 4.0], axes=("x", "y"))}
    sdata.labels["full"] = Labels2DModel.parse(truth.astype(int) * 7, dims=("y", "x"), scale_factors=[2, 2])
    sdata.labels["coarse"] = Labels2DModel.parse(coarse.astype(np.uint8), dims=("y", "x"), transformations=scale)
    sdata.labels["wrong"] = Labels2DModel.parse(coarse.astype(np.uint8), dims=("y", "x"))
    stretched = {"global": Scale([4.0, 2.0], axes=("x", "y"))}
    thin = truth.reshape(300, 2, 150, 4).mean((1, 3)) > 0.5
    sdata.labels["thin"] = Labels2DModel.parse(thin.astype(np.uint8), dims=("y", "x"), transformations=stretched)
    mask, size = find_mask(sdata, open_image(sdata, "he"), "full")
    np.testing.assert_array_equal(mask, truth)
    assert size == 1
    mask, size = find_mask(sdata, open_image(sdata, "he"), "coarse")
    np.testing.assert_array_equal(mask, coarse)
    assert size == pytest.approx(4)
    mask, size = find_mask(sdata, open_image(sdata, "he"), "thin")
    at = np.argwhere(truth)[::500][:, ::-1] + 0.5
    assert fraction_at(mask, size, at, 8.0).mean() > 0.97
    with pytest.raises(ValueError, match=r"mask 'wrong' \(150 × 150 px\) covers 6 % of image 'he' \(600 × 600 px\)"):
        find_mask(sdata, open_image(sdata, "he"), "wrong")
    with pytest.raises(KeyError, match="'nowhere' is neither in sdata.labels nor in sdata.shapes"):
        find_mask(sdata, open_image(sdata, "he"), "nowhere")


def test_polygons_are_a_mask_with_their_holes():
    sdata = sdata_of(scene()[0])
    ring = shapely.Point(300, 250).buffer(150, 64) - shapely.Point(300, 250).buffer(60, 64)
    both = shapely.MultiPolygon([ring, shapely.box(20, 500, 80, 580)])
    sdata.shapes["tissues"] = ShapesModel.parse(geopandas.GeoDataFrame(geometry=[both]))
    mask, size = find_mask(sdata, open_image(sdata, "he"), "tissues")
    assert size == 1
    y, x = np.indices((600, 600)) + 0.5
    assert abs(mask.sum() - both.area) < 0.01 * both.area
    assert overlap(mask, shapely.contains_xy(both, x, y)) > 0.985
    sdata.shapes["spots"] = ShapesModel.parse(np.array([[5.0, 5.0]]), geometry=0, radius=2)
    with pytest.raises(ValueError, match="must be labels or polygons, got a Point"):
        find_mask(sdata, open_image(sdata, "he"), "spots")


@pytest.mark.filterwarnings("ignore:.*is not a valid key:SyntaxWarning")  # docrep, when squidpy is imported
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_squidpy_writes_a_mask_that_is_read(cohort):
    import squidpy as sq

    sq.experimental.im.detect_tissue(cohort, "toy_A1_image")
    mask, scale = find_mask(cohort, open_image(cohort, "toy_A1_image"))
    own, own_scale = tissue_mask(open_image(cohort, "toy_A1_image"))
    assert mask.shape[0] * scale == own.shape[0] * own_scale == 416
    assert overlap(mask, np.kron(own, np.ones((int(own_scale / scale),) * 2, bool))) > 0.8


def test_the_plot_shows_outline_spots_and_shift(cohort):
    mpl.use("Agg")
    h2e.pp.realign_spots(cohort)
    (axis,) = h2e.pl.tissue(cohort, image_key="toy_A2_image")
    valid, invalid = (c for c in axis.collections if c.__class__.__name__ == "EllipseCollection")
    h2e.pp.tissue_fraction(cohort)
    obs = cohort["table"].obs.query("region == 'toy_A2'")
    assert len(valid.get_offsets()) == (obs["tissue_fraction"] > 0).sum()
    assert len(invalid.get_offsets()) == (obs["tissue_fraction"] == 0).sum()
    np.testing.assert_allclose(valid.get_widths(), 16.0)
    assert axis.get_ylim() == (416, 0)
    (arrow,) = axis.patches
    done = cohort["table"].uns["h2e"]["realign"]["toy_A2"]
    (from_x, from_y), (to_x, to_y) = arrow._posA_posB
    np.testing.assert_allclose((to_x - from_x, to_y - from_y), (done["shift_x_px"], done["shift_y_px"]))
    axis.figure.canvas.draw()
    box, tip = axis.texts[0].get_window_extent(), axis.transData.transform((to_x, to_y))
    assert (box.x1 < tip[0]) == (to_x < from_x)  # beyond the arrow, not on it
    several = h2e.pl.tissue(cohort)
    assert [ax.get_subplotspec().colspan.start for ax in several] == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="ax has 1 Axes, this plot draws on 4: images"):
        h2e.pl.tissue(cohort, ax=axis)
    mpl.pyplot.close("all")


def test_the_plot_shows_an_image_without_spots():
    mpl.use("Agg")
    (axis,) = h2e.pl.tissue(sdata_of(scene()[0]))
    assert axis.get_title() == "he"
    path = max((p for c in axis.collections for p in c.get_paths()), key=lambda p: len(p.vertices))
    np.testing.assert_allclose(path.vertices.mean(axis=0), (270, 300), atol=15)
    mpl.pyplot.close("all")
