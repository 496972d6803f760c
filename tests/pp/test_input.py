"""Bad input to the preparation: a clear error and nothing half-written, or the right answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, sparse
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale, get_transformation

import h2e
from h2e._sdata.images import open_image
from h2e._sdata.masks import find_mask

NAME = "toy_A1_image"

FUNCTIONS: dict[str, Callable[[SpatialData], object]] = {
    "detect_tissue": h2e.pp.detect_tissue,
    "fit_stain_reference": h2e.pp.fit_stain_reference,
    "normalize_stains": h2e.pp.normalize_stains,
    "tissue_fraction": h2e.pp.tissue_fraction,
    "realign_spots": h2e.pp.realign_spots,
    "normalize": h2e.pp.normalize,
    "normalize and realign": lambda sdata: h2e.pp.normalize(sdata, realign=True),
    "make_spots": lambda sdata: h2e.pp.make_spots(
        sdata, spacing_um=200, um_per_px=6.25, image_key=NAME, table_key="grid", key_added="grid_spots"
    ),
}


def rgb_of(sdata: SpatialData) -> np.ndarray:
    return np.asarray(sdata[NAME]["scale0"]["image"].data)


def replace_image(sdata: SpatialData, pixels: np.ndarray, *, dims: tuple = ("c", "y", "x"), **options: object) -> None:
    del sdata.images[NAME]
    placed = {"toy_A1": Identity()}
    sdata.images[NAME] = Image2DModel.parse(pixels, dims=dims, transformations=placed, **options)


def state(sdata: SpatialData) -> dict[str, object]:
    """Everything that could have been written to."""
    found: dict[str, object] = {"elements": {name: id(element) for _, name, element in sdata.gen_elements()}}
    found["attrs"] = str(sdata.attrs)
    found["placed"] = {key: str(get_transformation(shapes, get_all=True)) for key, shapes in sdata.shapes.items()}
    for key, table in sdata.tables.items():
        found[f"{key}.obs"] = table.obs.copy().to_csv()
        for slot in ("var", "obsm", "uns", "layers"):
            found[f"{key}.{slot}"] = sorted(getattr(table, slot))
    return found


NO_RGB = {
    "grayscale": (lambda x: (x[:1], {}), r"has 1 channels named \['0'\], h2e reads RGB"),
    "float": (lambda x: (x / np.float32(255), {}), "must be 8-bit RGB, got float32"),
    "16 bit": (lambda x: (x.astype(np.uint16) * 257, {}), r"got uint16\..*\(image // 257\)"),
    "channels last": (
        lambda x: (np.ascontiguousarray(x.transpose(1, 2, 0)), {}),
        r"has 416 channels.*channels go first, \(c, y, x\)",
    ),
    "wrong names": (
        lambda x: (x, {"c_coords": ["DAPI", "CD3", "CD8"]}),
        r"3 channels named \['dapi', 'cd3', 'cd8'\].*set_channel_names\('toy_A1_image', \['r', 'g', 'b'\]\)",
    ),
    "two channels": (lambda x: (x[:2], {}), "has 2 channels"),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("change", "message"), NO_RGB.values(), ids=NO_RGB)
def test_what_is_no_8_bit_rgb_is_refused_by_name(cohort, change, message: str, function):
    pixels, options = change(rgb_of(cohort))
    replace_image(cohort, pixels, **options)
    before = state(cohort)
    with pytest.raises(ValueError, match=message) as raised:
        function(cohort)
    assert f"image {NAME!r}" in str(raised.value)
    assert len(str(raised.value)) < 400
    assert state(cohort) == before


@pytest.mark.parametrize("axes", ["y", "x", "yx"])
def test_an_empty_image_is_refused(cohort, axes: str):
    replace_image(cohort, rgb_of(cohort))  # a model refuses to make an empty one, but not to cut one to nothing
    empty = cohort[NAME].isel(dict.fromkeys(axes, slice(0, 0)))
    del cohort.images[NAME]
    cohort.images[NAME] = empty
    for name, function in FUNCTIONS.items():
        before = state(cohort)
        with pytest.raises(ValueError, match=f"image {NAME!r} is empty"):
            function(cohort)
        assert state(cohort) == before, name


RIGHT = {
    "alpha": lambda x: (np.concatenate([x, np.full_like(x[:1], 255)]), {}),
    "named alpha": lambda x: (np.concatenate([x, np.full_like(x[:1], 255)]), {"c_coords": ["r", "g", "b", "a"]}),
    "blue first": lambda x: (x[::-1].copy(), {"c_coords": ["b", "g", "r"]}),
    "declared channels last": lambda x: (np.ascontiguousarray(x.transpose(1, 2, 0)), {"dims": ("y", "x", "c")}),
    "single scale": lambda x: (x, {}),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_other_ways_to_store_rgb_give_the_same(cohort, cohort_source, change):
    plain = rgb_of(cohort)
    h2e.pp.normalize(cohort, reference=(reference := h2e.pp.fit_stain_reference(cohort_source)))
    expected, report = rgb_of_normalized(cohort), h2e.get.report(cohort)
    for key in ("labels", "images"):
        for name in [name for name in getattr(cohort, key) if name.startswith(f"{NAME}_")]:
            del getattr(cohort, key)[name]
    pixels, options = change(plain)
    replace_image(cohort, pixels, **options)
    h2e.pp.normalize(cohort, reference=reference)
    np.testing.assert_array_equal(rgb_of_normalized(cohort), expected)
    pd.testing.assert_frame_equal(h2e.get.report(cohort), report)


def rgb_of_normalized(sdata: SpatialData) -> np.ndarray:
    element = sdata[f"{NAME}_normalized"]
    array = element["scale0"]["image"] if hasattr(element, "children") else element
    names = [str(name).lower() for name in array.coords["c"].to_numpy()]
    order = [names.index(name) for name in "rgb"] if set("rgb") <= set(names) else [0, 1, 2]
    return np.asarray(array.transpose("c", "y", "x").data)[order]


@pytest.mark.parametrize("value", [255, 0], ids=["white", "black"])
def test_a_blank_slide_among_others_has_no_tissue_and_is_left_as_it_is(cohort, cohort_source, value: int):
    replace_image(cohort, np.full((3, 416, 416), value, np.uint8))
    h2e.pp.normalize(cohort, realign=True)
    report = h2e.get.report(cohort)
    assert report.loc["toy_A1", ["tissue_mm2", "spots_kept", "moved", "hematoxylin"]].tolist() == [0, 0, False, ""]
    assert "agree too little" in report.loc["toy_A1", "placement"]
    assert (rgb_of_normalized(cohort) == value).all()
    others = cohort_source.subset(["toy_A2_image", "toy_B1_image", "toy_C1_image"])
    ours = cohort.attrs["h2e"]["stains"][f"{NAME}_normalized"]["reference"]
    assert ours == h2e.pp.fit_stain_reference(others, um_per_px=6.25).to_dict()  # it has no say in the stains


@pytest.mark.parametrize("value", [255, 0], ids=["white", "black"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fit_stain_reference", "no stained tissue on"),
        ("normalize_stains", "no stained tissue on"),
        ("normalize", "no stained tissue on"),
        ("make_spots", "no point of a grid"),
    ],
)
def test_nothing_but_blank_slides_is_an_error(value: int, name: str, message: str):
    blank = Image2DModel.parse(np.full((3, 300, 300), value, np.uint8), dims=("c", "y", "x"))
    sdata = SpatialData(images={NAME: blank})
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](sdata)
    assert [key for _, key, _ in sdata.gen_elements()] == [NAME]
    assert not sdata.attrs


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 2, 400), (3, 30, 30)])
def test_a_tiny_image_is_measured_as_any_other(cohort, shape: tuple[int, int, int]):
    cohort.images["tiny"] = Image2DModel.parse(
        np.full(shape, 130, np.uint8), dims=("c", "y", "x"), transformations={"tiny": Identity()}
    )
    h2e.pp.normalize(cohort)
    assert h2e.get.report(cohort).loc["tiny", "tissue_share"] in (0.0, 1.0)


@pytest.mark.parametrize("name", ["tissue_fraction", "normalize_stains", "realign_spots", "normalize"])
@pytest.mark.parametrize(
    ("factor", "message"), [(0.25, "covers 6 % of image"), (2, "reaches far beyond image")], ids=["smaller", "larger"]
)
def test_a_mask_of_another_size_needs_its_scale(cohort, name: str, factor: float, message: str):
    h2e.pp.tissue_fraction(cohort)
    h2e.pp.detect_tissue(cohort)
    theirs = cohort["table"].obs["tissue_fraction"].copy()
    mask, scale = find_mask(cohort, open_image(cohort, NAME))
    assert scale == 1
    del cohort.labels[f"{NAME}_tissue"]
    resized = ndimage.zoom(mask.astype(np.uint8), factor, order=0)
    cohort.labels[f"{NAME}_tissue"] = Labels2DModel.parse(
        resized, dims=("y", "x"), transformations={"toy_A1": Identity()}
    )
    before = state(cohort)
    with pytest.raises(ValueError, match=f"mask '{NAME}_tissue' .* {message} .*give it a Scale"):
        FUNCTIONS[name](cohort)
    assert state(cohort) == before
    placed = {"toy_A1": Scale([1 / factor, 1 / factor], ("x", "y"))}
    del cohort.labels[f"{NAME}_tissue"]
    cohort.labels[f"{NAME}_tissue"] = Labels2DModel.parse(resized, dims=("y", "x"), transformations=placed)
    FUNCTIONS[name](cohort)
    h2e.pp.tissue_fraction(cohort)
    if name != "realign_spots":
        np.testing.assert_allclose(cohort["table"].obs["tissue_fraction"], theirs, atol=0.1)


def test_a_mask_of_another_slide_is_refused(cohort):
    h2e.pp.detect_tissue(cohort)
    before = state(cohort)
    with pytest.raises(ValueError, match="mask 'toy_B1_image_tissue' shares no coordinate system with image"):
        h2e.pp.tissue_fraction(cohort, tissue_mask_key="toy_B1_image_tissue")
    with pytest.raises(KeyError, match="'mine' is neither in sdata.labels nor in sdata.shapes"):
        h2e.pp.normalize_stains(cohort, tissue_mask_key="mine")
    assert state(cohort) == before


def test_realignment_that_fails_on_the_last_slide_leaves_the_others_where_they_were(cohort):
    h2e.pp.realign_spots(cohort)
    small = Labels2DModel.parse(np.ones((9, 9), np.uint8), dims=("y", "x"), transformations={"toy_C1": Identity()})
    cohort.labels["toy_C1_image_tissue"] = small
    before, notes = state(cohort), str(cohort["table"].uns["h2e"])
    assert "'moved': True" in notes
    with pytest.raises(ValueError, match="mask 'toy_C1_image_tissue'"):
        h2e.pp.realign_spots(cohort)
    assert state(cohort) == before
    assert str(cohort["table"].uns["h2e"]) == notes


EXPRESSION = {
    "rank_transform": lambda sdata: h2e.pp.rank_transform(sdata["table"]),
    "select_targets": lambda sdata: h2e.pp.select_targets(sdata["table"], n_targets=5),
    "normalize": h2e.pp.normalize,
}


@pytest.mark.parametrize("function", EXPRESSION.values(), ids=EXPRESSION)
@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize(
    ("value", "message"), [(-2, r"1 negative values \(smallest -2\)"), (np.nan, "1 NaN or infinite")]
)
def test_counts_that_are_none_are_refused(cohort, function, kind: str, value: float, message: str):
    x = cohort["table"].X.toarray().astype(np.float32)
    x[3, 4] = value
    cohort["table"].X = x if kind == "dense" else sparse.csr_matrix(x)
    before = state(cohort)
    with pytest.raises(ValueError, match=message):
        function(cohort)
    assert state(cohort) == before


def test_realignment_makes_nothing_of_values_that_are_no_counts(cohort):
    table = cohort["table"]
    table.X = table.X.toarray().astype(np.float32) - 5
    h2e.pp.realign_spots(cohort)
    assert [name for name, found in table.uns["h2e"]["realign"].items() if found["moved"]] == ["toy_A2"]


# ---- one tissue at 0.25 and at 4 µm per pixel
# ---------------------------------------------------------------------------


def two_scales() -> SpatialData:
    """The same tissue under two scanners, 1.2 mm wide, with spots every 100 µm."""
    fine, um = 4096, (0.25, 4.0)
    rng = np.random.default_rng(0)
    y, x = (np.indices((fine, fine), dtype=np.float32) + 0.5) / fine - 0.5
    inside = np.hypot(x, 1.2 * y) < 0.3
    small = rng.random((2, fine // 16, fine // 16), dtype=np.float32)
    amounts = [np.kron(ndimage.gaussian_filter(a, 1), np.ones((16, 16), np.float32)) * 2 * inside for a in small]
    stains = np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]])
    light = np.stack([240 * np.exp(-(amounts[0] * h + 0.7 * amounts[1] * e)) for h, e in stains.T])
    rgb = (light + rng.normal(0, 2, light.shape)).clip(0, 255).astype(np.uint8)
    coarse = rgb.reshape(3, fine // 16, 16, fine // 16, 16).mean(axis=(2, 4)).astype(np.uint8)
    at = np.stack(np.meshgrid(np.arange(1, 10), np.arange(1, 10)), -1).reshape(-1, 2) * 100.0 + 12
    at = at[np.hypot(at[:, 0] - 512, 1.2 * (at[:, 1] - 512)) < 330]  # on tissue, and a few beside it
    images, shapes, tables = {}, {}, []
    for name, pixels, size in (("fine", rgb, um[0]), ("coarse", coarse, um[1])):
        placed = {name: Identity()}
        factors = {"scale_factors": [4, 4]} if name == "fine" else {}
        images[f"{name}_image"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=placed, **factors
        )
        shapes[name] = ShapesModel.parse(at / size, geometry=0, radius=27.5 / size, transformations=placed)
        obs = pd.DataFrame({"region": name, "instance_id": np.arange(len(at)), "um_per_px": size})
        tables.append((obs, rng.poisson(3, (len(at), 4))))
    obs = pd.concat([o for o, _ in tables], ignore_index=True).rename(index=str)
    obs["region"] = obs["region"].astype("category")
    from anndata import AnnData

    table = AnnData(sparse.csr_matrix(np.concatenate([x for _, x in tables]).astype(np.float32)), obs=obs)
    table = TableModel.parse(table, region=["fine", "coarse"], region_key="region", instance_key="instance_id")
    return SpatialData(images=images, shapes=shapes, tables={"table": table})


def test_slides_of_very_different_scale_are_prepared_alike():
    sdata = two_scales()
    h2e.pp.normalize(sdata)
    report = h2e.get.report(sdata)
    assert report["um_per_px"].to_dict() == {"fine": 0.25, "coarse": 4.0}
    true_mm2 = np.pi * 0.3 * 0.3 / 1.2 * 1.024**2
    np.testing.assert_allclose(report["tissue_mm2"], true_mm2, rtol=0.12)
    fraction = sdata["table"].obs["tissue_fraction"].to_numpy().reshape(2, -1)
    assert np.abs(fraction[0] - fraction[1]).mean() < 0.05
    assert (report["shift"] < 0.5).all()
    stains = [
        sdata.attrs["h2e"]["stains"][f"{name}_image_normalized"]["slide"]["stains"] for name in ("fine", "coarse")
    ]
    assert (np.einsum("ij,ij->i", *np.array(stains)) > np.cos(np.deg2rad(8))).all()
