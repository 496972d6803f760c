"""The plot of tiles shows the very pixels that the network gets, and where their parts lie."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Circle, Rectangle

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.normalized import on_normalized_images
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._slide.tiles import View, read_views
from h2e.pl._tiles import CENTRE


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from spatialdata import SpatialData

SPOT = "toy_A1_5x5"


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def shown(ax: Axes) -> tuple[np.ndarray, list[np.ndarray]]:
    tile, *parts = (np.asarray(image.get_array()) for image in ax.images)
    return tile, parts


def expected(sdata: SpatialData, spot: str, *, normalized: bool) -> np.ndarray:
    slide = next(s for s in find_slides(sdata) if spot.startswith(s.name))
    if normalized:
        (slide,) = on_normalized_images(sdata, [slide])
    here = [sdata["table"].obs_names[row] for row in slide.rows].index(spot)
    return read_views(slide, slide.xy[[here]], [View(3.0, 78)])[0][0].transpose(1, 2, 0)


def test_the_tile_is_what_the_network_gets_and_the_subtiles_are_its_parts(cohort: SpatialData):
    (ax,) = h2e.pl.tiles(cohort, spots=[SPOT])
    tile, parts = shown(ax)
    np.testing.assert_array_equal(tile, expected(cohort, SPOT, normalized=False))
    assert len(parts) == 9
    assert {part.shape for part in parts} == {(26, 26, 3)}
    rows = [np.concatenate(parts[i : i + 3], axis=1) for i in (0, 3, 6)]
    np.testing.assert_array_equal(np.concatenate(rows), tile)


def test_the_subtiles_are_those_that_the_network_cuts(cohort: SpatialData):
    import torch

    from h2e._learners.network import NetworkConfig, subtiles

    tile, parts = shown(h2e.pl.tiles(cohort, spots=[SPOT])[0])
    config = NetworkConfig()
    batch = torch.from_numpy(tile.transpose(2, 0, 1).copy())[None]
    cut = subtiles(batch, config.subtile_px)[0].numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(cut, parts)


def test_outlines_lie_around_the_subtiles_and_the_centre_stands_out(cohort: SpatialData):
    (ax,) = h2e.pl.tiles(cohort, spots=[SPOT])
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    on_tile = sorted((round(b.get_x(), 6), round(b.get_y(), 6)) for b in boxes if b.get_x() < 3)
    assert on_tile == [(x, y) for x in range(3) for y in range(3)]
    assert {(round(b.get_width(), 6), round(b.get_height(), 6)) for b in boxes} == {(1, 1)}
    apart = [image.get_extent() for image in ax.images[1:]]
    framed = [(b.get_x(), b.get_x() + 1, b.get_y() + 1, b.get_y()) for b in boxes if b.get_x() >= 3]
    np.testing.assert_allclose(apart, framed)
    assert all(a[1] < b[0] for a, b in pairwise(apart[:3]))  # they do not touch
    thick = [b for b in boxes if b.get_edgecolor() == plt.matplotlib.colors.to_rgba(CENTRE)]
    assert [(b.get_x() < 3, round(b.get_y(), 6)) for b in thick] == [(True, 1), (False, 1)]
    assert (thick[0].get_x(), thick[1].get_extents().width) == (1, boxes[0].get_extents().width)
    (spot,) = [patch for patch in ax.patches if isinstance(patch, Circle)]
    slide = find_slides(cohort)[0]
    assert spot.center == (1.5, 1.5)
    assert spot.radius == pytest.approx(slide.radius_px / slide.spacing_px)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y points down


def test_a_few_spots_of_each_slide_are_shown_by_the_seed(cohort: SpatialData):
    axes = h2e.pl.tiles(cohort, n=2)
    titles = [ax.get_title().split(": ") for ax in axes]
    assert [slide for slide, _ in titles] == [f"toy_{s}" for s in ("A1", "A2", "B1", "C1") for _ in range(2)]
    assert all(spot.startswith(slide) for slide, spot in titles)
    assert [ax.get_title() for ax in h2e.pl.tiles(cohort, n=2)] == [": ".join(title) for title in titles]
    assert [ax.get_title() for ax in h2e.pl.tiles(cohort, n=2, seed=1)] != [": ".join(title) for title in titles]
    for ax, (_, spot) in zip(axes, titles, strict=True):
        np.testing.assert_array_equal(shown(ax)[0], expected(cohort, spot, normalized=False))


def test_normalized_images_are_shown_where_there_are_any_and_spots_with_tissue(cohort: SpatialData):
    h2e.pp.normalize(cohort)
    (ax,) = h2e.pl.tiles(cohort, spots=[SPOT])
    np.testing.assert_array_equal(shown(ax)[0], expected(cohort, SPOT, normalized=True))
    assert (shown(ax)[0] != expected(cohort, SPOT, normalized=False)).any()
    every = h2e.pl.tiles(cohort, n=1000)
    fraction = cohort["table"].obs["tissue_fraction"]
    assert len(every) == (fraction > 0).sum() < len(fraction)


def test_given_axes_are_drawn_on_and_counted(cohort: SpatialData):
    _, given = plt.subplots(1, 2)
    axes = h2e.pl.tiles(cohort, spots=[SPOT, "toy_B1_5x5"], ax=given)
    assert list(axes) == list(given)
    assert all(len(ax.images) == 10 for ax in given)
    with pytest.raises(ValueError, match="ax has 2 Axes, this plot draws on 1: tiles"):
        h2e.pl.tiles(cohort, spots=[SPOT], ax=given)


def test_what_cannot_be_shown_is_named(cohort: SpatialData):
    with pytest.raises(KeyError, match=r"spots \['nowhere'\] are not in the table; its 238 spots are called"):
        h2e.pl.tiles(cohort, spots=[SPOT, "nowhere"])
    with pytest.raises(ValueError, match="spots is empty"):
        h2e.pl.tiles(cohort, spots=[])
    with pytest.raises(ValueError, match="n must be at least 1 spot of each slide, got 0"):
        h2e.pl.tiles(cohort, n=0)
