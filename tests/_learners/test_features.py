"""Texture features are what they are called, for every tile by itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from skimage.color import separate_stains
from skimage.feature import structure_tensor

from h2e._learners.texture_features import QUANTILES, STAIN_NAMES, STAINS, feature_names, stain_maps, texture_features


@pytest.fixture(scope="module")
def tiles():
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 256, (20, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
    return (coarse + rng.integers(-20, 20, coarse.shape)).clip(0, 255).astype(np.uint8)


def named(tiles):
    return dict(zip(feature_names(tiles.shape[-1]), texture_features(tiles).T, strict=True))


def test_colour_statistics_equal_those_of_numpy(tiles):
    features = named(tiles)
    for channel, name in enumerate(("red", "green", "blue")):
        pixels = tiles[:, channel].reshape(len(tiles), -1) / 255
        np.testing.assert_allclose(features[f"{name} mean"], pixels.mean(1), rtol=1e-5)
        np.testing.assert_allclose(features[f"{name} sd"], pixels.std(1), rtol=1e-4)
        for q in (5, 25, 50, 75, 95):
            expected = np.quantile(pixels, q / 100, axis=1, method="nearest")
            np.testing.assert_allclose(features[f"{name} q{q:02d}"], expected, atol=1.01 / 255)


def test_quantiles_of_stains_are_those_of_sorting_also_of_few_values_and_beside_one_far_away(tiles):
    few, far = (tiles[:3] // 90) * 90, np.full_like(tiles[:3], 230)
    far[:, :, 5, 5] = 41
    for some in (tiles, few, far, far[:, :, 5:6, 5:6]):
        values, features = np.sort(stain_maps(some).reshape(len(some), 3, -1)), named(some)
        for stain, q in product(range(3), QUANTILES):
            expected = values[:, stain, round(q * (values.shape[-1] - 1))]
            np.testing.assert_array_equal(features[f"{STAIN_NAMES[stain]} q{100 * q:02.0f}"], expected)


def test_stain_maps_equal_unmixing_by_least_squares(tiles):
    basis = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    density = -np.log((tiles[0].reshape(3, -1) + 1.0) / 256)
    expected = np.linalg.lstsq(basis.T, density, rcond=None)[0]
    np.testing.assert_allclose(stain_maps(tiles)[0].reshape(3, -1), expected, atol=1e-4)


def test_stain_maps_are_those_of_scikit_image_up_to_scale(tiles):
    ours = stain_maps(tiles)[0]
    matrix = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True))
    theirs = separate_stains(tiles[0].transpose(1, 2, 0), matrix)
    for stain in range(3):
        positive = theirs[..., stain] > 0.02  # scikit-image clips negative concentrations
        assert np.corrcoef(ours[stain][positive], theirs[..., stain][positive])[0, 1] > 0.999


def test_a_pure_stain_is_only_that_stain():
    basis = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    for stain in range(3):
        rgb = (256 * np.exp(-0.8 * basis[stain]) - 1).round().astype(np.uint8)
        maps = stain_maps(np.broadcast_to(rgb[None, :, None, None], (1, 3, 2, 2)))
        np.testing.assert_allclose(maps[0, :, 0, 0], 0.8 * np.eye(3)[stain], atol=0.02)


def test_coherence_equals_the_structure_tensor_of_scikit_image():
    y, x = np.mgrid[:64, :64]
    tile = np.broadcast_to(128 + 60 * np.sin(x / 3 + y / 5), (3, 64, 64)).round().astype(np.uint8)
    image = stain_maps(tile[None])[0, 0].astype(float)
    rr, rc, cc = (t[2:-2, 2:-2] for t in structure_tensor(np.pad(image, 0), sigma=1e-3))
    expected = np.hypot(rr.mean() - cc.mean(), 2 * rc.mean()) / (rr.mean() + cc.mean())
    assert named(tile[None])["haematoxylin octave 0 coherence"][0] == pytest.approx(expected, abs=0.02)
    assert expected > 0.8


def test_the_octave_of_a_grating_tells_its_scale():
    x = np.arange(128)
    strongest = []
    for period in (3, 6, 12, 24):
        tile = np.broadcast_to(150 + 50 * np.sin(2 * np.pi * x / period), (1, 3, 128, 128)).round().astype(np.uint8)
        features = named(tile)
        strongest.append(np.argmax([features[f"eosin octave {k} blob sd"][0] for k in range(4)]))
    assert strongest == [0, 1, 2, 3]


def test_dark_nuclei_skew_the_haematoxylin_band_upwards():
    tile = np.full((1, 3, 64, 64), 220, np.uint8)
    tile[:, :, ::16, ::16] = tile[:, :, 1::16, ::16] = 90
    assert named(tile)["haematoxylin octave 0 blob skew"][0] > 1
    assert named(255 - tile + 60)["haematoxylin octave 0 blob skew"][0] < -1


def test_features_do_not_depend_on_the_batch(tiles):
    together = texture_features(tiles)
    np.testing.assert_array_equal(texture_features(tiles[::-1])[::-1], together)
    np.testing.assert_array_equal(texture_features(tiles[7:8]), together[7:8])


@pytest.mark.parametrize("turn", [lambda t: t[..., ::-1], lambda t: np.rot90(t, axes=(2, 3))], ids=["flip", "turn"])
def test_features_do_not_depend_on_orientation(tiles, turn):
    turned = texture_features(np.ascontiguousarray(turn(tiles)))
    np.testing.assert_allclose(turned, texture_features(tiles), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("px", [4, 16, 33, 78])
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_tiles_have_finite_features(px, value):
    features = texture_features(np.full((2, 3, px, px), value, np.uint8))
    assert np.isfinite(features).all()
    assert features.shape == (2, len(feature_names(px)))
    assert features.dtype == np.float32


def test_a_cut_out_on_black_looks_like_one_on_white(tiles):
    black, white = tiles.copy(), tiles.copy()
    black[..., :20], white[..., :20] = 0, 255
    np.testing.assert_array_equal(texture_features(black), texture_features(white))


def test_noise_is_finite_and_no_tiles_give_no_rows():
    noise = np.random.default_rng(1).integers(0, 256, (3, 3, 31, 31), dtype=np.uint8)
    assert np.isfinite(texture_features(noise)).all()
    assert texture_features(noise[:0]).shape == (0, len(feature_names(31)))


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 4, 8, 8), np.uint8), np.zeros((1, 3, 8, 9), np.uint8), np.zeros((1, 3, 8, 8))]
)
def test_what_is_no_batch_of_tiles_is_refused(bad):
    with pytest.raises(ValueError, match=r"uint8 of shape \(n, 3, p, p\)"):
        texture_features(bad)
