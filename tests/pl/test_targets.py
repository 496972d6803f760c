"""What the plots of spots and targets show is what was measured."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

import h2e.pl
import h2e.pp
from h2e._sdata.targets import measured
from h2e.pl._dots import side_by_side
from h2e.pl._targets import mean_correlation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialdata import SpatialData

SLIDES = ["toy_A1", "toy_A2", "toy_B1", "toy_C1"]


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def medians(ax: plt.Axes) -> list[float]:
    return [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1 and line.get_color() == "k"]


def test_spots_shows_number_counts_and_genes_of_each_slide(cohort: SpatialData):
    table = cohort["table"]
    axes = h2e.pl.spots(cohort)
    by_slide = [table[table.obs["region"] == name].X.toarray() for name in SLIDES]
    assert [bar.get_width() for bar in axes[0].patches] == [len(x) for x in by_slide]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == SLIDES
    np.testing.assert_allclose(medians(axes[1]), [np.median(x.sum(axis=1)) for x in by_slide])
    np.testing.assert_allclose(medians(axes[2]), [np.median((x > 0).sum(axis=1)) for x in by_slide])
    for ax in axes[1:3]:
        low, high = ax.get_xlim()
        assert sum(low <= tick <= high for tick in ax.get_xticks()) > 1  # a scale has two ticks
    (discs,) = axes[3].collections
    np.testing.assert_allclose(discs.get_array(), np.log10(1 + table.X.toarray().sum(axis=1)))


def test_spots_takes_a_table_and_refuses_what_is_no_count(cohort: SpatialData):
    table = cohort["table"]
    table.layers["half"] = table.X * 0.5
    with pytest.raises(ValueError, match="holds no counts"):
        h2e.pl.spots(table, layer="half")
    axes = h2e.pl.spots(table, library_key="donor")
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["A", "B", "C"]


def test_the_overview_shows_each_target_in_the_order_of_its_correlations(cohort: SpatialData):
    table = cohort["table"]
    h2e.pp.select_targets(table, n_targets=9)
    axes = h2e.pl.target_overview(cohort, n_maps=3)
    shown = [label.get_text() for label in axes[0].get_yticklabels()]
    frame = measured(table, shown)
    np.testing.assert_allclose(medians(axes[0]), frame.median())
    expected = mean_correlation(frame.to_numpy(), table.obs["region"].to_numpy(str))
    off_diagonal = np.where(np.eye(9, dtype=bool), np.nan, expected)
    np.testing.assert_allclose(axes[1].images[0].get_array().filled(np.nan), off_diagonal)
    assert axes[1].images[0].get_clim()[1] == np.nanmax(np.abs(off_diagonal))  # the diagonal says nothing
    assert [label.get_text() for label in axes[1].get_xticklabels()] == shown
    beside = np.diagonal(expected, offset=1).mean()
    assert beside > expected[~np.eye(9, dtype=bool)].mean() + 0.1
    for ax in axes[2:]:
        (discs,) = ax.collections
        np.testing.assert_array_equal(discs.get_array(), frame[ax.get_title()])
    assert len({ax.get_title() for ax in axes[2:]}) == 3


@pytest.mark.parametrize(("n_targets", "n_maps"), [(5, 4), (6, 4), (4, 4), (3, 4), (9, 1)])
def test_no_target_is_mapped_twice(cohort: SpatialData, n_targets: int, n_maps: int):
    axes = h2e.pl.target_overview(cohort, list(cohort["table"].var_names[:n_targets]), n_maps=n_maps)
    assert len({ax.get_title() for ax in axes[2:]}) == min(n_targets, n_maps) == len(axes) - 2


def test_maps_have_the_slides_beside_each_other_and_y_pointing_down(cohort: SpatialData):
    table = cohort["table"]
    table.obsm["spatial"] = 32.0 * table.obs[["array_col", "array_row"]].to_numpy()
    axes = h2e.pl.target_overview(table, obsm="proportions", n_maps=1)
    (discs,) = axes[2].collections
    xy, regions = discs.get_offsets(), table.obs["region"].to_numpy(str)
    for left, right in itertools.pairwise(SLIDES):
        assert xy[regions == left, 0].max() < xy[regions == right, 0].min() - 1
    for name in SLIDES:
        moved = xy[regions == name] - table.obsm["spatial"][regions == name] / 32
        np.testing.assert_allclose(np.ptp(moved, axis=0), 0, atol=1e-9)
    bottom, top = axes[2].get_ylim()
    assert bottom > top
    assert [label.get_text() for label in axes[2].get_xticklabels()] == SLIDES


def test_correlations_are_means_over_slides_and_never_pooled():
    rng = np.random.default_rng(0)
    slides = np.repeat(["A", "B"], [30, 60])
    x = rng.random((90, 3)) + 5 * (slides == "B")[:, None]
    x[slides == "A", 2] = 1  # constant on one slide
    by_slide = [stats.pearsonr(x[slides == s, 0], x[slides == s, 1])[0] for s in "AB"]
    result = mean_correlation(x, slides)
    np.testing.assert_allclose(result[0, 1], np.mean(by_slide))
    np.testing.assert_allclose(result[0, 2], stats.pearsonr(x[30:, 0], x[30:, 2])[0] / 2)
    np.testing.assert_array_equal(np.diag(result), 1)


def test_a_slide_of_one_spot_has_its_place():
    xy, names, middle = side_by_side(np.array([[0.0, 0], [10, 0], [0, 10], [50, 50]]), np.array(list("AAAB")))
    np.testing.assert_allclose(xy, [[0, 0], [1, 0], [0, 1], [4, 0]])
    assert names == ["A", "B"]
    assert middle == [0.5, 4.0]


def test_axes_that_are_given_are_drawn_on(cohort: SpatialData):
    given = plt.subplots(1, 4)[1]
    assert list(h2e.pl.spots(cohort, ax=given)) == list(given)
    assert list(h2e.pl.target_overview(cohort, ["TOY01", "TOY02"], ax=given)) == list(given)
    with pytest.raises(ValueError, match="ax has 3 Axes, this plot draws on 4"):
        h2e.pl.spots(cohort, ax=given[:3])
