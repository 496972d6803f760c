"""Features of other tools, averaged over spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_slides

if TYPE_CHECKING:
    from spatialdata import SpatialData


def tiles(slide, side: int = 16) -> np.ndarray:
    """Upper left corners of tiles that touch, over the image."""
    height, width = slide.image.shape
    return np.stack(np.meshgrid(np.arange(0, width, side), np.arange(0, height, side)), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("bins", [False, True])
def test_features_are_averaged_by_the_area_that_tiles_share_with_a_spot(two_slides: SpatialData, bins: bool):
    if bins:
        for key, circles in two_slides.shapes.items():
            squares = gpd.GeoDataFrame({"geometry": circles.buffer(9, cap_style="square")}, index=circles.index)
            two_slides.shapes[key] = ShapesModel.parse(
                squares, transformations=get_transformation(circles, get_all=True)
            )
    slides = open_slides(two_slides, Keys())
    um = slides[0].um_per_px
    coords = {slide.name: tiles(slide) for slide in slides}
    # What is linear in the middle of a tile, and which tile it is.
    features = {name: np.column_stack([xy + 8, np.arange(len(xy))]) for name, xy in coords.items()}
    h2e.pp.attach_features(two_slides, features, coords, tile_um=16 * um, key_added="X_tiles")
    x = two_slides["table"].obsm["X_tiles"]
    assert x.dtype == np.float32
    rng = np.random.default_rng(0)
    for slide in slides:
        spot = rng.uniform(-1, 1, (20_000, 2)) * (9 if bins else slide.radius_px)
        spot = spot if bins else spot[np.hypot(*spot.T) < slide.radius_px]
        per_row = int(np.ceil(slide.image.shape[1] / 16))
        for xy, of_spot in zip(slide.xy[:5], x[slide.rows[:5]], strict=True):
            column, row = ((xy + spot) // 16).T
            middles = np.column_stack([column * 16 + 8, row * 16 + 8, row * per_row + column])
            np.testing.assert_allclose(of_spot, middles.mean(0), rtol=0.01)
    facts = two_slides["table"].uns["h2e"]["params"]["X_tiles"]
    assert facts == {"function": "attach_features", "encoder": "", "views_um": [16 * um]}
    # In pixels of twice the size.
    halves = {name: xy / 2 for name, xy in coords.items()}
    h2e.pp.attach_features(two_slides, features, halves, tile_um=16 * um, key_added="X_tiles", coords_um_per_px=2 * um)
    np.testing.assert_array_equal(two_slides["table"].obsm["X_tiles"], x)


def test_tiles_that_cannot_be_of_the_slide_are_refused(two_slides: SpatialData):
    table, slides = two_slides["table"], open_slides(two_slides, Keys())
    um = slides[0].um_per_px
    coords = {slide.name: tiles(slide) for slide in slides}
    features = {name: xy.astype(float) for name, xy in coords.items()}

    def attach(coords=coords, features=features, tile_um=16 * um, **options):
        h2e.pp.attach_features(two_slides, features, coords, tile_um=tile_um, key_added="X_tiles", **options)

    first, second = coords
    with pytest.raises(ValueError, match="tiles of slide 'toy_A1' lie beside it.*um_per_px"):
        attach({name: 4 * xy for name, xy in coords.items()})
    with pytest.raises(ValueError, match="tiles must lie under the spots, but none of the 1 tiles"):
        attach({name: xy[:1] for name, xy in coords.items()}, {name: x[:1] for name, x in features.items()})
    with pytest.raises(KeyError, match=f"must have slide '{second}', got"):
        attach({first: coords[first]}, {first: features[first]})
    with pytest.raises(ValueError, match=r"finite, tiles × features and tiles × 2"):
        attach(features={name: x[1:] for name, x in features.items()})
    with pytest.raises(ValueError, match=r"features of one encoder, got \[1, 2\]"):
        attach(features={first: features[first], second: features[second][:, :1]})
    assert "X_tiles" not in table.obsm
    table.obsm["X_tiles"] = table.obsm["proportions"]
    with pytest.raises(ValueError, match="no record of h2e having written it"):
        attach()
    with pytest.warns(UserWarning, match="are 100 µm apart, but tile_um is 50"):
        attach(tile_um=8 * um, overwrite=True)
    some = {slide.name: coords[slide.name][:, 0] < np.median(slide.xy[:, 0]) for slide in slides}
    with pytest.warns(UserWarning, match=r"of \d+ spots of slide 'toy_[AB]1' have no tile under them"):
        attach(*({name: a[some[name]] for name, a in each.items()} for each in (coords, features)))
    assert np.isnan(table.obsm["X_tiles"]).any(axis=1).mean() > 0.2
