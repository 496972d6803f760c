"""What is refused before anything is trained."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import spatialdata as sd
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import h2e

OPTIONS = {"learners": "mean", "targets": ["TOY01"], "progress": False}


def rescanned(sdata: SpatialData, region: str) -> SpatialData:
    """One slide at half the resolution, with other counts at the same places."""
    source = sdata.images[f"{region}_image"]["scale0"]["image"].data.compute().astype(float)
    half = source.reshape(3, source.shape[1] // 2, 2, source.shape[2] // 2, 2).mean(axis=(2, 4)).astype(np.uint8)
    placed = {region: Scale([2, 2], axes=("x", "y"))}
    image = Image2DModel.parse(half, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=placed)
    table = sdata["table"][sdata["table"].obs["region"] == region].copy()
    table.X = (table.X * 2).tocsr()
    table.uns["spatialdata_attrs"]["region"] = region
    return SpatialData(
        images={f"{region}_image": image}, shapes={region: deepcopy(sdata.shapes[region])}, tables={"table": table}
    )


@pytest.mark.parametrize("donor", ["A", "Z"])
def test_one_section_under_two_names_is_refused_and_named(two_slides, donor: str):
    again = rescanned(two_slides, "toy_A1")
    again["table"].obs["donor"] = donor
    # spatialdata renames the rows, and not those of the frame.
    del again["table"].obsm["proportions"], two_slides["table"].obsm["proportions"]
    both = sd.concatenate({"first": two_slides, "again": again}, concatenate_tables=True)
    for train in (h2e.tl.fit, h2e.tl.evaluate):
        with pytest.raises(ValueError, match=r"same tissue under their spots: 'toy_A1-again' and 'toy_A1-first'. Keep"):
            train(both, group_key="donor", **OPTIONS)


def test_donors_on_one_scan_may_be_trained(cohort):
    table = cohort["table"]
    table.obs["part"] = table.obs["region"].astype(str) + np.where(table.obs["array_col"] < 5, "_left", "_right")
    table.obs["donor"] = table.obs["part"]
    ensemble = h2e.tl.fit(cohort, library_key="part", group_key="donor", **OPTIONS)
    assert len(set(ensemble.training["group"])) == 8
