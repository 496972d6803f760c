from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from scipy.ndimage import gaussian_filter
from spatialdata import SpatialData

import h2e
from h2e._ensemble.scale_cue import ScaleCue, fit_scale_cue, warn_of_sizes
from h2e._learners.texture import Texture
from h2e._sdata.cohort import Cohort
from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._slide.tiles import View

FIXTURES = Path(__file__).parents[1] / "fixtures"
NUCLEUS_UM = 4.0


def slide(um_per_px: float, *, group: str = "A", seed: int = 0, strength: float = 1.0) -> Slide:
    """All tissue: dark spots of one size in µm on pink fibres."""
    rng = np.random.default_rng(seed)
    side = int(700 / um_per_px)
    nuclei = gaussian_filter((rng.random((side, side)) < (um_per_px / 25) ** 2).astype(float), NUCLEUS_UM / um_per_px)
    fibres = gaussian_filter(rng.normal(size=(side, side)), 3 * NUCLEUS_UM / um_per_px)
    h, e = strength * nuclei / nuclei.max(), strength * (0.4 + 0.1 * fibres / fibres.std())
    rgb = 255 * np.exp(-(np.outer([0.65, 0.7, 0.29], h) + np.outer([0.07, 0.99, 0.11], e))).reshape(3, side, side)
    image = Image(f"{group}{seed}", (da.from_array(rgb.astype(np.uint8)),), (1.0,))
    bare = Slide.without_spots(image, um_per_px, "um_per_px=")
    return replace(bare, group=group, tissue=(np.ones((10, 10), bool), side / 10))


def cohort_of(slide: Slide) -> Cohort:
    return Cohort(AnnData(np.zeros((0, 0))), (slide,))


@pytest.fixture(scope="module")
def cue() -> ScaleCue:
    cue = fit_scale_cue([slide(1.0, group="A", seed=0), slide(1.4, group="B", seed=1)])
    assert cue is not None
    return cue


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 4.0])
def test_a_size_is_off_by_as_much_as_it_was_changed(cue: ScaleCue, factor: float, strength: float):
    new = slide(1.2, seed=2, strength=strength)
    said = replace(new, um_per_px=1.2 * factor)
    assert cue.octaves_off(said) == pytest.approx(np.log2(factor), abs=0.35)


def test_a_cue_that_fails_on_the_training_slides_keeps_silent(cue: ScaleCue):
    wrong = replace(slide(1.2, seed=2), um_per_px=4.8)
    with pytest.warns(UserWarning, match=r"is said to have 4\.8 µm/px, .* looks like 1\.\d µm/px: .* less"):
        warn_of_sizes(cohort_of(wrong), cue)
    warn_of_sizes(cohort_of(wrong), replace(cue, threshold=3.0))


def test_one_group_and_slides_without_tissue_tell_nothing(cue: ScaleCue):
    one = slide(1.0)
    empty = replace(one, group="B", image=replace(one.image, key="empty"), tissue=(np.zeros((10, 10), bool), 70.0))
    assert fit_scale_cue([one]) is None
    warn_of_sizes(cohort_of(empty), cue)


def test_predict_warns_of_a_size_that_only_the_user_states(
    tmp_path: Path, cohort_source: SpatialData, new: SpatialData
):
    learner = Texture(views=(View(2, 32),))
    ensemble = h2e.tl.fit(cohort_source, learners=learner, targets=["TOY01"], group_key="donor", progress=False)
    ensemble.save(tmp_path / "saved")
    loaded = h2e.Ensemble.load(tmp_path / "saved")
    he = new.images[next(iter(new.images))]
    h2e.tl.predict(SpatialData(images={"he": he}), loaded, um_per_px=6.25, progress=False)
    h2e.tl.predict(new, loaded, progress=False)
    with pytest.warns(UserWarning, match=r"'he_spots' is said to have 12\.5 µm/px") as told:
        h2e.tl.predict(SpatialData(images={"he": he}), loaded, um_per_px=12.5, progress=False)
    assert {each.filename for each in told} == {__file__}


def test_ensembles_of_old_have_no_such_figures():
    assert h2e.Ensemble.load(FIXTURES / "v1_ridge").scale_cue is None


def test_learners_that_look_at_no_image_have_no_cue(few: SpatialData):
    table = few["table"]
    table.obsm["features"] = np.random.default_rng(0).normal(size=(table.n_obs, 4))
    learner = h2e.tl.Embedding(obsm="features")
    ensemble = h2e.tl.fit(few, learners=learner, targets=["TOY01"], group_key="donor", progress=False)
    assert ensemble.novelty is not None
    assert ensemble.scale_cue is None
