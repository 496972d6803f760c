"""Sharpness, saturation and hue of a slide: the same at any resolution, and what they are warned of."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import h2e
from h2e._sdata.images import open_image
from h2e._sdata.keys import Keys
from h2e._sdata.masks import with_tissue
from h2e._sdata.slides import open_slides
from h2e._slide.image import Image, read_coarse
from h2e._slide.quality import (
    FEW,
    HUES,
    MADS,
    TOLERANCES,
    TURN,
    Quality,
    measure_quality,
    odd_ones,
    sharpness_of,
    unlike_he,
    warn_of_colours,
)
from h2e._slide.tissue import Tissue, density_against_glass, tissue_mask

UM = 6.25


@pytest.fixture(scope="module")
def slide(cohort_source) -> tuple[Image, Tissue]:
    """A slide of the synthetic cohort, and its mask."""
    image = open_image(cohort_source, "toy_A1_image")
    return image, tissue_mask(image, um_per_px=UM)


def with_pixels(image: Image, change) -> Image:
    """The same image of one level, changed."""
    return replace(image, levels=(da.from_array(change(image.levels[0].compute())),), scales=(1.0,))


def test_an_image_of_twice_the_resolution_has_the_same_figures(slide):
    image, (mask, scale) = slide
    finer = with_pixels(image, lambda pixels: pixels.repeat(2, axis=1).repeat(2, axis=2))
    before, after = measure_quality(image, (mask, scale), UM), measure_quality(finer, (mask, 2 * scale), UM / 2)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_pixels_of_any_size_are_equally_sharp():
    fine = gaussian_filter(np.random.default_rng(0).normal(size=(480, 480)), 4.0)
    seen = [fine.reshape(480 // px, px, 480 // px, px).mean(axis=(1, 3)) for px in (2, 4)]
    one, other = (sharpness_of(d, np.ones(d.shape, bool), px) for d, px in zip(seen, (2.0, 4.0), strict=True))
    assert one == pytest.approx(other, abs=0.015)


def test_what_is_around_the_tissue_is_blurred_into_it_as_far_as_a_blur_goes(slide):
    image, (mask, scale) = slide
    x, y = (np.argwhere(mask).mean(axis=0) * scale).astype(int)[::-1]
    part = np.zeros(image.shape, bool)
    part[y - 10 : y + 10, x - 10 : x + 10] = True
    rgb, _ = read_coarse(image, 1.0)
    density = np.mean(density_against_glass(rgb, np.zeros(image.shape, bool)), axis=0)
    expected = sharpness_of(density, part, UM)
    assert measure_quality(image, (part, 1.0), UM).sharpness == pytest.approx(expected, abs=1e-6)


def test_tissue_of_one_density_has_no_dense_part():
    rgb = np.full((3, 60, 60), 240.0)
    rgb[:, 10:50, 10:50] = np.array([200.0, 120.0, 180.0])[:, None, None]
    rgb[1] += np.random.default_rng(0).integers(-1, 2, (60, 60))
    image = Image("flat", (da.from_array(rgb.astype(np.uint8)),), (1.0,))
    quality = measure_quality(image, (rgb[2] < 200, 1.0), UM)
    assert quality.hue == pytest.approx(315, abs=15)
    assert np.isnan(quality.turn)


def test_a_blur_takes_away_sharpness_and_no_colour(slide):
    image, tissue = slide
    blurred = with_pixels(image, lambda pixels: gaussian_filter(pixels, (0, 1.5, 1.5)))
    before, after = measure_quality(image, tissue, UM), measure_quality(blurred, tissue, UM)
    assert after.sharpness < before.sharpness - 0.3
    assert after.hue == pytest.approx(before.hue, abs=2)
    assert after.saturation == pytest.approx(before.saturation, abs=0.03)


def test_a_paler_stain_is_less_saturated_and_has_the_same_hue(slide):
    image, tissue = slide
    pale = with_pixels(image, lambda pixels: (255 * (pixels / 255.0) ** 0.4).round().astype(np.uint8))
    before, after = measure_quality(image, tissue, UM), measure_quality(pale, tissue, UM)
    assert after.saturation < 0.6 * before.saturation
    assert after.hue == pytest.approx(before.hue, abs=3)


def test_exchanging_red_and_blue_turns_every_hue_around(slide):
    image, tissue = slide
    before = measure_quality(image, tissue, UM)
    after = measure_quality(with_pixels(image, lambda pixels: pixels[::-1]), tissue, UM)
    assert after.turn == pytest.approx(-before.turn, abs=0.1)
    assert after.hue == pytest.approx((240 - before.hue) % 360, abs=0.1)
    assert before.turn < -TURN
    assert unlike_he(before) == ""
    assert "redder" in unlike_he(after)


@pytest.mark.parametrize("hue", [33.0, 120.0, 200.0, 352.0])
def test_hues_of_other_stains_are_told(hue: float):
    assert f"{hue:.0f}°" in unlike_he(Quality(hue=hue, turn=0.0))
    assert all(unlike_he(Quality(hue=usual, turn=0.0)) == "" for usual in (*HUES, 290.0, np.nan))


def test_one_warning_names_all_slides_concerned():
    figures = {"brown": Quality(hue=33.0, turn=0.0), "fine": Quality(hue=280.0, turn=-9.0), "bgr": Quality(turn=9.0)}
    with pytest.warns(UserWarning, match="brown: its tissue has the hue 33°; bgr: its dense") as told:
        warn_of_colours(figures)
    assert len(told) == 1
    assert "fine" not in str(told[0].message)


def test_what_is_not_known_is_nan(slide):
    image, (mask, scale) = slide
    assert np.isnan(measure_quality(image, (mask, scale), None).sharpness)
    assert np.isnan(measure_quality(image, (mask, scale), 9.0).sharpness)
    assert np.isfinite(measure_quality(image, (mask, scale), None).hue)
    few = np.zeros_like(mask)
    few[0, : FEW - 1] = True
    assert np.isnan(measure_quality(image, (few, scale), UM)).all()
    gray = with_pixels(image, lambda pixels: np.broadcast_to(pixels.mean(axis=0), pixels.shape).astype(np.uint8))
    assert measure_quality(gray, (mask, scale), UM).saturation == 0
    assert unlike_he(measure_quality(gray, (mask, scale), UM)) == ""


def test_an_outlier_is_told_by_the_spread_of_the_others_and_of_few_slides_none():
    tolerance = TOLERANCES["sharpness"]
    near = np.array([0.0, 0.1, -0.1, 0.05, 0.9 * tolerance])
    assert not odd_ones(near, tolerance).any()
    near[-1] = 1.2 * tolerance
    assert odd_ones(near, tolerance).tolist() == [False] * 4 + [True]
    assert not odd_ones(near[1:], tolerance).any()
    # Where slides differ much, more is needed.
    assert not odd_ones(MADS * near, tolerance / MADS)[:4].any()
    wide = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 2.5])
    assert not odd_ones(wide, tolerance).any()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["her2st", "mob", "visium_mini"])
def test_real_slides_are_those_of_an_he_and_with_red_and_blue_exchanged_they_are_not(name: str):
    sdata = getattr(h2e.datasets, name)()
    for slide in with_tissue(sdata, open_slides(sdata, Keys())):
        figures = measure_quality(slide.image, slide.tissue, slide.um_per_px)
        exchanged = replace(slide.image, levels=tuple(level[::-1] for level in slide.image.levels))
        assert unlike_he(figures) == "", slide.name
        assert unlike_he(measure_quality(exchanged, slide.tissue, slide.um_per_px)), slide.name
