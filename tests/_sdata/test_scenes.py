"""Which image a region lies on: two images are one scene only if their pixels agree."""

from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, Scale, set_transformation

import h2e
from h2e._sdata import pairing
from h2e._sdata.keys import Keys
from h2e._sdata.pairing import find_pairing
from h2e._sdata.slides import open_images
from h2e._slide.orientation import orient

TURNS = {
    "turned by 180°": lambda a: a[::-1, ::-1],
    "mirrored left to right": lambda a: a[:, ::-1],
    "mirrored top to bottom": lambda a: a[::-1],
    "turned by 90°": np.rot90,
    "with x and y exchanged": lambda a: a.swapaxes(0, 1),
}


def pixels_of(sdata: SpatialData, key: str, width: int | None = None) -> np.ndarray:
    return np.moveaxis(sdata.images[key]["scale0"]["image"].data.compute(), 0, -1)[:, :width]


def image(rgb: np.ndarray, scale: float = 1.0, system: str = "toy_A1"):
    placed = {system: Scale([scale, scale], axes=("x", "y")) if scale != 1 else Identity()}
    return Image2DModel.parse(
        np.ascontiguousarray(np.moveaxis(rgb, -1, 0)), dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        transformations=placed,
    )  # fmt: skip


@pytest.mark.parametrize("width", [None, 300])
@pytest.mark.parametrize("turn", TURNS)
def test_an_image_that_is_turned_against_a_coarser_one_is_refused_and_the_turn_is_named(cohort, turn, width):
    rgb = pixels_of(cohort, "toy_A1_image", width)
    cohort.images["toy_A1_image"] = image(TURNS[turn](rgb))
    cohort.images["hires"] = image(rgb[::2, ::2], 2)
    with pytest.raises(ValueError, match=rf"'toy_A1_image'.*'hires'.* {turn}.*image_key"):
        h2e.pp.normalize(cohort)
    keys = {"toy_A1": "hires"} | {name: f"{name}_image" for name in ("toy_A2", "toy_B1", "toy_C1")}
    assert find_pairing(cohort).image_of("toy_A1", keys) == "hires"


@pytest.mark.parametrize("orientation", range(8))
def test_an_image_that_its_transformation_turns_back_is_the_same_scene(cohort, orientation: int):
    rgb = pixels_of(cohort, "toy_A1_image", 300)
    cohort.images["hires"] = image(rgb[::2, ::2], 2)
    index = np.stack(np.meshgrid(np.arange(300) + 0.5, np.arange(416) + 0.5), axis=-1)
    source = orient(index, orientation)
    design = np.array([[x + 0.5, y + 0.5, 1] for x, y in ((0, 0), (9, 0), (0, 9))])
    back = np.linalg.solve(design, [source[0, 0], source[0, 9], source[9, 0]]).T
    cohort.images["toy_A1_image"] = image(orient(rgb, orientation))
    to = Affine(np.vstack([back, [0, 0, 1]]), input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(cohort.images["toy_A1_image"], to, "toy_A1")
    assert find_pairing(cohort).image_of("toy_A1") == "toy_A1_image"


def test_an_image_of_another_slide_or_stain_is_refused(cohort):
    rgb = pixels_of(cohort, "toy_A1_image")
    foreign = {
        "slide": image(pixels_of(cohort, "toy_C1_image")[::2, ::2], 2),
        "stain": image((rgb[::2, ::2] * np.array([1, 0.9, 0.7])).astype(np.uint8), 2),
        "dapi": Image2DModel.parse(
            np.zeros((2, 832, 832), np.uint16), dims=("c", "y", "x"),
            transformations={"toy_A1": Scale([0.5, 0.5], axes=("x", "y"))},
        ),
    }  # fmt: skip
    for name, other in foreign.items():
        cohort.images[name] = other
        with pytest.raises(ValueError, match="image_key") as refused:
            h2e.pp.normalize(cohort)
        assert f"'{name}'" in str(refused.value)
        assert "'toy_A1_image'" in str(refused.value)
        del cohort.images[name]
    cohort.images["blank"] = image(np.full((208, 208, 3), 240, np.uint8), 2)
    assert find_pairing(cohort).image_of("toy_A1") == "toy_A1_image"


@pytest.mark.parametrize("factor", [1, 2])
def test_slides_in_one_system_are_each_a_slide_at_any_resolution(cohort, factor: int):
    small = pixels_of(cohort, "toy_B1_image")[::factor, ::factor]
    images = {"a": image(pixels_of(cohort, "toy_A1_image"), system="global"), "b": image(small, factor, "global")}
    assert sorted(open_images(SpatialData(images=images), Keys())) == ["a", "b"]
    shapes = cohort["toy_A1"]
    set_transformation(shapes, {"global": Identity()}, set_all=True)
    table = cohort["table"][cohort["table"].obs["region"] == "toy_A1"].copy()
    table.uns["spatialdata_attrs"]["region"] = "toy_A1"
    both = SpatialData(images=images, shapes={"toy_A1": shapes}, tables={"table": table})
    with pytest.raises(ValueError, match=r"region 'toy_A1' .*\['a', 'b'\].*Pass image_key"):
        h2e.pp.normalize(both)
    h2e.pp.normalize(both, image_key={"toy_A1": "a"})


def test_slides_without_spots_that_contradict_each_other_are_refused(cohort):
    rgb = pixels_of(cohort, "toy_A1_image")
    hires = image(rgb[::2, ::2], 2, "global")
    same = SpatialData(images={"full": image(rgb, system="global"), "hires": hires})
    assert sorted(open_images(same, Keys())) == ["full"]
    turned = SpatialData(images={"full": image(rgb[::-1], system="global"), "hires": hires})
    with pytest.raises(ValueError, match="'full' mirrored top to bottom shows what 'hires' shows"):
        h2e.pp.normalize(turned, um_per_px=6.25)
    brown = image((rgb * np.array([1, 0.9, 0.7])).astype(np.uint8), system="global")
    with pytest.raises(ValueError, match="'full' and 'ihc' show one scene in other colours"):
        h2e.pp.normalize(SpatialData(images={"full": image(rgb, system="global"), "ihc": brown}), um_per_px=6.25)


def test_pixels_are_read_once_and_only_where_several_images_may_be_one_scene(cohort, monkeypatch):
    read, real = [], pairing.read_coarse
    monkeypatch.setattr(pairing, "read_coarse", lambda image, scale: read.append(image.key) or real(image, scale))
    h2e.pp.normalize(cohort)
    assert read == []
    rgb = pixels_of(cohort, "toy_A1_image")
    cohort.images["hires"], cohort.images["lowres"] = image(rgb[::2, ::2], 2), image(rgb[::8, ::8], 8)
    h2e.pp.tissue_fraction(cohort)
    assert sorted(read) == ["hires", "lowres", "toy_A1_image"]
