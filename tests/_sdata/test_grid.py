"""Spots that nobody made a table for are predicted at; a grid is never laid beside them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
from shapely import Point, box
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel
from spatialdata.transformations import Identity

import h2e

OPTIONS = {"um_per_px": 6.25, "progress": False}


@pytest.fixture(scope="module")
def ensemble(cohort_source):
    return h2e.tl.fit(cohort_source, learners="mean", targets=["TOY01"], group_key="donor", progress=False)


@pytest.fixture
def bare(other_source) -> SpatialData:
    """Two slides of which there are only the images."""
    images = {}
    for name in ("toy_B1", "toy_C1"):
        pixels = other_source[f"{name}_image"]["scale0"]["image"].data
        images[name[-2:]] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={name: Identity()})
    return SpatialData(images=images)


def centres() -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(60, 350, 32.0), np.arange(60, 350, 32.0)), axis=-1).reshape(-1, 2)


def circles() -> gpd.GeoDataFrame:
    return ShapesModel.parse(centres(), geometry=0, radius=8.0, transformations={"toy_B1": Identity()})


def squares() -> gpd.GeoDataFrame:
    frame = gpd.GeoDataFrame(geometry=[box(x - 16, y - 16, x + 16, y + 16) for x, y in centres()])
    return ShapesModel.parse(frame, transformations={"toy_B1": Identity()})


@pytest.mark.parametrize("make", [circles, squares])
def test_spots_without_a_table_are_predicted_at_and_other_slides_get_a_grid(bare, ensemble, make):
    bare["spots"] = make()
    h2e.tl.predict(bare, ensemble, **OPTIONS)
    table = bare["table"]
    n = table.obs["region"].astype(str).value_counts()
    assert n.to_dict() == {"spots": 100, "C1_spots": len(bare["C1_spots"])}
    predicted = table.obsm["h2e"].notna().all(axis=1)
    assert predicted[table.obs["region"] == "spots"].sum() > 50


@pytest.mark.parametrize("name", ["qc_img_B1_grid", "tiles", "B1_tissue", "outlines", "of h2e", "of a tiling tool"])
def test_what_tools_derived_from_the_image_is_not_taken_for_spots(bare, ensemble, name: str):
    shapes = squares()
    if name == "outlines":
        frame = gpd.GeoDataFrame(geometry=shapes.buffer(9)[:5])  # of regions that somebody drew
        shapes = ShapesModel.parse(frame, transformations={"toy_B1": Identity()})
    elif name == "of h2e":
        shapes["spacing_um"] = 200.0
    elif name == "of a tiling tool":
        shapes["tile_id"] = np.arange(len(shapes))
    bare[name.replace(" ", "-")] = shapes
    h2e.tl.predict(bare, ensemble, **OPTIONS)
    assert set(bare["table"].obs["region"]) == {"B1_spots", "C1_spots"}


def test_several_sets_of_spots_are_asked_about_and_nothing_remains(bare, ensemble):
    bare["spots"], bare["bins"] = circles(), squares()
    with pytest.raises(
        ValueError, match=r"several sets of spots on image 'B1', \['spots', 'bins'\], and no table says"
    ):
        h2e.tl.predict(bare, ensemble, **OPTIONS)
    assert not len(bare.tables)
    h2e.tl.predict(bare, ensemble, **OPTIONS, image_key="C1")
    assert set(bare["table"].obs["region"]) == {"C1_spots"}


def test_cells_without_a_table_are_told_of_where_a_grid_is_laid_beside_them(bare, ensemble):
    hexagons = gpd.GeoDataFrame(geometry=[Point(xy).buffer(9, quad_segs=2) for xy in centres()])
    bare["cells"] = ShapesModel.parse(hexagons, transformations={"toy_B1": Identity()})
    with pytest.warns(
        UserWarning, match=r"the 100 polygons of shapes\['cells'\] are not predicted: no table annotates them"
    ):
        h2e.tl.predict(bare, ensemble, **OPTIONS)
    assert "cells" not in set(bare["table"].obs["region"])
