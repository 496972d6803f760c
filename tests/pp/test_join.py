"""Slides that were read one by one become one cohort, and nothing that is known of them is lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from spatialdata.models import TableModel
from spatialdata.transformations import Identity, get_transformation, set_transformation

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_slides

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

REGIONS = ["toy_A1", "toy_A2", "toy_B1", "toy_C1"]


def part(sdata: SpatialData, region: str, *, system: str | None = None) -> SpatialData:
    """One slide of a cohort as if it had been read alone; also with all of it in a system of another name."""
    one = sdata.filter_by_coordinate_system(region)
    table = one["table"].copy()
    del one.tables["table"]
    one.tables["table"] = table
    if system is not None:
        for key in (f"{region}_image", region):
            set_transformation(one[key], {system: Identity()}, set_all=True)
    return one


@pytest.fixture
def parts(few: SpatialData) -> dict[str, SpatialData]:
    return {region: part(few, region) for region in REGIONS}


def legacy(sdata: SpatialData, region: str, zoom: float = 4, **images: Any) -> ad.AnnData:
    """A slide as scanpy has it; its image is one ``zoom``-th of the scan that positions are in pixels of."""
    table = sdata["table"][sdata["table"].obs["region"] == region].copy()
    del table.uns["spatialdata_attrs"]
    shapes = sdata[region].loc[table.obs["instance_id"]]
    table.obsm["spatial"] = np.column_stack([shapes.geometry.x, shapes.geometry.y]) * zoom
    table.obs = table.obs[["donor"]]
    table.obs_names = [f"AAAC{i}" for i in range(table.n_obs)]
    images = images or {"hires": pixels_of(sdata, region)}
    scales = {f"tissue_{key}_scalef": len(one) / len(pixels_of(sdata, region)) / zoom for key, one in images.items()}
    factors = {"spot_diameter_fullres": 16 * zoom, "microns_per_pixel": 6.25 / zoom, **scales}
    table.uns["spatial"] = {"library": {"images": images, "scalefactors": factors}}
    return table


def pixels_of(sdata: SpatialData, region: str) -> np.ndarray:
    return sdata[f"{region}_image"]["scale0"]["image"].data.compute().transpose(1, 2, 0)


def places(sdata: SpatialData) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Of each slide the image it lies on, the pixels of that at its coarsest level, and where its spots are."""
    return {s.name: (s.image.key, s.image.levels[-1].compute(), s.xy) for s in open_slides(sdata, Keys())}


def test_a_cohort_that_was_taken_apart_is_joined_to_the_same_cohort(few, parts):
    joined = h2e.pp.join_slides(parts)
    assert sorted(key for _, key, _ in joined.gen_elements()) == sorted(key for _, key, _ in few.gen_elements())
    assert sorted(joined.coordinate_systems) == REGIONS
    table, before = joined["table"], few["table"]
    assert (table.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(table.obs, before.obs)
    pd.testing.assert_frame_equal(table.var, before.var)
    pd.testing.assert_frame_equal(table.obsm["proportions"], before.obsm["proportions"])
    fit = {"learners": "texture", "n_targets": 3, "group_key": "donor", "progress": False}
    one, other = h2e.tl.fit(few, **fit), h2e.tl.fit(joined, **fit)
    assert one.targets == other.targets
    pd.testing.assert_frame_equal(one.loo, other.loo)


def test_slides_in_one_system_lie_each_on_its_own_image_under_its_own_name(few):
    before = places(few)
    apart = {f"s{i}": part(few, region, system="global") for i, region in enumerate(REGIONS)}
    after = places(joined := h2e.pp.join_slides(apart))
    for i, region in enumerate(REGIONS):
        name, pixels, xy = after[f"s{i}"]
        assert name == f"s{i}_image"
        np.testing.assert_array_equal(pixels, before[region][1])
        np.testing.assert_array_equal(xy, before[region][2])
    table = joined["table"]
    assert table.obs_names.is_unique
    assert table.obs_names.str.startswith("s").all()
    assert table.obsm["proportions"].index.equals(table.obs_names)
    np.testing.assert_array_equal(table.obsm["proportions"], few["table"].obsm["proportions"])


def test_what_is_joined_is_not_changed_and_pixels_stay_lazy(few):
    one = part(few, "toy_A1")
    h2e.pp.normalize(one)
    before = (
        one["table"].copy(),
        one.attrs,
        {key: get_transformation(e, get_all=True) for _, key, e in one.gen_spatial_elements()},
    )
    joined = h2e.pp.join_slides({"x": one})
    h2e.pp.normalize(joined, overwrite=True)
    joined["table"].obs["donor"] = "other"
    assert one["table"].obs.equals(before[0].obs)
    assert one["table"].obs_names.equals(before[0].obs_names)
    assert set(one.attrs["h2e"]["stains"]) == {"toy_A1_image_normalized"}
    assert one.attrs is before[1]
    for _, key, element in one.gen_spatial_elements():
        assert get_transformation(element, get_all=True) == before[2][key]
    source, image = one["toy_A1_image"]["scale0"]["image"], joined["x_image"]["scale0"]["image"]
    assert image.data is source.data
    assert isinstance(image.data, da.Array)


def test_what_a_cohort_was_prepared_with_follows_its_slides(few, tmp_path: Path):
    h2e.pp.normalize(few, realign=True)
    h2e.pp.select_targets(few["table"], n_targets=3)
    names = dict(zip(REGIONS, "abcd", strict=True))
    joined = h2e.pp.join_slides({names[region]: part(few, region) for region in REGIONS})
    joined.write(tmp_path / "joined.zarr")
    for sdata in (joined, sd.read_zarr(tmp_path / "joined.zarr")):
        records, uns = sdata.attrs["h2e"], sdata["table"].uns["h2e"]
        assert sorted(records["stains"]) == [f"{name}_image_normalized" for name in "abcd"]
        assert records["stains"]["b_image_normalized"]["image"] == "b_image"
        assert sorted(records["tissue"]) == sorted(sdata.labels) == [f"{name}_image_tissue" for name in "abcd"]
        assert [name for name, facts in uns["realign"].items() if facts["moved"]] == ["b"]
        report = h2e.get.report(sdata)
        expected = h2e.get.report(few).rename(index=names)
        pd.testing.assert_frame_equal(report.astype(object), expected.astype(object), check_names=False)
        for key in ("rank",):
            np.testing.assert_array_equal(sdata["table"].layers[key].toarray(), few["table"].layers[key].toarray())
        fit = {"learners": "mean", "group_key": "donor", "progress": False, "targets": ["TOY01"]}
        assert h2e.tl.fit(sdata, **fit).reference == h2e.tl.fit(few, **fit).reference
    # All that is there is known to be h2e's, and may be replaced.
    h2e.pp.normalize(joined, realign=True)


def test_slides_of_different_references_keep_them_and_are_refused(parts):
    for one in parts.values():
        h2e.pp.normalize(one)
    joined = h2e.pp.join_slides(parts)
    fit = {"learners": "mean", "targets": ["TOY01"], "group_key": "donor", "progress": False}
    stains = joined.attrs["h2e"]["stains"]
    for region, one in parts.items():
        before = one.attrs["h2e"]["stains"][f"{region}_image_normalized"]
        reference = {of: fact for of, fact in before["reference"].items() if of != "images"}  # names may be others now
        assert stains[f"{region}_image_normalized"] == before | {"reference": reference}
    with pytest.raises(ValueError, match=r"different references.*h2e.pp.normalize\(sdata, overwrite=True\)"):
        h2e.tl.fit(joined, **fit)
    h2e.pp.normalize(joined, overwrite=True)
    assert h2e.tl.fit(joined, **fit).reference is not None


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.filterwarnings("ignore:.*:UserWarning:(anndata|spatialdata)")
def test_prepared_slides_that_spatialdata_joined_are_never_learned_from_raw(parts, kind: type):
    for one in parts.values():
        del one["table"].obsm["proportions"]
        h2e.pp.normalize(one)
    joined = sd.concatenate(parts if kind is dict else list(parts.values()), concatenate_tables=True)
    fit = {"learners": "mean", "targets": ["TOY01"], "group_key": "donor", "progress": False}
    with pytest.raises(ValueError, match=r"join_slides.*h2e.pp.normalize\(sdata, overwrite=True\)"):
        h2e.tl.fit(joined, **fit)
    h2e.pp.normalize(joined, overwrite=True)
    assert h2e.tl.fit(joined, **fit).reference is not None


def test_predictions_of_one_ensemble_are_kept_and_others_left_out(parts):
    fit = {"learners": "mean", "targets": ["TOY01"], "group_key": "donor", "progress": False}
    ensemble = h2e.tl.fit(h2e.pp.join_slides({name: parts[name] for name in REGIONS[:3]}), **fit)
    new = {"x": part(h2e.datasets.toy_cohort(side=6, seed=1), "toy_A1"), "C": parts["toy_C1"], "B": parts["toy_B1"]}
    for name in "xC":
        h2e.tl.predict(new[name], ensemble, progress=False)
    joined = h2e.pp.join_slides(new)["table"]
    there = {name: new[name]["table"].obsm["h2e"]["TOY01"].to_numpy() for name in "xC"}
    of = joined.obs["region"].to_numpy()
    for name, values in there.items():
        np.testing.assert_array_equal(joined.obsm["h2e"]["TOY01"][of == name], values)
    assert joined.obsm["h2e"]["TOY01"][of == "B"].isna().all()
    assert joined.obsm["h2e"].dtypes.eq(np.float32).all()
    assert joined.uns["h2e"]["unit"] == new["x"]["table"].uns["h2e"]["unit"]
    other = h2e.tl.fit(h2e.pp.join_slides({name: parts[name] for name in REGIONS[1:3]}), **fit)
    h2e.tl.predict(new["C"], other, progress=False, overwrite=True)
    with pytest.warns(UserWarning, match=r"left out: .*obsm\['h2e'\]"):
        joined = h2e.pp.join_slides(new)["table"]
    assert not {"h2e", "h2e_std"} & set(joined.obsm)


@pytest.mark.parametrize("key", ["hires", "lowres", "downscaled_fullres"])
@pytest.mark.parametrize("kind", ["uint8", "floats", "alpha", "dask"])
def test_a_table_with_images_becomes_a_slide(few, key: str, kind: str):
    pixels = pixels_of(few, "toy_B1")
    made = {
        "floats": pixels / np.float32(255),
        "alpha": np.dstack([pixels, pixels[..., 0]]),
        "dask": da.from_array(pixels),
    }
    images = {"thumbnail": pixels[::4, ::4], key: made.get(kind, pixels)}
    adata = legacy(few, "toy_B1", **images)
    before = adata.copy()
    joined = h2e.pp.join_slides({"T": adata})
    assert list(joined.images) == [f"T_{key}"]
    (slide,) = open_slides(joined, Keys())
    expected = places(few)["toy_B1"]
    np.testing.assert_array_equal(slide.image.levels[0].compute(), pixels.transpose(2, 0, 1))
    np.testing.assert_allclose(slide.xy, expected[2])
    assert slide.radius_px == pytest.approx(8)
    assert joined["table"].uns["spatial"]["T"]["scalefactors"]["microns_per_pixel"] == 6.25 / 4
    assert "images" not in joined["table"].uns["spatial"]["T"]
    assert list(adata.obs) == list(before.obs)
    assert list(adata.uns) == list(before.uns)


def test_a_size_of_pixels_in_a_table_alone_becomes_that_of_its_image(few):
    adata = legacy(few, "toy_B1")
    adata.obs["um_per_px"] = 6.25 / 4
    assert h2e.pp.join_slides({"T": adata})["table"].obs["um_per_px"].unique().tolist() == [6.25]


def test_all_kinds_of_slides_become_one_cohort(few, tmp_path: Path):
    """Keys of other names, instances of another kind, columns that only some have, and a slide without spots."""
    before = places(few)
    one, other, adata = part(few, "toy_A1"), part(few, "toy_B1", system="global"), legacy(few, "toy_C1")
    table = other["table"].copy()
    table.obs = table.obs.rename(columns={"region": "library", "instance_id": "spot"})
    table.obs["spot"] = [f"spot{i}" for i in table.obs["spot"]]
    other["toy_B1"].index = [f"spot{i}" for i in other["toy_B1"].index]
    del other.tables["table"], table.uns["spatialdata_attrs"]
    other["table"] = TableModel.parse(table, region="toy_B1", region_key="library", instance_key="spot")
    bare = sd.SpatialData(images={"he": few["toy_A2_image"]})
    set_transformation(bare["he"], {"global": Identity()}, set_all=True)
    with pytest.warns(UserWarning, match=r"is left out: obsm\['spatial'\].$"):
        joined = h2e.pp.join_slides({"A": one, "B": other, "C": adata, "D": bare})
    assert set(joined.images) == {"A_image", "B_image", "C_hires", "D_he"}
    assert joined["table"].uns["spatialdata_attrs"] == {
        "region": ["A", "B", "C"],
        "region_key": "region",
        "instance_key": "instance_id",
    }
    joined.write(tmp_path / "joined.zarr")
    for sdata in (joined, sd.read_zarr(tmp_path / "joined.zarr")):
        after = places(sdata)
        np.testing.assert_allclose(after["B"][2], before["toy_B1"][2])
        assert {name: image for name, (image, *_) in after.items()} == {"A": "A_image", "B": "B_image", "C": "C_hires"}
        h2e.pp.normalize(sdata, um_per_px=6.25)
        assert list(h2e.get.report(sdata).index) == ["A", "B", "C", "D_he"]


def test_several_regions_of_one_slide_keep_their_names_behind_it(few):
    joined = h2e.pp.join_slides({"batch": few, "toy": part(few, "toy_A1")})
    assert sorted(joined.shapes) == sorted(["toy", *(f"batch_{region}" for region in REGIONS)])
    assert places(joined)["batch_toy_B1"][0] == "batch_toy_B1_image"


def test_bins_keep_the_size_that_their_name_tells(few):
    bins = part(few, "toy_A1")
    table = bins["table"].copy()
    table.obs["region"] = pd.Categorical(["X_square_016um"] * table.n_obs)
    del table.uns["spatialdata_attrs"]
    images, shapes = {"X_full_image": bins["toy_A1_image"]}, {"X_square_016um": bins["toy_A1"]}
    keys = {"region": "X_square_016um", "region_key": "region", "instance_key": "instance_id"}
    bins = sd.SpatialData(images=images, shapes=shapes, tables={"square_016um": TableModel.parse(table, **keys)})
    joined = h2e.pp.join_slides({"S": bins}, table_key="square_016um")
    assert [key for _, key, _ in joined.gen_elements()] == ["S_full_image", "S_square_016um", "square_016um"]


def test_genes_and_arrays_that_not_all_slides_have_are_left_out_aloud(parts):
    one, other = parts["toy_A1"], parts["toy_B1"]
    table = other["table"][:, ::-1][:, 5:].copy()
    del other.tables["table"]
    other["table"] = table
    one["table"].layers["counts"] = one["table"].X
    one["table"].obsm["X_pca"], table.obsm["X_pca"] = np.zeros((one["table"].n_obs, 3)), np.zeros((table.n_obs, 2))
    with pytest.warns(UserWarning, match="left out|are kept") as said:
        joined = h2e.pp.join_slides({"A": one, "B": other})["table"]
    words = " ".join(str(one.message) for one in said)
    assert all(word in words for word in ("5 of 'A' (TOY56, TOY57, TOY58 …)", "layers['counts']", "obsm['X_pca']"))
    assert {one.filename for one in said} == {__file__}
    assert list(joined.var_names) == [f"TOY{i:02d}" for i in range(1, 56)]
    assert (joined.X[(joined.obs["region"] == "B").to_numpy()] != table[:, joined.var_names].X).nnz == 0
    assert not set(joined.layers)
    assert list(joined.obsm) == ["proportions"]


def changed(sdata: SpatialData, **uns: Any) -> SpatialData:
    sdata["table"].uns |= uns
    return sdata


REFUSED = {
    "a list": (lambda s: [s], TypeError, "mapping from name to SpatialData or AnnData, got list"),
    "nothing": (lambda s: {}, ValueError, "at least one slide"),
    "a name with a slash": (lambda s: {"a/b": s}, ValueError, "letters, digits"),
    "a path": (lambda s: {"a": "slide.zarr"}, TypeError, "slide 'a': sdata must be a SpatialData, got str"),
    "names that collide": (lambda s: {"a": s, "A": s}, ValueError, "upper and lower case"),
    "the name of the table": (lambda s: {"table": s}, ValueError, "another name"),
    "no image": (lambda s: {"a": sd.SpatialData(tables={"table": s["table"]}, shapes={"toy_A1": s["toy_A1"]})}, ValueError, "must have an image"),
    "another table": (lambda s: {"a": sd.SpatialData(images=dict(s.images), tables={"other": s["table"]})}, KeyError, "'table' is not in sdata.tables"),
    "an annotation of nothing": (lambda s: {"a": sd.SpatialData(images=dict(s.images), tables={"table": ad.AnnData(np.ones((2, 2)))})}, ValueError, "slide 'a': .*spatialdata_attrs"),
    "no uns": (lambda s: {"a": ad.AnnData(np.ones((2, 2)), obsm={"spatial": np.ones((2, 2))})}, ValueError, r"slide 'a': it must be one slide, got in uns\['spatial'\] \[\]"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(annotat|Transforming to str):UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_joined_is_refused_with_its_reason(few, kind: str):
    make, error, match = REFUSED[kind]
    slides = make(part(few, "toy_A1"))
    with pytest.raises(error, match=match):
        h2e.pp.join_slides(slides)


def test_tables_alone_that_are_no_slide_are_refused_with_what_to_do(few):
    adata = legacy(few, "toy_B1", hires=pixels_of(few, "toy_B1").astype(np.uint16))
    with pytest.raises(ValueError, match=r"slide 'a': its finest image, 'hires', is uint16"):
        h2e.pp.join_slides({"a": adata})
    adata = legacy(few, "toy_B1")
    adata.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="got 25 of 26.*drop spots without position"):
        h2e.pp.join_slides({"a": adata})
    adata = legacy(few, "toy_B1")
    del adata.uns["spatial"]["library"]["scalefactors"]["tissue_hires_scalef"]
    with pytest.raises(ValueError, match=r"such as 'hires' and 'tissue_hires_scalef', got \['hires'\]"):
        h2e.pp.join_slides({"a": adata})
    both = ad.concat({name: legacy(few, f"toy_{name}1") for name in "BC"}, label="library_id", index_unique="-")
    both.uns["spatial"] = {name: legacy(few, f"toy_{name}1").uns["spatial"]["library"] for name in "BC"}
    for name in "aB":
        with pytest.raises(ValueError, match=r"must be one slide, got .*\['B', 'C'\].*Of several slides pass each"):
            h2e.pp.join_slides({name: both})
    joined = h2e.pp.join_slides({name: both[both.obs["library_id"] == name] for name in "BC"})
    assert joined["table"].n_obs == both.n_obs


def test_counts_and_logarithms_or_other_genes_are_not_mixed(parts):
    one, other = parts["toy_A1"], parts["toy_B1"]
    table = other["table"]
    table.X = np.log1p(table.X.toarray())
    table.uns["log1p"] = {"base": None}
    with pytest.raises(ValueError, match="one kind of values in X, got .*logarithms"):
        h2e.pp.join_slides({"a": one, "b": other})
    del table.uns["log1p"]
    table.var_names = [f"ENSG{i}" for i in range(table.n_vars)]
    with pytest.raises(ValueError, match="genes in common.*TOY01.*ENSG0"):
        h2e.pp.join_slides({"a": one, "b": other})


def test_a_grid_keeps_its_image(few):
    bare = sd.SpatialData(images={"he": few["toy_A2_image"]})
    h2e.pp.make_spots(bare, spacing_um=200, um_per_px=6.25)
    joined = h2e.pp.join_slides({"D": bare})
    assert list(joined.shapes) == ["D_he_spots"]
    assert places(joined)["D_he_spots"][0] == "D_he"
    h2e.pp.make_spots(joined, spacing_um=400, um_per_px=6.25, image_key="D_he")
    assert list(joined.shapes) == ["D_he_spots"]


def test_a_frame_of_positions_is_read_by_the_names_of_its_columns(few):
    adata = legacy(few, "toy_B1")
    expected = h2e.pp.join_slides({"a": adata})["a"].get_coordinates().to_numpy()
    xy = adata.obsm["spatial"]
    adata.obsm["spatial"] = pd.DataFrame({"y": xy[:, 1], "x": xy[:, 0]}, index=adata.obs_names)
    np.testing.assert_array_equal(h2e.pp.join_slides({"a": adata})["a"].get_coordinates().to_numpy(), expected)
    adata.obsm["spatial"] = adata.obsm["spatial"].set_axis(["imagerow", "imagecol"], axis=1)
    with pytest.raises(ValueError, match=r"or have columns of these names, got \['imagerow', 'imagecol'\]"):
        h2e.pp.join_slides({"a": adata})


@pytest.mark.parametrize("name", ["table", 1, None])
def test_the_name_of_a_slide_is_text_and_not_that_of_the_table(few, name: object):
    with pytest.raises(ValueError, match="the name of a slide must be text, and not that of the table, 'table', got"):
        h2e.pp.join_slides({name: legacy(few, "toy_B1")})


def test_an_error_of_another_package_is_told_with_the_slide(few, monkeypatch):
    class OtherError(ValueError):
        def __init__(self, message: str, errors: list) -> None:
            super().__init__(message)

    def fail(*_: Any) -> None:
        raise OtherError("no slide at all", [])

    monkeypatch.setattr("h2e._sdata.join.slide_from_table", fail)
    with pytest.raises(ValueError, match="slide 'a': no slide at all"):
        h2e.pp.join_slides({"a": legacy(few, "toy_B1")})


def test_channels_that_come_first_are_no_image_and_sizes_may_be_text(few):
    adata = legacy(few, "toy_B1", hires=pixels_of(few, "toy_B1").transpose(2, 0, 1))
    adata.uns["spatial"]["library"]["scalefactors"]["tissue_hires_scalef"] = 0.25
    with pytest.raises(ValueError, match=r"'hires', is uint8 of shape \(3, .*not \(y, x, 3\)"):
        h2e.pp.join_slides({"a": adata})
    adata = legacy(few, "toy_B1")
    adata.obs["um_per_px"] = str(6.25 / 4)
    assert (h2e.pp.join_slides({"a": adata})["table"].obs["um_per_px"] == 6.25).all()
    adata.uns["spatial"]["library"]["scalefactors"]["tissue_hires_scalef"] = np.nan
    with pytest.raises(ValueError, match="slide 'a': tissue_hires_scalef must be a positive number, got nan"):
        h2e.pp.join_slides({"a": adata})


def test_a_column_that_is_called_like_the_key_of_another_slide_is_kept(few: SpatialData):
    first, second = legacy(few, "toy_A1"), legacy(few, "toy_B1")
    second.obs["region"] = "cortex"
    table = h2e.pp.join_slides({"one": first, "two": second})["table"]
    assert table.obs["region"].dropna().unique().tolist() == ["cortex"]
    key = table.uns["spatialdata_attrs"]["region_key"]
    assert table.obs[key].cat.categories.tolist() == ["one", "two"]


def test_logarithms_in_sparse_blocks_are_known_as_such(few: SpatialData):
    slides = {"one": legacy(few, "toy_A1"), "two": legacy(few, "toy_B1")}
    for table in slides.values():
        table.uns["log1p"] = {"base": None}
        dense = np.log1p(np.asarray(table.to_df(), dtype=np.float32))
        table.X = da.from_array(dense, chunks=(20, -1)).map_blocks(sparse.csr_matrix)
    assert h2e.pp.join_slides(slides)["table"].n_obs == sum(table.n_obs for table in slides.values())


def test_an_image_of_floats_below_zero_is_refused(few: SpatialData):
    pixels = pixels_of(few, "toy_A1") / 255 - 0.5
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        h2e.pp.join_slides({"one": legacy(few, "toy_A1", hires=pixels)})
