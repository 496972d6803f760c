"""Slides that look like none of training are told of in ``predict``; those that do are not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

import h2e
from h2e._ensemble.recognition import warn_of_outliers
from h2e._slide.quality import Quality

VIEW = (h2e.tl.View(1, 16),)


@pytest.fixture(scope="module")
def ensemble(few_source) -> h2e.Ensemble:
    """Train a small ensemble; never change it."""
    texture = h2e.tl.Texture(views=VIEW)
    return h2e.tl.fit(few_source, targets=["TOY01"], learners=texture, group_key="donor", progress=False)


def told_of(pixels: np.ndarray, ensemble: h2e.Ensemble) -> list[str]:
    """Predict an image without spots, and list the warnings."""
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        h2e.tl.predict(SpatialData(images={"he": image}), ensemble, um_per_px=6.25, progress=False)
    return [str(warning.message) for warning in told if warning.category is UserWarning]


def test_slides_like_those_of_training_are_not_told_of(other_source, ensemble):
    assert told_of(other_source["toy_B1_image"]["scale0"]["image"].data.compute(), ensemble) == []


def test_noise_is_told_of_by_its_novelty(ensemble):
    noise = np.random.default_rng(0).integers(0, 256, (3, 416, 416), dtype=np.uint8)
    told = told_of(noise, ensemble)
    assert any("median novelty" in message and "he_spots" in message for message in told)


def test_figures_of_training_are_kept_with_the_ensemble(ensemble, tmp_path):
    assert sorted(ensemble.quality) == sorted(ensemble.training["slide"].unique())
    ensemble.save(tmp_path / "saved")
    loaded = h2e.Ensemble.load(tmp_path / "saved")
    assert loaded.quality == ensemble.quality
    assert "quality" not in h2e.tl._predict.about_ensemble(loaded)["settings"]


@pytest.mark.parametrize("figure", ["sharpness", "saturation", "hue"])
def test_a_figure_outside_of_training_is_told_of_and_without_figures_nothing_is(new, ensemble, figure: str):
    shifted = {slide: {**known, figure: known[figure] - 100} for slide, known in ensemble.quality.items()}
    with pytest.warns(UserWarning, match=rf"toy_A1: {figure} .* \(training: .*toy_B1: {figure}") as told:
        h2e.tl.predict(new, replace(ensemble, quality=shifted), progress=False)
    assert len(told) == 1
    h2e.tl.predict(new, replace(ensemble, quality={}), progress=False)


@pytest.mark.parametrize(("n_groups", "hue", "told"), [(3, 319.0, ["novel"]), (2, 319.0, []), (2, 321.0, ["near"])])
def test_single_spots_and_small_differences_are_normal(n_groups: int, hue: float, told: list[str]):
    quality = {"near": Quality(hue=hue), "novel": Quality(hue=280.0), "known": Quality()}
    cohort = SimpleNamespace(names=np.repeat(list(quality), 5), quality=quality)
    trained = SimpleNamespace(quality={"A": {"hue": 250.0}, "B": {"hue": 280.0}}, n_groups=n_groups)
    novelty = np.array([0.0] * 4 + [9.0] + [3.0] * 5 + [np.nan] * 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_outliers(cohort, trained, novelty)
    assert [name for name in quality if any(f"{name}: " in str(one.message) for one in caught)] == told
