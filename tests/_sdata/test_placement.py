"""Spots that lie turned, mirrored or beside the tissue are told of aloud, and put back where that is asked for."""

from __future__ import annotations

import re
import warnings
from contextlib import nullcontext

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, set_transformation

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_slides
from h2e._slide.lattice import hexagonal_grid

WRONG = {
    "mirrored left to right": [[-1, 0, 400], [0, 1, 0], [0, 0, 1]],
    "turned by 180°": [[-1, 0, 400], [0, -1, 400], [0, 0, 1]],
    "with x and y exchanged": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
}


@pytest.fixture
def hook() -> SpatialData:
    """A slide with tissue that no turn maps onto itself, and a spot with counts on each place of it."""
    tissue = np.zeros((400, 400), bool)
    tissue[60:340, 80:150] = tissue[280:340, 80:350] = tissue[80:140, 80:240] = True
    pixels = np.where(tissue[..., None], (190, 110, 170), (245, 243, 246)).astype(int)
    pixels = (pixels + np.random.default_rng(0).normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    xy, _ = hexagonal_grid((400, 400), 16.0)
    inside = ((xy > 0) & (xy < 400)).all(axis=1)
    xy = xy[inside]
    xy = xy[tissue[xy[:, 1].astype(int), xy[:, 0].astype(int)]]
    obs = pd.DataFrame({"region": pd.Categorical(["s"] * len(xy)), "spot": np.arange(len(xy))})
    obs.index = [f"spot {i}" for i in obs["spot"]]
    counts = ad.AnnData(np.random.default_rng(1).poisson(5.0, (len(xy), 4)).astype(np.float32), obs=obs)
    return SpatialData(
        images={"he": Image2DModel.parse(pixels, dims=("y", "x", "c"), c_coords=["r", "g", "b"])},
        shapes={"s": ShapesModel.parse(xy, geometry=0, radius=4.4)},
        tables={"table": TableModel.parse(counts, region="s", region_key="region", instance_key="spot")},
    )


def place(sdata: SpatialData, matrix: list) -> None:
    set_transformation(sdata["s"], Affine(matrix, ("x", "y"), ("x", "y")))


def said_while_training(sdata: SpatialData) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        h2e.tl.fit(sdata, targets=["0"], learners="mean", progress=False)
    return said


def positions(sdata: SpatialData) -> np.ndarray:
    return open_slides(sdata, Keys())[0].xy


def test_spots_in_place_are_said_to_be(hook):
    h2e.pp.normalize(hook)
    assert h2e.get.report(hook).loc["s", "orientation"] == "as they are"


@pytest.mark.parametrize("name", WRONG)
def test_another_orientation_is_told_of_and_applied_where_asked(hook, name: str):
    right = positions(hook)
    place(hook, WRONG[name])
    wrong = positions(hook)
    with pytest.warns(UserWarning, match=rf"in another orientation: 's' {name} \(correlation .*realign_spots"):
        h2e.pp.normalize(hook)
    report = h2e.get.report(hook)
    assert (report.loc["s", "orientation"], bool(report.loc["s", "moved"])) == (name, False)
    np.testing.assert_array_equal(positions(hook), wrong)
    h2e.pp.realign_spots(hook, reorient=True)
    assert np.abs(positions(hook) - right).max() < 8  # half a spacing
    h2e.pp.normalize(hook)
    assert h2e.get.report(hook).loc["s", "moved"]
    h2e.pp.realign_spots(hook, undo=True)
    np.testing.assert_allclose(positions(hook), wrong)


def test_training_tells_of_it_as_well(hook):
    place(hook, WRONG["mirrored left to right"])
    said = said_while_training(hook)
    (told,) = [one for one in said if "mirrored left to right" in str(one.message)]
    assert told.filename == __file__
    assert any("have no tissue under them and are left out" in str(one.message) for one in said)


@pytest.mark.parametrize(("shift", "told"), [(8, False), (40, True), (-72, True)])
def test_spots_more_than_a_spacing_beside_the_tissue_are_told_of(hook, shift: float, told: bool, recwarn):
    place(hook, [[1, 0, shift], [0, 1, 0], [0, 0, 1]])
    beside = (positions(hook) < 0).any(axis=1)
    hook["table"].obs["in_tissue"] = ~beside
    with pytest.warns(UserWarning, match=r"'s' by \d\.\d spacings") if told else nullcontext():
        h2e.pp.normalize(hook)
    report = h2e.get.report(hook)
    assert report.loc["s", "shift"] == pytest.approx(abs(shift) / 16, abs=0.6)


def test_measured_spots_without_tissue_are_counted_aloud(hook):
    counts = hook["table"].X
    hook.labels["he_tissue"] = _mask_without(hook, 80, 140)
    (message,) = [str(one.message) for one in said_while_training(hook) if "are left out: " in str(one.message)]
    assert int(re.search(r"left out: (\d+) of \d+ spots of slide 's'", message)[1]) > 10
    # Spots without counts, or said to lie beside the tissue, were not lost.
    lost = ~open_slides(hook, Keys())[0].in_tissue
    xy = positions(hook)
    lost |= (xy[:, 1] > 70) & (xy[:, 1] < 150) & (xy[:, 0] > 140)
    counts[lost] = 0
    hook["table"].X = counts
    assert not [one for one in said_while_training(hook) if "left out: " in str(one.message)]


def _mask_without(sdata: SpatialData, top: int, bottom: int):
    """The tissue without the upper arm of the hook."""
    from spatialdata.models import Labels2DModel

    red = sdata["he"].data.compute()[0]
    mask = (red < 220).astype(np.uint8)
    mask[top - 10 : bottom + 10, 150:] = 0
    return Labels2DModel.parse(mask, dims=("y", "x"), transformations={"global": Identity()})


def test_spots_beside_a_crop_are_left_out_where_they_are_said_to_lie_beside_the_tissue(hook):
    place(hook, [[1, 0, -100], [0, 1, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"spots of slide 's' lie outside of image 'he'"):
        h2e.pp.tissue_fraction(hook)
    hook["table"].obs["in_tissue"] = (positions(hook) >= 0).all(axis=1).astype(int)
    h2e.pp.tissue_fraction(hook)
    outside = (positions(hook) < 0).any(axis=1)
    assert outside.any()
    assert (hook["table"].obs["tissue_fraction"].to_numpy()[outside] < 0.6).all()


def test_a_spot_without_a_position_is_called_that(hook):
    hook["s"].loc[[3, 7], "geometry"] = hook["s"].geometry.iloc[0].__class__(np.nan, np.nan)
    with pytest.raises(
        ValueError, match=r"2 of \d+ spots of slide 's' are without a position \(NaN\), such as 'spot 3'"
    ):
        h2e.pp.normalize(hook)


def test_a_record_of_spots_that_were_in_place_says_nothing_of_where_they_lie_now(hook):
    h2e.pp.realign_spots(hook)
    place(hook, WRONG["mirrored left to right"])
    with pytest.warns(UserWarning, match="mirrored left to right"):
        h2e.pp.normalize(hook)
