from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from skimage.transform import downscale_local_mean

from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._slide.tiles import View, read_views, read_windows, warn_of_enlarging


def picture(height: int = 210, width: int = 190, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def slide_of(*levels: np.ndarray, chunks: int = 64, um_per_px: float = 1.0) -> Slide:
    scales = tuple(float(levels[0].shape[1] // level.shape[1]) for level in levels)
    image = Image("image", tuple(da.from_array(level, chunks=(3, chunks, chunks)) for level in levels), scales)
    return replace(Slide.without_spots(image, um_per_px, "the test"), name="A", radius_px=5.0, spacing_px=10.0)


def points(n: int, slide: Slide, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, slide.image.shape[::-1], (n, 2))


def padded_slice(whole: np.ndarray, xy: np.ndarray, side: int) -> np.ndarray:
    padded = np.pad(whole, ((0, 0), (side, side), (side, side)), mode="edge")
    x0, y0 = np.floor(xy - side / 2 + 0.5).astype(int) + side
    return padded[:, y0 : y0 + side, x0 : x0 + side]


@pytest.mark.parametrize("chunks", [17, 64, 500])
@pytest.mark.parametrize("side", [1, 8, 33, 120, 400])
def test_a_tile_is_a_padded_slice_of_the_whole_image(chunks: int, side: int):
    whole = picture()
    slide = slide_of(whole, chunks=chunks)
    xy = points(40, slide)
    (tiles,) = read_views(slide, xy, [View(side, side, "um")])
    assert tiles.dtype == np.uint8
    np.testing.assert_array_equal(tiles, [padded_slice(whole, p, side) for p in xy])


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_shrunk_tile_is_the_mean_over_blocks(factor: int):
    whole = picture()
    slide = slide_of(whole)
    xy = points(20, slide)
    (tiles,) = read_views(slide, xy, [View(20 * factor, 20, "um")])
    means = [downscale_local_mean(padded_slice(whole, p, 20 * factor), (1, factor, factor)) for p in xy]
    np.testing.assert_allclose(tiles, means, atol=0.51)


def test_shrinking_by_a_fraction_weighs_pixels_by_their_overlap():
    whole = picture()
    slide = slide_of(whole)
    xy = points(20, slide)
    (tiles,) = read_views(slide, xy, [View(50, 20, "um")])
    fine = [np.repeat(np.repeat(padded_slice(whole, p, 50), 2, 1), 2, 2) for p in xy]  # 100 px, 5 for each of 20
    np.testing.assert_allclose(tiles, [downscale_local_mean(f, (1, 5, 5)) for f in fine], atol=0.51)


def test_enlarging_interpolates():
    gradient = np.broadcast_to(np.arange(100, dtype=np.uint8) * 2, (3, 100, 100))
    slide = slide_of(np.ascontiguousarray(gradient), um_per_px=2.0)
    (tiles,) = read_views(slide, np.array([[50.0, 50.0]]), [View(40, 40, "um")])
    steps = np.diff(tiles[0, 0, 20].astype(int))[2:-2]
    assert set(steps) <= {0, 1, 2}
    assert steps.mean() == pytest.approx(1, abs=0.05)


def test_slides_whose_pixels_are_too_large_are_named_once():
    sizes = {"fine": 1.0, "coarse": 2.0, "hires": 4.74}
    fine, coarse, hires = (replace(slide_of(picture(), um_per_px=um), name=name) for name, um in sizes.items())
    views = [View(40, 40, "um"), View(80, 20, "um")]
    first = r"^Your image has 4\.74 µm/px and the model wants 1: no nuclei are visible\. "
    with pytest.warns(UserWarning, match=first + r"Use the full-resolution image of 'hires'\.$") as told:
        warn_of_enlarging([fine, hires, fine], views)
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"^Your images have up to 4\.74 µm/px.* of 'coarse', 'hires'\.$") as told:
        warn_of_enlarging([coarse, hires], views)
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"^Your image has 2 µm/px and the model wants 1: nuclei are blurred\. "):
        warn_of_enlarging([coarse], views)
    warn_of_enlarging([fine], views)  # a warning would be an error
    warn_of_enlarging([coarse], [View(79, 39, "um")])


def counted(level: np.ndarray, chunks: int, seen: list) -> da.Array:
    def look(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        seen.append(block_info[0]["chunk-location"])
        return block

    return da.from_array(level, chunks=(3, chunks, chunks)).map_blocks(look, meta=np.empty((0, 0, 0), np.uint8))


def test_only_chunks_under_the_tiles_are_read_and_each_once_for_all_views():
    seen: list = []
    slide = slide_of(picture(640, 640))
    slide = replace(slide, image=Image("image", (counted(picture(640, 640), 64, seen),), (1.0,)))
    seen.clear()
    xy = np.array([[100.0, 100.0], [110.0, 130.0], [600.0, 40.0]])
    read_views(slide, xy, [View(60, 30, "um"), View(20, 20, "um"), View(30, 15, "um")])
    expected = {(0, 1, 1), (0, 1, 2), (0, 2, 1), (0, 2, 2), (0, 0, 8), (0, 0, 9), (0, 1, 8), (0, 1, 9)}
    assert len(seen) == len(set(seen))
    assert set(seen) <= expected
    assert {(0, 1, 1), (0, 0, 9)} <= set(seen)


def test_nothing_is_read_before_a_tile_is_asked_for():
    seen: list = []
    level = counted(picture(), 64, seen)
    seen.clear()
    replace(slide_of(picture()), image=Image("image", (level,), (1.0,)))
    assert seen == []


def test_a_view_is_cut_from_the_coarsest_level_with_enough_pixels():
    fine, half, quarter = (np.full((3, 400 // f, 400 // f), f, np.uint8) for f in (1, 2, 4))
    slide = slide_of(fine, half, quarter)
    xy = np.array([[200.0, 200.0]])
    values = [read_views(slide, xy, [View(extent, 20, "um")])[0].max() for extent in (20, 39, 40, 79, 80, 200)]
    assert values == [1, 1, 2, 2, 4, 4]


def test_views_in_spacings_mean_the_spacing_of_the_training_slides():
    slide = slide_of(picture())
    xy = points(5, slide)
    by_spacing = read_views(slide, xy, [View(3, 30)])
    by_um = read_views(slide, xy, [View(30, 30, "um")])
    wider = read_views(slide, xy, [View(3, 30)], spacing_um=20.0)
    np.testing.assert_array_equal(by_spacing, by_um)
    np.testing.assert_array_equal(wider, read_views(slide, xy, [View(60, 30, "um")]))


def test_the_same_tissue_at_twice_the_resolution_gives_the_same_tiles():
    whole = picture(300, 300)
    double = np.repeat(np.repeat(whole, 2, axis=1), 2, axis=2)
    slide, finer = slide_of(whole), slide_of(double, um_per_px=0.5)
    xy = points(30, slide).round()
    for view in (View(60, 30, "um"), View(60, 60, "um")):
        tiles, same = read_views(slide, xy, [view]), read_views(finer, 2 * xy, [view])
        np.testing.assert_allclose(same[0].astype(float), tiles[0], atol=1)


def test_tiles_do_not_depend_on_which_others_are_cut():
    slide = slide_of(picture())
    xy = points(30, slide)
    (every,), (some,) = read_views(slide, xy, [View(45, 20, "um")]), read_views(slide, xy[::3], [View(45, 20, "um")])
    np.testing.assert_array_equal(some, every[::3])


def test_windows_are_padded_slices_of_a_level():
    whole = picture()
    origins = np.array([[-5, -7], [100, 30], [180, 200]])
    windows = read_windows(slide_of(whole).image, 0, origins, 24)
    np.testing.assert_array_equal(windows, [padded_slice(whole, o + 12, 24) for o in origins])


def test_windows_beside_the_image_are_its_outermost_pixels():
    whole = picture()
    origins = np.array([[-60, 20], [400, 250], [30, -100], [-24, -24], [190, 210]])
    for window, (x, y) in zip(read_windows(slide_of(whole).image, 0, origins, 24), origins, strict=True):
        rows, columns = np.arange(y, y + 24).clip(0, 209), np.arange(x, x + 24).clip(0, 189)
        np.testing.assert_array_equal(window, whole[:, rows[:, None], columns])


def test_no_points_give_empty_batches():
    (tiles,) = read_views(slide_of(picture()), np.empty((0, 2)), [View(40, 20, "um")])
    assert tiles.shape == (0, 3, 20, 20)


@pytest.mark.parametrize(
    "wrong", [{"extent": 0, "px": 5}, {"extent": 1, "px": 0}, {"extent": 1, "px": 5, "unit": "px"}]
)
def test_a_view_that_makes_no_sense_is_refused(wrong: dict):
    with pytest.raises(ValueError, match="extent and px of a view must be positive"):
        View(**wrong)
