"""The size of a pixel: every source gives the same slide, what contradicts is refused, and what tells nothing is silent."""

from __future__ import annotations

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.affinity import translate
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, set_transformation

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_images, open_slides
from h2e._slide.lattice import hexagonal_grid, is_visium

UM = 6.25


def only_slide(sdata: SpatialData, **keys):
    """Open the only slide of a SpatialData."""
    (slide,) = open_slides(sdata, Keys(**keys))
    return slide


def take_rows(sdata: SpatialData, keep: np.ndarray) -> None:
    """Keep some rows of the table."""
    table = sdata["table"][keep].copy()
    del sdata.tables["table"]
    sdata["table"] = table


def place_shapes(sdata: SpatialData, shapes: gpd.GeoDataFrame, key: str = "s") -> None:
    """Put other shapes, in pixels of the image, in the place of those that the table annotates."""
    (old,) = sdata.shapes
    del sdata.shapes[old]
    shapes.attrs = {}
    sdata.shapes[key] = ShapesModel.parse(shapes, transformations={"A": Identity()})
    obs = sdata["table"].obs
    obs["region"] = pd.Categorical([key] * len(obs))
    table = sdata.tables.pop("table")
    table.uns["spatialdata_attrs"]["region"] = [key]
    sdata["table"] = table


@pytest.fixture(scope="module")
def visium_source(cohort_source) -> SpatialData:
    """Spots every 100 µm as those of Visium lie, of which nothing but the lattice tells the size of a pixel."""
    pixels = cohort_source["toy_A1_image"]["scale0"]["image"].data
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"A": Identity()})
    sdata = SpatialData(images={"he": image})
    h2e.pp.make_spots(sdata, spacing_um=100, um_per_px=UM, image_key="he", key_added="s")
    del sdata["table"].obs["um_per_px"], sdata["s"]["spacing_um"], sdata["table"].uns["h2e"]
    return sdata


@pytest.fixture
def visium(visium_source) -> SpatialData:
    """Copy them for one test; the pixels stay shared."""
    shapes, table, image = (visium_source[key].copy() for key in ("s", "table", "he"))
    for element in (shapes, image):
        element.attrs["transform"] = dict(element.attrs["transform"])
    return SpatialData(images={"he": image}, shapes={"s": shapes}, tables={"table": table})


def squares(n: int = 20, side: float = 16.0) -> gpd.GeoDataFrame:
    """Bins of some pixels, which touch."""
    x, y = (a.ravel() * side + 40 for a in np.meshgrid(np.arange(n), np.arange(n)))
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y).buffer(side / 2, cap_style="square"))


def circles(xy: np.ndarray, radius: float) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"radius": radius}, geometry=gpd.points_from_xy(*xy.T), index=np.arange(len(xy)))


def with_bins(sdata: SpatialData, shapes: gpd.GeoDataFrame, key: str) -> None:
    """Bins or spots in place of the spots, as many as there are rows."""
    take_rows(sdata, np.arange(min(len(shapes), sdata["table"].n_obs)))
    sdata["table"].obs["instance_id"] = np.arange(sdata["table"].n_obs)
    place_shapes(sdata, shapes, key)
    for column in ("array_row", "array_col"):
        del sdata["table"].obs[column]


def by_argument(sdata: SpatialData) -> dict:
    return {"um_per_px": {"he": UM}}


def by_obs(sdata: SpatialData) -> None:
    sdata["table"].obs["um_per_px"] = UM


def by_affine(sdata: SpatialData, size: float = UM) -> None:
    set_transformation(sdata["he"], Affine([[0, -size, 0], [size, 0, 9], [0, 0, 1]], ("x", "y"), ("x", "y")), "microns")


def by_own_grid(sdata: SpatialData) -> None:
    sdata["s"]["spacing_um"] = 100.0


def by_scalefactors(sdata: SpatialData, size: float = UM) -> None:
    sdata["table"].uns["spatial"] = {"any": {"scalefactors": {"microns_per_pixel": size}}}


def by_lattice(sdata: SpatialData) -> None:
    pass


SOURCES = {
    "um_per_px=": by_argument,
    "table.obs": by_obs,
    "affine to µm: 'microns'": by_affine,
    "grid of h2e": by_own_grid,
    "scalefactors: microns_per_pixel": by_scalefactors,
    "guessed from the lattice: Visium": by_lattice,
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_size_and_is_on_record(visium, source: str):
    keys = SOURCES[source](visium) or {}
    slide = only_slide(visium, **keys)
    assert slide.um_per_px == pytest.approx(UM, rel=1e-3)
    assert slide.um_per_px_from == source
    assert slide.spacing_um == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("source", [name for name in SOURCES if "lattice" not in name])
def test_a_source_that_the_lattice_contradicts_is_refused_with_both(visium, source: str):
    keys = SOURCES[source](visium) or {}
    if source == "um_per_px=":
        keys = {"um_per_px": UM / 2}
    elif source == "table.obs":
        visium["table"].obs["um_per_px"] = UM / 2
    elif source == "grid of h2e":
        # Spots of a grid that was laid closer: no lattice is asked for, but the scan's own size contradicts it.
        visium["s"]["spacing_um"] = 50.0
        by_scalefactors(visium)
    elif source.startswith("affine"):
        by_affine(visium, UM / 2)
    else:
        by_scalefactors(visium, UM / 2)
    with pytest.raises(ValueError, match=r"must be one, got 3\.12\d µm \(.*\) and 6\.2\d+ µm .* for image 'he'"):
        only_slide(visium, **keys)


def test_sources_within_five_percent_agree(visium):
    visium["table"].obs["um_per_px"] = 1.04 * UM
    assert only_slide(visium).um_per_px == pytest.approx(1.04 * UM)
    with pytest.raises(ValueError, match="must be one"):
        only_slide(visium, um_per_px=0.95 * UM)


def test_obs_is_about_pixels_of_the_image_that_is_used_whatever_the_unit_of_the_spots(visium):
    visium["table"].obs["um_per_px"] = UM
    expected = only_slide(visium)
    for_shapes = visium["s"].copy()
    for_shapes["geometry"], for_shapes["radius"] = for_shapes.scale(10, 10, origin=(0, 0)), 10 * for_shapes["radius"]
    del visium.shapes["s"]
    for_shapes.attrs = {}
    visium.shapes["s"] = ShapesModel.parse(for_shapes, transformations={"A": Scale([0.1, 0.1], ("x", "y"))})
    slide = only_slide(visium)
    np.testing.assert_allclose(slide.xy, expected.xy)
    assert (slide.um_per_px, slide.spacing_um) == (UM, pytest.approx(expected.spacing_um))


def test_the_size_in_obs_is_one_number_a_slide(visium):
    visium["table"].obs["um_per_px"] = np.linspace(UM, 2 * UM, visium["table"].n_obs)
    with pytest.raises(ValueError, match=r"table.obs\['um_per_px'\] of slide 's' must be one number, got 6.25 to 12.5"):
        only_slide(visium)


@pytest.mark.parametrize(
    ("radius_frac", "told"), [(0.275, True), (0.326, True), (0.2, False), (0.45, False), (0.5, False)]
)
def test_only_spots_of_the_size_that_visium_has_tell_the_size_of_a_pixel(visium, radius_frac: float, told: bool):
    visium["s"]["radius"] = 16 * radius_frac
    assert (only_slide(visium).um_per_px is not None) == told


@pytest.mark.parametrize("radius_frac", [0.25, 0.275, 0.3, 0.35, 0.5])
@pytest.mark.parametrize("array", [False, True])
def test_a_square_lattice_tells_nothing(visium, radius_frac: float, array: bool):
    x, y = (a.ravel() for a in np.meshgrid(np.arange(10), np.arange(10)))
    with_bins(visium, circles(np.column_stack([x, y]) * 16.0 + 40, 16 * radius_frac), "spots")
    if array:
        visium["table"].obs["array_row"], visium["table"].obs["array_col"] = y, x
    slide = only_slide(visium)
    assert slide.um_per_px is None
    with pytest.raises(ValueError, match="the size of a pixel of slide 'spots' is not known: nothing tells it"):
        slide.require_size()
    with pytest.raises(ValueError, match=r"Pass um_per_px, in µm per pixel of image 'he'"):
        h2e.pp.normalize(visium)


@pytest.mark.parametrize("seed", [0, 1])
def test_cells_at_irregular_places_are_no_lattice(seed: int):
    rng = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    for point in rng.uniform(0, 60, (1500, 2)):
        if not kept or np.linalg.norm(np.array(kept) - point, axis=1).min() > 4:
            kept.append(point)
    # Not even those of a hexagonal lattice that were shaken well.
    shaken = hexagonal_grid((60, 60), 4.5)[0]
    shaken = shaken + rng.normal(0, 1.0, shaken.shape)
    for radius in (0.45, 0.9, 1.2, 1.35, 1.5, 1.8):
        assert not is_visium(np.array(kept), None, radius)
        assert not is_visium(shaken, None, radius)


def test_one_spot_tells_nothing_and_is_no_error():
    assert not is_visium(np.array([[5.0, 5.0]]), np.array([[1.0, 1.0]]), 2.75)
    assert not is_visium(hexagonal_grid((60, 60), 10.0)[0][:1], np.array([[np.nan, np.nan]]), 2.75)


@pytest.mark.parametrize("kind", ["squares", "circles"])
def test_bins_tell_the_size_by_their_name_alone(visium, kind: str):
    shapes = squares()
    if kind == "circles":
        shapes = circles(np.column_stack([shapes.centroid.x, shapes.centroid.y]), 8.0)
    with_bins(visium, shapes, "hd_square_016um")
    assert only_slide(visium).um_per_px == pytest.approx(1.0, rel=1e-3)
    assert only_slide(visium).um_per_px_from == "bins of 16 µm by name"
    with pytest.raises(ValueError, match=r"got 0.25 µm \(um_per_px=\) and 1 µm \(bins of 16 µm by name\)"):
        only_slide(visium, um_per_px=0.25)
    place_shapes(visium, shapes, "bins")
    assert only_slide(visium).um_per_px is None


def test_bins_are_known_by_the_scale_factors_of_their_reader(visium):
    with_bins(visium, squares(), "bins")
    factors = {"spot_diameter_fullres": 16.0, "bin_size_um": 8.0, "microns_per_pixel": 0.5}
    visium["table"].uns["spatial"] = {"bins": {"scalefactors": factors}}
    assert only_slide(visium).um_per_px == pytest.approx(0.5)
    factors["bin_size_um"] = 16.0
    with pytest.raises(
        ValueError, match=r"0.5 µm \(scalefactors: microns_per_pixel\) and 1 µm \(scalefactors: bin_size"
    ):
        only_slide(visium)
    # These bins are not in pixels of the full-resolution image, so what is said of its pixels is not about them.
    factors["spot_diameter_fullres"] = 64.0
    assert only_slide(visium).um_per_px is None


def test_a_subset_of_the_spots_has_the_same_scale(visium):
    whole = only_slide(visium).um_per_px
    take_rows(visium, np.arange(visium["table"].n_obs) % 3 == 0)
    assert only_slide(visium).um_per_px == whole


@pytest.mark.parametrize("share", [0.3, 0.15])
def test_scattered_spots_whose_shapes_are_scattered_too_have_the_scale_of_their_array(visium, share: float):
    take_rows(visium, np.random.default_rng(1).random(visium["table"].n_obs) < share)
    kept = visium["s"].loc[visium["table"].obs["instance_id"]]
    del visium.shapes["s"]
    visium.shapes["s"] = kept
    slide = only_slide(visium)
    assert (slide.spacing_px, slide.um_per_px) == (pytest.approx(16), pytest.approx(UM))


def test_the_scale_of_jittered_spots_does_not_depend_on_the_spots_that_are_passed(visium):
    shapes, rng = visium["s"], np.random.default_rng(0)
    shapes["geometry"] = shapes.translate().apply(lambda p: translate(p, *rng.normal(0, 0.4, 2)))
    whole = only_slide(visium).um_per_px
    assert whole == pytest.approx(UM, rel=0.02)
    take_rows(visium, np.sort(rng.choice(visium["table"].n_obs, 60, replace=False)))
    assert only_slide(visium).um_per_px == whole


def test_a_grid_of_h2e_knows_its_spacing_after_counting_into_it_and_renaming(cohort_source):
    sdata = SpatialData(images={"he": cohort_source["toy_A1_image"]})
    h2e.pp.make_spots(sdata, spacing_um=150, um_per_px=UM)
    shapes = sdata["he_spots"]
    obs = pd.DataFrame({"region": pd.Categorical(["pseudobulk"] * len(shapes)), "instance_id": np.arange(len(shapes))})
    obs.index = obs.index.astype(str)
    counts = ad.AnnData(np.ones((len(shapes), 2), np.float32), obs=obs)
    table = TableModel.parse(counts, region="pseudobulk", region_key="region", instance_key="instance_id")
    counted = SpatialData(images={"he": sdata["he"]}, shapes={"pseudobulk": shapes}, tables={"table": table})
    slide = only_slide(counted)
    assert (slide.um_per_px_from, slide.um_per_px) == ("grid of h2e", pytest.approx(UM))
    assert slide.spacing_um == pytest.approx(150, rel=1e-3)


def thumbnail_of_a_scan(times: float) -> SpatialData:
    pixels = np.full((3, 60, 80), 200, np.uint8)
    placed = {"global": Scale([times, times], ("x", "y"))}
    return SpatialData(images={"t": Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=placed)})


def test_the_size_of_the_scan_is_refused_for_a_thumbnail(cohort_source):
    scan = thumbnail_of_a_scan(64)
    with pytest.raises(ValueError, match=r"um_per_px=0.25 would make image 't' 0.02 mm wide.* pass 16 if 0.25 is that"):
        open_images(scan, Keys(um_per_px=0.25))
    assert open_images(scan, Keys(um_per_px=16))["t"].um_per_px == 16
    # A crop, not a copy: small, but not scaled. One that lies in µm is scaled by the size of its pixels.
    assert open_images(thumbnail_of_a_scan(1), Keys(um_per_px=0.25))["t"].um_per_px == 0.25
    assert open_images(thumbnail_of_a_scan(4), Keys(um_per_px=4.0))["t"].um_per_px == 4.0


def test_an_image_in_microns_needs_no_spots_to_tell_its_size():
    sdata = thumbnail_of_a_scan(8)
    set_transformation(sdata["t"], Scale([12, 12], ("x", "y")), "slide_um")
    assert open_images(sdata, Keys())["t"].um_per_px == pytest.approx(12)
    with pytest.raises(ValueError, match=r"got 6 µm \(um_per_px=\) and 12 µm \(affine to µm: 'slide_um'\)"):
        open_images(sdata, Keys(um_per_px=6.0))


def test_a_given_size_is_checked(visium):
    with pytest.raises(ValueError, match="must be a positive number"):
        only_slide(visium, um_per_px=-1.0)


@pytest.mark.parametrize("write", ["text", "category", "half"])
def test_a_size_that_was_read_as_text_is_a_number_all_the_same(visium, write: str):
    sizes = visium["table"].obs.index.to_series().map(lambda _: "6.25" if write != "half" else np.float16(6.25))
    visium["table"].obs["um_per_px"] = sizes.astype("category") if write == "category" else sizes
    assert only_slide(visium).um_per_px == UM


@pytest.mark.parametrize("value", ["6,25 um", True, np.inf, -1.0])
def test_a_size_that_is_no_positive_number_is_refused_wherever_it_stands(visium, value: object):
    table = visium["table"]
    with pytest.raises(ValueError, match="um_per_px of each image must be a positive number of µm, got"):
        only_slide(visium, um_per_px=value)
    table.uns["spatial"] = {"s": {"scalefactors": {"microns_per_pixel": value}}}
    with pytest.raises(ValueError, match="microns_per_pixel must be a positive number of µm, got"):
        only_slide(visium)
    table.obs["um_per_px"] = value
    with pytest.raises(ValueError, match=r"table.obs\['um_per_px'\] of slide 's' must be a positive number of µm, got"):
        only_slide(visium)


def test_pixels_that_are_no_squares_are_refused_with_both_sides(visium):
    squeezed = Affine(np.diag([UM, 1.1 * UM, 1.0]), input_axes=("x", "y"), output_axes=("x", "y"))
    for element in (visium["he"], visium["s"]):
        set_transformation(element, squeezed, "A_um")
    with pytest.raises(
        ValueError, match=r"pixels of image 'he' must be squares, got 6.25 × 6.875 µm by its affine to 'A_um'"
    ):
        only_slide(visium)
