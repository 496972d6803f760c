"""Whether two pictures show one scene, and in which orientation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from h2e._slide.orientation import ORIENTATIONS, SAME_SCENE, compare, orient, picture_of

RECIPES = {
    "half": lambda rgb: resized(rgb, 2),
    "an eighth": lambda rgb: resized(rgb, 8),
    "every fourth pixel": lambda rgb: rgb[::4, ::4],
    "odd size": lambda rgb: resized(rgb, 5.3),
    "JPEG": lambda rgb: jpeg(resized(rgb, 2), 50),
    "a pixel cut off": lambda rgb: resized(rgb, 4)[1:, :-1],
    "darker": lambda rgb: (rgb * 0.85).astype(np.uint8),
    "white balance": lambda rgb: np.clip(rgb * np.array([1.05, 1, 0.95]), 0, 255).astype(np.uint8),
}


def resized(rgb: np.ndarray, factor: float) -> np.ndarray:
    size = tuple(round(n / factor) for n in rgb.shape[1::-1])
    return np.asarray(Pillow.fromarray(np.ascontiguousarray(rgb)).resize(size, Pillow.Resampling.BOX))


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Pillow.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Pillow.open(file))


@pytest.fixture(scope="module")
def pictures(cohort_source) -> list[np.ndarray]:
    return [np.moveaxis(e["scale0"]["image"].data.compute(), 0, -1) for e in cohort_source.images.values()]


@pytest.mark.parametrize("change", RECIPES)
def test_copies_of_a_picture_are_one_scene_in_one_stain(pictures, change: str):
    for rgb in pictures:
        correlations, other_stain = compare(picture_of(rgb), picture_of(RECIPES[change](rgb)))
        assert correlations.argmax() == 0
        assert correlations[0] > SAME_SCENE + 0.05
        assert not other_stain


def test_each_orientation_is_told_from_the_others_and_by_its_name(pictures):
    one = picture_of(pictures[0])
    for k in range(8):
        correlations, _ = compare(one, picture_of(resized(orient(pictures[0], k), 3)))
        assert correlations.argmax() == k
        assert np.sort(correlations)[-2] < SAME_SCENE - 0.03
    numbered = np.arange(6).reshape(2, 3)
    named = dict(zip(ORIENTATIONS, (orient(numbered, k).tolist() for k in range(8)), strict=True))
    assert named["turned by 180°"] == numbered[::-1, ::-1].tolist()
    assert named["mirrored left to right"] == numbered[:, ::-1].tolist()
    assert named["mirrored top to bottom"] == numbered[::-1].tolist()
    assert named["with x and y exchanged"] == numbered.T.tolist()
    assert named["turned by 90° clockwise"] == [[3, 0], [4, 1], [5, 2]]


def test_other_slides_are_other_scenes_in_every_orientation(pictures):
    seen = [picture_of(rgb) for rgb in pictures]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert compare(one, other)[0].max() < SAME_SCENE - 0.02


def test_tissue_in_other_colours_is_another_stain(pictures):
    for rgb in pictures:
        gray = rgb.mean(axis=-1, keepdims=True) / 255
        brown = (245 * gray ** np.array([0.5, 1.1, 1.5])).astype(np.uint8)
        assert compare(picture_of(rgb), picture_of(brown))[1]
        cast = (rgb * np.array([1, 0.9, 0.7])).astype(np.uint8)
        assert compare(picture_of(rgb), picture_of(cast))[1]


def test_blank_and_black_pictures_are_no_evidence(pictures):
    rng = np.random.default_rng(0)
    for empty in (rng.integers(238, 246, (90, 120, 3)), np.zeros((50, 50, 3))):
        assert compare(picture_of(pictures[0]), picture_of(empty)) is None


def test_what_is_cut_out_on_black_is_compared_where_there_is_something(pictures):
    cut = pictures[0].copy()
    cut[:, :140] = 0
    correlations, other_stain = compare(picture_of(cut), picture_of(pictures[0]))
    assert correlations[0] > 0.95
    assert not other_stain


@pytest.mark.real_data
def test_real_slides_are_told_apart_and_their_copies_are_not():
    import h2e
    from h2e._sdata.keys import Keys
    from h2e._sdata.slides import open_slides
    from h2e._slide.image import read_coarse

    opened = open_slides(h2e.datasets.her2st(progress=False), Keys()) + open_slides(h2e.datasets.mob(), Keys())
    coarse = [read_coarse(slide.image, max(slide.image.shape) / 500)[0] for slide in opened]
    seen = [picture_of(rgb) for rgb in coarse]
    for i, (one, rgb) in enumerate(zip(seen, coarse, strict=True)):
        assert compare(one, picture_of(jpeg(resized(rgb, 2), 50)))[0][0] > 0.95
        assert compare(one, one)[0][1:].max() < SAME_SCENE - 0.05
        assert max((compare(one, other)[0].max() for other in seen[:i]), default=0) < SAME_SCENE - 0.03
