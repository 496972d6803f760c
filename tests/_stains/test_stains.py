"""Laws of stain normalization."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale, get_transformation

from h2e._sdata.images import open_image
from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._stains.estimation import density, estimate_stains, macenko_vectors, sparse_codes, stained, vahadane_vectors
from h2e._stains.kernels import boxes_of, map_density, map_lab
from h2e._stains.maps import map_block, settings_of, shrink_to_reference
from h2e._stains.slides import as_reference, fit_reference, normalize_image, sample_tissue, slide_stains
from h2e._stains.spaces import to_lab, to_rgb
from h2e.pl import stains as plot_stains
from h2e.pp import StainReference, fit_stain_reference, normalize_stains

METHODS = ["macenko", "vahadane", "reinhard"]
HE = np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]])
HE /= np.linalg.norm(HE, axis=1, keepdims=True)


def painted(shape: tuple[int, int], stains: np.ndarray = HE, amounts: tuple = (1.0, 0.8), seed: int = 0) -> np.ndarray:
    """Paint tissue (3, y, x) with known stains, smooth domains and noisy nuclei."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    nuclei = random.gamma(1.0, 0.6, shape) * (1 + np.sin(x / 37))
    fibres = random.gamma(2.0, 0.35, shape) * (1 + np.cos(y / 23))
    od = np.stack([nuclei * amounts[0], fibres * amounts[1]], -1) @ stains
    return np.clip(np.round(240 * np.exp(-od) - 1), 0, 255).astype(np.uint8).transpose(2, 0, 1)


def slide(shape: tuple[int, int] = (300, 340), **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    """Put tissue on glass: pixels (3, y, x) and the mask."""
    pixels = np.full((3, *shape), 245, np.uint8)
    mask = np.zeros(shape, bool)
    mask[30:-30, 40:-20] = True
    pixels[:, mask] = painted(shape, **kwargs)[:, mask]
    return pixels, mask


def pyramid(pixels: np.ndarray, n_levels: int = 3, chunk: int = 128) -> Image:
    """Make a lazy pyramid by thinning, so that every level holds pixels of the first."""
    arrays = [pixels[:, :: 2**i, :: 2**i] for i in range(n_levels)]
    levels = tuple(da.from_array(np.ascontiguousarray(a), chunks=(3, chunk, chunk)) for a in arrays)
    return Image("he", levels, tuple(2.0**i for i in range(n_levels)))


def random_stains(random: np.random.Generator) -> np.ndarray:
    """Draw two plausible stain vectors."""
    stains = HE + random.normal(0, 0.04, (2, 3))
    return stains / np.linalg.norm(stains, axis=1, keepdims=True)


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between the rows."""
    return np.degrees(np.arccos(np.clip((np.asarray(a) * np.asarray(b)).sum(axis=1), -1, 1)))


def bare(image: Image, mask: np.ndarray, *, key: object = "slide") -> Slide:
    """A slide without spots whose tissue is known pixel by pixel."""
    image = replace(image, key=str(key))
    return replace(Slide.without_spots(image, None, "nothing tells it"), tissue=(mask, 1.0))


# --- law 4 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(6))
def test_a_slide_normalized_with_its_own_reference_changes_by_rounding_only(method: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels, mask = slide(stains=random_stains(random), amounts=tuple(random.uniform(0.5, 1.5, 2)), seed=seed)
    image = pyramid(pixels)
    reference = fit_reference([bare(image, mask)], method=method)
    result = normalize_image(image, (mask, 1.0), reference, um_per_px=None).levels[0].compute().astype(int)
    assert np.abs(result - pixels)[:, mask].max() <= 1
    assert (result == pixels)[:, ~mask].all()
    if method != "reinhard":
        assert (result == pixels).all()


@pytest.mark.parametrize("method", METHODS)
def test_masked_background_is_untouched_and_tissue_is_not(method: str) -> None:
    pixels, mask = slide()
    pixels[:, :20] = 130  # grey glass and a black border, both outside of the mask
    pixels[:, -10:] = 0
    other = pyramid(slide(stains=random_stains(np.random.default_rng(3)), amounts=(0.6, 1.3))[0])
    reference = fit_reference([bare(other, mask)], method=method)
    result = normalize_image(pyramid(pixels), (mask, 1.0), reference, um_per_px=None).levels[0].compute()
    assert (result == pixels)[:, ~mask].all()
    assert (result != pixels)[:, mask].mean() > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_pale_and_black_pixels_inside_of_the_mask_stay_and_the_change_fades_in(method: str) -> None:
    one, other = (
        estimate_stains(painted((200, 200), amounts=a, seed=s).reshape(3, -1).T, method)
        for s, a in ((0, (1, 1)), (1, (2, 0.5)))
    )
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, None], 3, axis=0)
    change = np.abs(map_block(grey, settings_of(one, other)).astype(int) - grey)[:, 0].max(axis=0)
    assert (change[207:] == 0).all()  # OD of 208 is 0.14
    assert (change[:17] == 0).all()
    assert change[100] > 3
    assert np.abs(np.diff(change)).max() <= 12  # no edge


# --- agreement with others -------------------------------------------------------------------------------------------


def test_macenko_agrees_with_torchstain() -> None:
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    target, source = (
        painted((256, 256), seed=s, amounts=a).transpose(1, 2, 0) for s, a in ((0, (1, 1)), (1, (0.7, 1.4)))
    )
    theirs = NumpyMacenkoNormalizer()
    theirs.fit(target)
    ours = estimate_stains(target.reshape(-1, 3), robust=False)
    np.testing.assert_allclose(ours.stains, theirs.HERef.T, atol=1e-5)
    np.testing.assert_allclose(ours.concentrations, theirs.maxCRef, rtol=1e-4)
    wanted = theirs.normalize(source)[0].astype(int)
    own = estimate_stains(source.reshape(-1, 3), robust=False)
    settings = settings_of(own, ours, keep_residual=False, beta=0)
    result = map_block(source.transpose(2, 0, 1), settings).transpose(1, 2, 0).astype(int)
    # they leave out the − 1 that undoes their + 1, and truncate instead of rounding: 0 or 1 level more
    assert np.abs(wanted - result).max() <= 1
    assert (wanted >= result).all()


def test_reinhard_agrees_with_torchstain() -> None:
    from torchstain.numpy.normalizers import NumpyReinhardNormalizer

    target, source = (
        painted((256, 256), seed=s, amounts=a).transpose(1, 2, 0) for s, a in ((0, (1, 1)), (1, (0.7, 1.4)))
    )
    theirs = NumpyReinhardNormalizer()
    theirs.fit(target)
    wanted = theirs.normalize(source).astype(int)
    own, ours = (estimate_stains(p.reshape(-1, 3), "reinhard", robust=False) for p in (source, target))
    result = map_block(source.transpose(2, 0, 1), settings_of(own, ours, beta=0)).transpose(1, 2, 0).astype(int)
    difference = result - wanted  # they truncate
    assert np.abs(difference).max() <= 2
    assert 0.3 < difference.mean() < 0.7


def real_patch(monkeypatch: pytest.MonkeyPatch, where: str, left: int, top: int) -> np.ndarray:
    """A window full of tissue of a real section, (512, 512, 3)."""
    from PIL import Image as Picture

    monkeypatch.setattr(Picture, "MAX_IMAGE_PIXELS", None)  # a section is larger than what Pillow finds harmless
    (file,) = (Path(os.environ["H2E_DATA"]) / "her2st").glob(where)
    with Picture.open(file) as picture:
        return np.asarray(picture.convert("RGB").crop((left, top, left + 512, top + 512)))


@pytest.mark.real_data
@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_real_patches_agree_with_torchstain(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchstain.numpy import normalizers

    target = real_patch(monkeypatch, "data/ST-imgs/C/C2/*.jpg", 5000, 5000)
    source = real_patch(monkeypatch, "data/ST-imgs/B/B4/*.jpg", 5000, 6300)
    theirs = getattr(normalizers, f"Numpy{method.title()}Normalizer")()
    theirs.fit(target)
    own, ours = (estimate_stains(p.reshape(-1, 3), method, robust=False) for p in (source, target))
    wanted = theirs.normalize(source)
    wanted = np.asarray(wanted[0] if method == "macenko" else wanted).astype(int)
    settings = settings_of(own, ours, keep_residual=False, beta=0)
    result = map_block(source.transpose(2, 0, 1), settings).transpose(1, 2, 0).astype(int)
    assert np.abs(source.astype(int) - result).mean() > 3  # there was something to do
    difference = np.abs(wanted - result)
    inside = ((result > 0) & (result < 255)).all(axis=2)  # colours that a screen has
    assert inside.mean() > 0.9
    assert difference[inside].max() <= 1  # they truncate
    assert (difference > 2).any(axis=2).mean() < 0.01  # black dust, which Reinhard makes blacker than black


def test_lab_agrees_with_scikit_image() -> None:
    from skimage.color import rgb2lab

    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3), dtype=np.uint8)
    np.testing.assert_allclose(to_lab(pixels), rgb2lab(pixels[None] / 255)[0], atol=2e-3)
    for space in ("cielab", "ruderman"):
        np.testing.assert_allclose(to_rgb(to_lab(pixels, space), space), pixels, atol=2e-2)


def test_ruderman_is_the_space_of_the_paper() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    red, green, blue = pixels.T.astype(float)
    # Reinhard et al. 2001: responses of the cones, and three axes that are not correlated in natural scenes.
    long = np.log1p(0.3811 * red + 0.5783 * green + 0.0402 * blue)
    middle = np.log1p(0.1967 * red + 0.7244 * green + 0.0782 * blue)
    short = np.log1p(0.0241 * red + 0.1288 * green + 0.8444 * blue)
    axes = ((long + middle + short) / 3**0.5, (long + middle - 2 * short) / 6**0.5, (long - middle) / 2**0.5)
    np.testing.assert_allclose(to_lab(pixels, "ruderman"), np.column_stack(axes), atol=1e-9)


def test_concentrations_agree_with_scikit_image() -> None:
    from skimage.color import hed_from_rgb, rgb_from_hed, separate_stains

    stains = rgb_from_hed[:2] / np.linalg.norm(rgb_from_hed[:2], axis=1, keepdims=True)
    third = np.cross(*stains)
    matrix = np.vstack([stains, third / np.linalg.norm(third)])
    reference = StainReference("macenko", stains=stains)
    np.testing.assert_allclose(reference.matrix, matrix, atol=1e-5)
    pixels = painted((40, 40)).transpose(1, 2, 0)
    theirs = separate_stains((pixels + 1.0) / 240, np.linalg.inv(reference.matrix))
    # they take a logarithm to base 1e6 and clip what is negative
    ours = np.maximum(density(pixels) @ np.linalg.inv(reference.matrix), 0)
    np.testing.assert_allclose(theirs * -np.log(1e-6), ours, atol=1e-6)
    assert hed_from_rgb.shape == (3, 3)


def test_the_tables_are_the_formula() -> None:
    random = np.random.default_rng(0)
    block = random.integers(60, 190, (3, 50, 60), dtype=np.uint8)
    own = StainReference("macenko", stains=random_stains(random), concentrations=(1.0, 0.8))
    to = StainReference("macenko", stains=random_stains(random), concentrations=(1.2, 0.7))
    amounts = density(block.transpose(1, 2, 0)) @ np.linalg.inv(own.matrix)
    amounts[..., :2] *= np.array(to.concentrations) / own.concentrations
    for keep in (True, False):
        amounts[..., 2] *= keep
        wanted = np.clip(np.floor(240 * np.exp(-amounts @ to.matrix) - 0.5), 0, 255)
        result = map_block(block, settings_of(own, to, keep_residual=keep, beta=0)).transpose(1, 2, 0)
        assert np.abs(result - wanted).max() <= 1
        assert (result == wanted).mean() > 0.999


def test_compiled_kernels_do_what_the_python_does() -> None:
    block = painted((24, 30))
    boxes = np.array([[0, 24, 0, 30]])
    for method, kernel in (("macenko", map_density), ("reinhard", map_lab)):
        one, other = (estimate_stains(painted((90, 90), seed=s).reshape(3, -1).T, method) for s in (0, 1))
        settings = settings_of(one, replace(other, concentrations=(2.0, 0.9)) if method == "macenko" else other)
        plain = block.copy()
        kernel(block, plain, boxes, settings[1])
        assert np.abs(plain.astype(int) - map_block(block, settings)).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_result_does_not_depend_on_how_a_slide_is_cut_into_chunks(method: str) -> None:
    pixels, mask = slide((257, 301))
    reference = fit_reference([bare(pyramid(slide(seed=4, amounts=(1.5, 0.5))[0]), slide()[1])], method=method)
    whole, cut = (
        normalize_image(pyramid(pixels, 1, chunk), (mask, 1.0), reference, um_per_px=None).levels[0].compute()
        for chunk in (400, 37)
    )
    assert np.array_equal(whole, cut)


# --- estimation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_planted_stains_are_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    planted = random_stains(random)
    codes = random.gamma(1.0, 0.7, (20_000, 2)) * (random.random((20_000, 2)) < 0.7)  # many pixels of one stain only
    od = codes @ planted
    od = od[od.sum(axis=1) > 0.3]
    assert degrees(macenko_vectors(od), planted).max() < 1
    assert degrees(vahadane_vectors(od, macenko_vectors(od, 10.0), sparsity=0.01), planted).max() < 2.5


def test_sparse_codes_agree_with_scikit_learn() -> None:
    from sklearn.decomposition import SparseCoder

    od = density(painted((30, 30)).reshape(3, -1).T)
    coder = SparseCoder(
        HE, transform_algorithm="lasso_cd", transform_alpha=0.1, positive_code=True, transform_max_iter=5000
    )
    np.testing.assert_allclose(sparse_codes(od, HE, 0.1), coder.transform(od), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "dirt",
    [(20, 60, 200), (10, 90, 40), (5, 5, 5), (150, 20, 15), (110, 60, 20)],
    ids=["blue", "green", "black", "blood", "brown"],
)
def test_pen_blood_and_borders_hardly_move_the_estimate(method: str, dirt: tuple[int, int, int]) -> None:
    tissue = painted((200, 200)).reshape(3, -1).T
    mess = np.random.default_rng(0).normal(dirt, 3, (8_000, 3)).clip(0, 255).astype(np.uint8)
    clean, dirty = estimate_stains(tissue, method), estimate_stains(np.vstack([tissue, mess]), method)
    plain = estimate_stains(np.vstack([tissue, mess]), method, robust=False)
    clean_plain = estimate_stains(tissue, method, robust=False)
    if method == "reinhard":
        assert np.abs(np.subtract(clean.mean, dirty.mean)).max() < 3
        assert np.abs(np.subtract(clean_plain.mean, plain.mean)).max() > 3
    else:
        assert degrees(clean.stains, dirty.stains).max() < 4
        assert np.allclose(clean.concentrations, dirty.concentrations, rtol=0.2)


def test_haematoxylin_and_eosin_of_any_usual_tint_count_as_stained() -> None:
    for amount in (0.4, 1.0, 2.0):
        for vector in ([0.75, 0.58, 0.32], [0.65, 0.70, 0.29], [0.35, 0.83, 0.44], [0.07, 0.99, 0.11]):
            assert stained(np.array([vector]) * amount).all(), (vector, amount)


def test_a_slide_with_little_evidence_is_drawn_towards_the_reference() -> None:
    reference = StainReference("macenko", stains=HE, concentrations=(2.0, 1.0), n_pixels=100_000)
    odd = random_stains(np.random.default_rng(5))
    found = [
        degrees(
            shrink_to_reference(
                StainReference("macenko", stains=odd, concentrations=(4.0, 3.0), n_pixels=n), reference
            ).stains,
            HE,
        )
        for n in (300, 2_000, 50_000)
    ]
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()
    np.testing.assert_allclose(found[2], degrees(odd, HE), atol=1e-3)
    far = StainReference("macenko", stains=((0.1, 0.2, 0.97), (0.9, 0.3, 0.3)), concentrations=(1, 1), n_pixels=100_000)
    assert degrees(shrink_to_reference(far, reference).stains, HE).max() < 21


def test_every_slide_has_the_same_weight() -> None:
    big, small = slide((600, 700), seed=1), slide((200, 260), seed=2, amounts=(2.0, 0.4))
    images = [pyramid(pixels, 1) for pixels, _ in (big, small)]
    tissues = [(mask, 1.0) for _, mask in (big, small)]
    own = [
        slide_stains(i, t, StainReference("reinhard", mean=(0,) * 3, std=(1,) * 3, space="cielab"))
        for i, t in zip(images, tissues, strict=True)
    ]
    pooled = fit_reference(
        [bare(image, mask, key=i) for i, (image, (mask, _)) in enumerate(zip(images, tissues, strict=True))],
        method="reinhard",
    )
    np.testing.assert_allclose(pooled.mean, np.mean([o.mean for o in own], axis=0), atol=0.6)


# --- sampling and laziness -------------------------------------------------------------------------------------------


def counting(pixels: np.ndarray, reads: list, chunk: int = 100) -> da.Array:
    """An array that notes which chunks are read."""

    def read(block_info: dict | None = None) -> np.ndarray:
        (_, _), (y0, y1), (x0, x1) = block_info[None]["array-location"]
        reads.append((y0, x0))
        return pixels[:, y0:y1, x0:x1]

    size = [(min(chunk, n - at) for at in range(0, n, chunk)) for n in pixels.shape[1:]]
    return da.map_blocks(read, chunks=((3,), *map(tuple, size)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))


def test_only_the_sampled_patches_are_read_until_the_result_is() -> None:
    pixels, mask = slide((1000, 1200))
    reads: list[tuple[int, int]] = []
    image = Image("he", (counting(pixels, reads),), (1.0,))
    reference = StainReference("macenko", stains=HE, concentrations=(2, 1), n_patches=3, patch_px=100)
    result = normalize_image(image, (mask, 1.0), reference, um_per_px=None)
    assert len(reads) == 3
    reads.clear()
    result.levels[0][:, 150:180, 320:350].compute(scheduler="synchronous")
    assert reads == [(100, 300)]


def test_the_sample_is_tissue_and_follows_the_seed() -> None:
    pixels, mask = slide((600, 700))
    image = pyramid(pixels)
    samples = [
        sample_tissue(image, (mask[::4, ::4], 4.0), um_per_px=2.0, n_patches=3, patch_px=64, seed=s) for s in (0, 0, 1)
    ]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    assert (samples[0].min(axis=1) < 245).mean() > 0.99


def test_tissue_smaller_than_a_patch_is_sampled() -> None:
    pixels, _ = slide((400, 400))
    mask = np.zeros((400, 400), bool)
    mask[100:130, 100:140] = True
    sample = sample_tissue(pyramid(pixels, 1), (mask, 1.0), um_per_px=None)
    assert sorted(map(tuple, sample)) == sorted(map(tuple, pixels[:, mask].T))


def test_all_levels_are_mapped_alike() -> None:
    pixels, mask = slide((320, 384))
    other = fit_reference([bare(pyramid(slide(seed=9, amounts=(1.6, 0.5))[0]), slide()[1])])
    result = normalize_image(pyramid(pixels), (mask, 1.0), other, um_per_px=None)
    fine = result.levels[0].compute()
    inner = np.s_[:, 20:60, 24:80]  # at the border of the mask a coarser pixel may fall on the other side
    for step, level in ((2, result.levels[1]), (4, result.levels[2])):
        thin = fine[:, ::step, ::step]
        assert np.array_equal(level.compute()[inner], thin[inner])
    assert [level.chunks for level in result.levels] == [level.chunks for level in pyramid(pixels).levels]


@pytest.mark.parametrize("ratio", [0.25, 1 / 3, 1.0, 2.0])
def test_boxes_cover_exactly_the_tissue(ratio: float) -> None:
    random = np.random.default_rng(0)
    mask = random.random((40, 50)) < 0.5
    height, width = 37, 41
    origin = (5, 7)
    rows = np.minimum(((origin[0] + np.arange(height) + 0.5) * ratio).astype(int), 39)
    columns = np.minimum(((origin[1] + np.arange(width) + 0.5) * ratio).astype(int), 49)
    count = np.zeros((height, width), int)
    for y0, y1, x0, x1 in boxes_of(mask, ratio, origin, (height, width)):
        count[y0:y1, x0:x1] += 1
    assert np.array_equal(count, mask[rows[:, None], columns].astype(int))


# --- SpatialData -----------------------------------------------------------------------------------------------------


def test_the_result_has_the_pyramid_transformations_chunks_and_channels_of_the_source(cohort: SpatialData) -> None:
    keys = sorted(cohort.images)
    normalize_stains(cohort)
    for key in keys:
        source, result = cohort.images[key], cohort.images[f"{key}_normalized"]
        assert list(source.children) == list(result.children)
        assert get_transformation(source, get_all=True) == get_transformation(result, get_all=True)
        for name in source.children:
            before, after = source[name]["image"], result[name]["image"]
            assert after.dtype == np.uint8
            assert after.data.chunks == before.data.chunks
            for axis in "cyx":
                assert np.array_equal(before[axis], after[axis])
    assert json.loads(json.dumps(cohort.attrs["h2e"])) == cohort.attrs["h2e"]


def test_single_scale_rgba_with_other_names_and_systems() -> None:
    pixels, _ = slide()
    rgba = np.concatenate([pixels, np.full_like(pixels[:1], 255)])
    systems = {"a": Identity(), "b": Scale([2.0, 2.0], axes=("x", "y"))}
    element = Image2DModel.parse(rgba, dims=("c", "y", "x"), c_coords=["r", "g", "b", "a"], transformations=systems)
    sdata = SpatialData(images={"he": element})
    normalize_stains(sdata, as_reference(painted((200, 200), amounts=(2, 1))), key_added="out")
    assert list(sdata.images["out"].c.to_numpy()) == ["r", "g", "b"]
    assert get_transformation(sdata.images["out"], get_all=True) == systems
    assert not hasattr(sdata.images["out"], "children")


def test_slides_come_closer(cohort: SpatialData) -> None:
    keys = sorted(cohort.images)
    for method in METHODS:
        normalize_stains(cohort, method=method)
        spread = []
        for suffix in ("", "_normalized"):
            colours = []
            for key in keys:
                pixels = open_image(cohort, key + suffix).levels[0].compute().reshape(3, -1).T
                colours.append(to_lab(pixels[stained(density(pixels))]).mean(axis=0))
            spread.append(np.sqrt(np.var(colours, axis=0).sum()))
        assert spread[1] < 0.85 * spread[0], (method, spread)


def test_ours_is_replaced_with_a_log_line_and_foreign_is_refused(
    cohort: SpatialData, caplog: pytest.LogCaptureFixture
) -> None:
    key = sorted(cohort.images)[0]
    with caplog.at_level(logging.INFO, logger="h2e"):
        normalize_stains(cohort, image_key=key)
        normalize_stains(cohort, image_key=key)
    assert "replaced" in caplog.text
    with pytest.raises(ValueError, match="one key"):
        normalize_stains(cohort, key_added="x")
    with pytest.raises(ValueError, match="image itself"):
        normalize_stains(cohort, image_key=key, key_added=key)
    cohort.images["mine"] = cohort.images[key]
    before = dict(cohort.attrs["h2e"]["stains"])
    with pytest.raises(ValueError, match="overwrite=True"):
        normalize_stains(cohort, image_key=key, key_added="mine")
    assert cohort.attrs["h2e"]["stains"] == before
    normalize_stains(cohort, image_key=key, key_added="mine", overwrite=True)


def test_same_seed_same_reference(cohort: SpatialData) -> None:
    assert fit_stain_reference(cohort, n_patches=2, patch_px=64) == fit_stain_reference(
        cohort, n_patches=2, patch_px=64
    )
    assert fit_stain_reference(cohort, n_patches=2, patch_px=64, seed=1) != fit_stain_reference(
        cohort, n_patches=2, patch_px=64
    )


@pytest.mark.parametrize("value", [255, 0])
def test_a_blank_slide_is_left_alone_and_gives_no_reference(value: int, caplog: pytest.LogCaptureFixture) -> None:
    blank = Image2DModel.parse(np.full((3, 300, 300), value, np.uint8), c_coords=["r", "g", "b"])
    sdata = SpatialData(images={"he": blank})
    with pytest.raises(ValueError, match="no stained tissue"):
        fit_stain_reference(sdata)
    normalize_stains(sdata, StainReference("macenko", stains=HE, concentrations=(1, 1)))
    assert "left as it is" in caplog.text
    assert (sdata.images["he_normalized"].to_numpy() == value).all()


def test_grey_and_float_images_are_refused() -> None:
    for pixels, names in ((np.zeros((1, 50, 50), np.uint8), ["grey"]), (np.zeros((3, 50, 50)), ["r", "g", "b"])):
        sdata = SpatialData(images={"he": Image2DModel.parse(pixels, c_coords=names)})
        with pytest.raises(ValueError, match="RGB"):
            normalize_stains(sdata)


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_reference_survives_json_and_prints(method: str) -> None:
    reference = estimate_stains(painted((100, 100)).reshape(3, -1).T, method)
    assert StainReference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference
    assert eval(repr(reference)) == reference
    assert hash(reference) == hash(StainReference.from_dict(reference.to_dict()))


def test_wrong_references_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        StainReference("hsv")
    with pytest.raises(ValueError, match="must have"):
        StainReference("macenko")
    with pytest.raises(ValueError, match="two different colours"):
        StainReference("macenko", stains=(HE[0], HE[0]))
    with pytest.raises(ValueError, match="entries"):
        StainReference.from_dict({"method": "macenko", "colour": 1})
    with pytest.raises(ValueError, match="must show stained tissue"):
        as_reference(np.full((50, 50, 3), 255, np.uint8))
    with pytest.raises(TypeError, match="8-bit RGB"):
        as_reference(np.zeros((50, 50)))
    with pytest.raises(ValueError, match="that of the reference"):
        as_reference(StainReference("macenko", stains=HE), "reinhard")


def test_an_image_may_be_the_reference_channel_first_or_last() -> None:
    pixels = painted((120, 120))
    assert as_reference(pixels) == as_reference(pixels.transpose(1, 2, 0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS)
def test_a_reference_of_squidpy_is_taken(method: str) -> None:
    from spatialdata.models import Labels2DModel
    from squidpy.experimental import im

    pixels, mask = slide()
    sdata = SpatialData(
        images={"he": Image2DModel.parse(pixels, c_coords=["r", "g", "b"])},
        labels={"he_tissue": Labels2DModel.parse(mask.astype(np.uint8), dims=("y", "x"))},
    )
    theirs = im.fit_stain_reference(sdata, "he", method=method)
    ours = as_reference(theirs)
    tissue = pixels[:, mask].T
    if method == "reinhard":
        lab = to_lab(tissue, "ruderman")
        np.testing.assert_allclose(lab.mean(axis=0), ours.mean, atol=1e-3)
        np.testing.assert_allclose(lab.std(axis=0), ours.std, atol=1e-3)
    else:
        amounts = density(tissue, 256) @ np.linalg.pinv(np.array(ours.stains))
        np.testing.assert_allclose(np.percentile(amounts, 99, axis=0), ours.concentrations, rtol=1e-3)
    normalize_stains(sdata, theirs)
    assert sdata.images["he_normalized"].to_numpy().shape == pixels.shape


# --- plot ------------------------------------------------------------------------------------------------------------


def test_the_plot_shows_before_after_and_the_colours_of_the_stains(cohort: SpatialData) -> None:
    import matplotlib.pyplot as plt

    with pytest.raises(KeyError, match="normalize_stains"):
        plot_stains(cohort)
    key = sorted(cohort.images)[0]
    for method, swatches in (("macenko", 2), ("reinhard", 1)):
        normalize_stains(cohort, image_key=key, method=method)
        axes = plot_stains(cohort, ax=plt.subplots(4, 1)[1])
        assert axes.shape == (4, 1)
        for axis, part, name in zip(axes[:2, 0], axes[2:, 0], (key, f"{key}_normalized"), strict=True):
            pixels = open_image(cohort, name).levels[0].compute().transpose(1, 2, 0)
            assert np.array_equal(axis.images[0].get_array(), pixels)
            frame, *squares = axis.patches
            assert len(squares) == swatches
            # What is enlarged is what the frame is around.
            (x, y), (height, width) = np.round(frame.get_xy()).astype(int), part.images[0].get_array().shape[:2]
            assert abs(width - frame.get_width()) <= 2
            enlarged = part.images[0].get_array().astype(float)
            np.testing.assert_allclose(enlarged.mean(), pixels[y : y + height, x : x + width].mean(), atol=4)
    plt.close("all")
