"""The recipes of docs/interplay.md are run, and what they make is what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import geopandas as gpd
import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from skimage.io import imsave
from spatialdata import SpatialData, get_element_annotators, get_extent, join_spatialelement_table
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation

import h2e
import h2e.datasets
from h2e._sdata.keys import Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[1] / "docs" / "interplay.md").read_text(encoding="utf-8")
LEGACY = 'An AnnData with `uns["spatial"]`'
SECTIONS = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}

# Other tools warn of their own affairs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_models")]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def start(quick_models: None) -> dict[str, Any]:
    """What the first blocks of the page make, with a few targets: others write each as an array of its own."""
    names = {"__name__": "interplay"}
    for block in blocks(PAGE[: PAGE.index("\n## ")]):
        exec(compile(block.replace('"donor")', '"donor", n_targets=12)'), "interplay.md", "exec"), names)
    assert len(names["ensemble"].targets) == 12
    return names


@pytest.fixture
def run(start: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the blocks of a section after the first ones, in an empty folder, with names that a reader would have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *_, **__: None)
    done = set()

    def section(title: str, **given: Any) -> dict[str, Any]:
        names = dict(start) | {"adata": start["adata"].copy()} | given
        for number, block in enumerate(blocks(SECTIONS[title]), start=1):
            exec(compile(block, f"interplay.md, {title}, block {number}", "exec"), names)
        done.add(title)
        return names

    yield section
    assert done
    plt.close("all")


def new_slide(ensemble: h2e.Ensemble) -> SpatialData:
    """A slide that the ensemble was not trained on, predicted."""
    new = h2e.datasets.toy_cohort(n_slides=5, n_donors=5).filter_by_coordinate_system("toy_E1")
    h2e.tl.predict(new, ensemble, progress=False)
    assert new["table"].obsm["h2e"].notna().all(axis=1).mean() > 0.9
    return new


def test_every_recipe_of_the_page_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")
    recipes = [title for title in SECTIONS if blocks(SECTIONS[title])]
    assert [title for title in recipes if f'run("{title}"' not in source] == [LEGACY]
    assert "run(LEGACY" in source


def test_predictions_become_a_table_of_the_slides(start: dict[str, Any]):
    sdata, adata = start["sdata"], start["adata"]
    known = sdata["table"].obsm["h2e_loo"].dropna()
    np.testing.assert_array_equal(adata.X, known.to_numpy(np.float32))
    assert list(adata.var_names) == list(start["ensemble"].targets)
    for slide in find_slides(sdata):
        rows = (adata.obs["region"] == slide.name).to_numpy()
        names = sdata["table"].obs_names[slide.rows]
        of_slide = pd.DataFrame(slide.xy, index=names).loc[adata.obs_names[rows]]
        np.testing.assert_allclose(adata.obsm["spatial"][rows], of_slide)
        facts = adata.uns["spatial"][slide.name]
        height, width = facts["images"]["hires"].shape[:2]
        scale = facts["scalefactors"]["tissue_hires_scalef"]
        assert (height / scale, width / scale) == pytest.approx(slide.image.shape, rel=0.02)


def test_whole_slide_files(run: Any, tmp_path: Path):
    new = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, seed=1)
    pixels = new["toy_A1_image"]["scale0"]["image"].to_numpy()
    about = {"description": "Aperio Image Library |MPP = 6.25", "metadata": None, "tile": (128, 128)}
    tifffile.imwrite(tmp_path / "slide.svs", np.moveaxis(pixels, 0, -1), photometric="rgb", **about)
    slide = run("Whole-slide files")["slide"]
    assert slide["table"].obsm["h2e"].notna().all(axis=1).sum() > 20


def test_scanpy(run: Any):
    adata = run("scanpy")["adata"]
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2)
    assert adata.obs["domain"].nunique() == 4


def test_squidpy(run: Any):
    names = run("squidpy")
    adata = names["adata"]
    connected = adata.obsp["spatial_connectivities"].tocoo()
    region = adata.obs["region"].to_numpy()
    assert (region[connected.row] == region[connected.col]).all()
    assert adata.uns["moranI"]["I"].notna().all()
    assert adata.uns["moranI"]["I"].median() > 0.2  # the toy tissue is smooth
    assert np.diag(adata.uns["domain_nhood_enrichment"]["zscore"]).min() > 0  # domains hang together


def test_spatialdata_plot(run: Any):
    run("spatialdata-plot")
    axis = plt.gcf().axes[0]
    assert len(axis.images) == 1
    assert len(axis.collections) == 1


def test_napari_spatialdata(run: Any, start: dict[str, Any]):
    """The viewer shows what lies in a coordinate system, and offers the tables that annotate the element in view."""
    made = start["sdata"]
    sdata = SpatialData(images=dict(made.images), shapes=dict(made.shapes), tables=dict(made.tables))
    h2e.pp.detect_tissue(sdata, scale=2)  # pixels of a mask are as a rule larger than those of its image
    saved, table = run("napari-spatialdata", sdata=sdata)["saved"], sdata["table"]
    assert set(saved.tables) == {"table", "predictions"}
    for name, circles in start["sdata"].shapes.items():
        together = saved.filter_by_coordinate_system(name)
        assert set(together.images) == {f"{name}_image", f"{name}_image_normalized"}
        assert set(together.labels) == {f"{name}_image_tissue"}
        assert list(together.shapes) == [name]
        assert get_element_annotators(saved, name) == {"table", "predictions"}
        joined = {"sdata": saved, "spatial_element_names": name, "match_rows": "left", "how": "inner"}
        spots, predictions = join_spatialelement_table(**joined, table_name="predictions")
        known = table.obsm["h2e_loo"][table.obs["region"] == name].dropna()
        pd.testing.assert_frame_equal(predictions.to_df().loc[known.index], known, check_names=False)
        places = pd.Series(spots[name].geometry.to_numpy(), index=predictions.obs_names)
        expected = circles.geometry.loc[table.obs.loc[known.index, "instance_id"]]
        assert (places.loc[known.index].to_numpy() == expected.to_numpy()).all()
        everything = {"images": [f"{name}_image"], "labels": [f"{name}_image_tissue"], "shapes": [name]}
        extents = [get_extent(saved[key], name) for keys in everything.values() for key in keys]
        image, tissue, around = ((*extent["x"], *extent["y"]) for extent in extents)
        assert tissue == pytest.approx(image, abs=2)
        assert image[0] < around[0] < around[1] < image[1]
        assert image[2] < around[2] < around[3] < image[3]


def test_anndata_files(run: Any, start: dict[str, Any]):
    names = run("AnnData files")
    table = start["sdata"]["table"]
    for back in (ad.read_h5ad("table.h5ad"), ad.read_zarr("table.zarr")):
        for key in ("h2e", "h2e_loo", "h2e_std"):
            pd.testing.assert_frame_equal(back.obsm[key], table.obsm[key])
        assert back.uns["h2e"]["unit"] == table.uns["h2e"]["unit"]
        pd.testing.assert_frame_equal(h2e.get.predictions(back, key="h2e_loo").to_df(), start["adata"].to_df())
    axes = plt.gcf().axes
    assert len(axes[0].images) == 1
    assert "held-out donor, r = " in axes[0].get_title()
    assert names["table"].n_obs == table.n_obs


def test_qupath(run: Any, start: dict[str, Any]):
    run("QuPath")
    sdata, table = start["sdata"], start["sdata"]["table"]
    read = gpd.read_file("toy_B1.geojson")
    (slide,) = [one for one in find_slides(sdata) if one.name == "toy_B1"]
    centres = np.column_stack([read.geometry.centroid.x, read.geometry.centroid.y])
    np.testing.assert_allclose(centres, slide.xy, atol=0.02)
    np.testing.assert_allclose(read.geometry.area, np.pi * slide.radius_px**2, rtol=0.01)
    features = json.loads(Path("toy_B1.geojson").read_text())["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}
    assert {feature["properties"]["classification"]["name"] for feature in features} == {"B"}
    assert [feature["properties"]["name"] for feature in features] == table.obs_names[slide.rows].tolist()
    frame = pd.DataFrame(
        [feature["properties"]["measurements"] for feature in features], index=table.obs_names[slide.rows]
    )
    expected = table.obsm["h2e_loo"].iloc[slide.rows]
    assert expected.isna().any(
        axis=None
    )  # spots beside the tissue: no measurements, and no NaN, which JSON does not have
    pd.testing.assert_frame_equal(frame[list(expected)], expected, check_dtype=False, rtol=1e-4)


def test_features_of_another_tool(run: Any, start: dict[str, Any]):
    sdata, wsis, side = start["sdata"], {}, 224 * 0.5 / 6.25
    for slide in find_slides(sdata):
        height, width = slide.image.shape
        corners = np.mgrid[:width:16, :height:16].reshape(2, -1).T.astype(np.int64)
        corners = np.random.default_rng(0).permutation(corners)
        middles = (corners + side / 2).astype(np.float32)
        tiles = gpd.GeoDataFrame(geometry=shapely.box(*corners.T, *(corners.T + side)))
        wsis[slide.name] = {"tiles": tiles, "uni2_tiles": ad.AnnData(middles)}
        with h5py.File(f"{slide.name}.h5", "w") as file:
            file["features"], file["coords"] = middles, corners
            file["coords"].attrs.update(patch_size=256, patch_size_level0=side)
    names = run("Features of LazySlide and TRIDENT", wsis=wsis, size=6.25)
    obsm = sdata["table"].obsm
    np.testing.assert_allclose(obsm["X_uni2"], obsm["X_uni"], rtol=1e-6)
    for slide in find_slides(sdata):
        np.testing.assert_allclose(obsm["X_uni"][slide.rows], slide.xy, atol=8)
    diverse = names["diverse"]
    assert [learner.name for learner in diverse.learners] == ["texture", "embedding"]
    h2e.tl.predict(sdata, diverse, key_added="diverse", progress=False)
    with pytest.raises(KeyError, match="'X_uni2' is not in table.obsm"):
        h2e.tl.predict(h2e.datasets.toy_cohort(seed=1), diverse, progress=False)


def test_an_image_and_a_csv_of_positions(run: Any, start: dict[str, Any]):
    new = new_slide(start["ensemble"])
    (slide,) = find_slides(new)
    table = new["table"]
    imsave("image.tif", new.images["toy_E1_image"]["scale0"]["image"].to_numpy().transpose(1, 2, 0))
    barcodes = pd.Index([f"AAAC-{i}" for i in range(len(slide))], name="barcode")
    positions = pd.DataFrame(slide.xy, columns=["x", "y"], index=barcodes)
    positions[::-1].to_csv("positions.csv")  # in an order of their own
    ad.AnnData(table.X, obs=pd.DataFrame(index=barcodes), var=table.var).write_h5ad("counts.h5ad")
    made = run("An image and a CSV of positions", size=slide.um_per_px)["slide"]
    found = made["table"].obsm["h2e"].loc[barcodes].set_axis(table.obs_names)
    # Tissue and stains are measured on another pyramid.
    np.testing.assert_allclose(found, table.obsm["h2e"], atol=0.1)
    assert found.corrwith(table.obsm["h2e"]).min() > 0.999
    without = SpatialData(images=dict(made.images), shapes=dict(made.shapes))
    h2e.tl.predict(without, start["ensemble"], um_per_px=slide.um_per_px, progress=False)
    np.testing.assert_allclose(without["table"].obsm["h2e"], made["table"].obsm["h2e"], atol=1e-5)


@pytest.mark.parametrize("floats", [True, False])
def test_an_anndata_with_images(run: Any, start: dict[str, Any], floats: bool):
    new = new_slide(start["ensemble"])
    whole = h2e.get.predictions(new, drop_missing=False)
    table = new["table"]
    legacy = ad.AnnData(table.X, obs=table.obs[["array_row", "array_col"]], var=table.var)
    legacy.obsm["spatial"], legacy.uns["spatial"] = whole.obsm["spatial"], whole.uns["spatial"]
    facts = legacy.uns["spatial"]["toy_E1"]
    pixels = facts["images"]["hires"]
    facts["images"] = {"hires": pixels / np.float32(255) if floats else pixels, "lowres": pixels[::4, ::4]}
    other = legacy.copy()
    other.uns["spatial"] = {"toy_E2": facts}
    both = ad.concat({"toy_E1": legacy, "toy_E2": other}, label="library_id", index_unique="-", uns_merge="unique")
    names = run(LEGACY, legacy=legacy, both=both)
    slide, cohort = names["slide"], names["cohort"]
    flat = SpatialData(
        images={"toy_E1_image": new.images["toy_E1_image"]["scale0"]["image"]},
        shapes=dict(new.shapes),
        tables={"table": table.copy()},
    )
    h2e.tl.predict(flat, start["ensemble"], progress=False)
    # Joined slides have their names before those of their spots.
    found = slide["table"].obsm["h2e"].set_axis(table.obs_names)
    np.testing.assert_allclose(found, flat["table"].obsm["h2e"], atol=1e-5)
    # Tissue and stains are measured on a coarse level where there is one, which moves all values of a target alike.
    shift = np.abs(found - table.obsm["h2e"]).median() / table.obsm["h2e"].std()
    assert shift.median() < 0.1
    assert shift.max() < 0.25
    assert found.corrwith(table.obsm["h2e"]).min() > 0.999
    assert plt.gcf().axes[0].get_title().startswith(f"{start['ensemble'].targets[0]}\npredicted, r = ")
    regions = cohort["table"].obs["region"].to_numpy()
    assert sorted(set(regions)) == ["toy_E1", "toy_E2"]
    for region in set(regions):
        of_slide = cohort["table"].obsm["h2e"][regions == region]
        np.testing.assert_allclose(of_slide, found, atol=0.02)


def test_visium_hd(run: Any, start: dict[str, Any]):
    new = new_slide(start["ensemble"])
    (slide,) = find_slides(new)
    side = 3 * slide.spacing_px / 4
    name = f"toy_E1_square_{round(side * slide.um_per_px):03}um"
    squares = [shapely.box(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for x, y in slide.xy]
    transformations = get_transformation(new.shapes["toy_E1"], get_all=True)
    table = new["table"]
    bins = ad.AnnData(table.X, var=table.var, obs=pd.DataFrame(index=table.obs_names))
    bins.obs["region"] = pd.Categorical([name] * len(bins))
    bins.obs["location_id"] = np.arange(len(bins))
    bins = TableModel.parse(bins, region=name, region_key="region", instance_key="location_id")
    frame = gpd.GeoDataFrame(geometry=squares, index=pd.Index(np.arange(len(bins)), name="location_id"))
    hd = SpatialData(
        images=dict(new.images),
        shapes={name: ShapesModel.parse(frame, transformations=transformations)},
        tables={"square_016um": bins},
    )
    run("Visium HD", hd=hd)
    np.testing.assert_allclose(hd["square_016um"].obsm["h2e"], table.obsm["h2e"], atol=1e-5)
    dots = plt.gcf().axes[0].collections[1]
    np.testing.assert_allclose(dots.get_widths(), side)
    assert len(dots.get_paths()[0].vertices) == 5


def test_bins_are_prepared_learned_from_and_exported(cohort: SpatialData):
    for key in ("toy_A1", "toy_A2", "toy_B1", "toy_C1"):
        circles = cohort.shapes[key]
        squares = gpd.GeoDataFrame({"geometry": circles.buffer(12, cap_style="square")}, index=circles.index)
        cohort.shapes[key] = ShapesModel.parse(squares, transformations=get_transformation(circles, get_all=True))
    del cohort["table"].obs["um_per_px"]
    sizes = {"toy_A1": 6.25, "toy_A2_image": 6.25, "toy_B1": 6.25, "toy_C1_image": 6.25}  # of slides, or of images
    h2e.pp.normalize(cohort, um_per_px=sizes)
    assert h2e.get.report(cohort)["um_per_px"].tolist() == [6.25] * 4
    options = {"um_per_px": sizes, "progress": False}
    ensemble = h2e.tl.fit(cohort, targets=["TOY01"], learners="texture", group_key="donor", **options)
    h2e.tl.predict(cohort, ensemble, **options)
    made = h2e.get.predictions(cohort, key="h2e_loo")
    assert "microns_per_pixel" not in made.uns["spatial"]["toy_A1"]["scalefactors"]
    outline = json.loads(h2e.get.geojson(cohort, "toy_B1", key="h2e_loo"))["features"][0]["geometry"]["coordinates"][0]
    assert len(outline) == 5
    assert len(h2e.pl.tiles(cohort, n=1)) == 4
    ax = h2e.pl.spatial_pred(cohort, "TOY01", slides="toy_B1", measured=False)
    assert not ax.patches  # no scale bar: nothing tells the size of a pixel
    with pytest.raises(KeyError, match=r"um_per_px names \['toy_Z9'\], which are neither slides nor images"):
        h2e.pp.normalize(cohort, um_per_px=sizes | {"toy_Z9": 1.0})


def test_several_slides_are_joined(run: Any):
    toy = h2e.datasets.toy_cohort()
    first, second = (toy.filter_by_coordinate_system(name) for name in ("toy_B1", "toy_C1"))
    for each in (first, second):
        each["table"].obs_names = [f"AAACAAGT-{i}" for i in range(each["table"].n_obs)]
        each["table"].obs.drop(columns="donor", inplace=True)
    second["table"] = second["table"][:, ::-1][:, 5:].copy()
    names = run("Several slides, read one by one", first=first, second=second, donors={"S1": "B", "S2": "C"})
    cohort = names["cohort"]
    assert [list(one.coordinate_systems) for one in (first, second)] == [["toy_B1"], ["toy_C1"]]
    assert cohort["table"].n_vars == 55
    assert cohort["table"].obs_names.is_unique
    assert cohort["table"].obs.groupby("region", observed=True)["donor"].unique().map(list).to_dict() == {
        "S1": ["B"],
        "S2": ["C"],
    }
    for name, one in (("S1", first), ("S2", second)):
        rows = (cohort["table"].obs["region"] == name).to_numpy()
        expected = one["table"].to_df()[cohort["table"].var_names]
        np.testing.assert_array_equal(cohort["table"][rows].X.toarray(), expected)
    ensemble = h2e.tl.fit(cohort, learners="texture", n_targets=4, group_key="donor", progress=False)
    assert set(ensemble.loo.index.get_level_values("region")) == {"S1", "S2"}
    assert ensemble.loo.notna().all(axis=None)


def test_shapes_of_several_parts_and_with_holes_are_exported_whole(cohort: SpatialData):
    table, circles = cohort["table"], cohort.shapes["toy_B1"]
    table.obsm["h2e"] = pd.DataFrame(1.0, index=table.obs_names, columns=["TOY01"])
    ring = circles.buffer(12).difference(circles.buffer(5))
    both = ring.union(ring.translate(40))
    squares = gpd.GeoDataFrame({"geometry": both}, index=circles.index)
    cohort.shapes["toy_B1"] = ShapesModel.parse(squares, transformations=get_transformation(circles, get_all=True))
    (read,) = json.loads(h2e.get.geojson(cohort, "toy_B1"))["features"][:1]
    shape = shapely.geometry.shape(read["geometry"])
    assert len(shape.geoms) == 2
    assert shape.is_valid
    assert shape.area == pytest.approx(both.iloc[0].area, rel=1e-3)


def test_no_prediction_to_give_is_said(cohort: SpatialData):
    table = cohort["table"]
    table.obsm["h2e"] = pd.DataFrame(np.nan, index=table.obs_names, columns=["TOY01"])
    table.obsm["h2e_loo"] = table.obsm["h2e"].fillna(1.0)
    with pytest.raises(
        ValueError, match="no spot has a prediction under 'h2e': these are training slides, key='h2e_loo'"
    ):
        h2e.get.predictions(cohort)
    assert h2e.get.predictions(cohort, key="h2e_loo").n_obs == table.n_obs
