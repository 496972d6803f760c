"""Maps of predictions, losses and scores show what was stored, where it is, and what is not known."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import TYPE_CHECKING

import anndata as ad
import dask.array as da
import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from scipy import stats
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, get_transformation

import h2e
import h2e.datasets
from h2e._sdata.targets import measured
from h2e.pl._canvas import read_box, round_length

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

GENES = ["TOY01", "TOY02", "TOY03"]


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def frame_like(table: ad.AnnData, seed: int = 0) -> pd.DataFrame:
    """Predictions that vary about as expression does."""
    values = np.random.default_rng(seed).uniform(0, 4, (table.n_obs, len(GENES))).astype(np.float32)
    return pd.DataFrame(values, index=table.obs_names, columns=GENES)


@pytest.fixture
def known(cohort: SpatialData) -> SpatialData:
    """Slides of donor A are new, those of B and C were trained on; one spot has no prediction."""
    table = cohort["table"]
    new, held_out = frame_like(table), frame_like(table, 1)
    trained = table.obs["donor"].isin(["B", "C"]).to_numpy()
    new[trained] = np.nan
    held_out[~trained] = np.nan
    new.iloc[np.flatnonzero(table.obs["region"] == "toy_A1")[3]] = np.nan
    table.obsm.update({"h2e": new, "h2e_loo": held_out, "h2e_std": new * 0.1})
    table.uns["h2e"] = {"unit": "log-normalized expression", "params": {"left_out": "donor"}}
    return cohort


def layers(ax: Axes) -> tuple[EllipseCollection, EllipseCollection]:
    background, dots = ax.collections[:2]
    return background, dots


def bar_labels(axes: list[Axes]) -> list[str]:
    return [bar.get_ylabel() for bar in axes[0].figure.axes if bar.get_label() == "<colorbar>"]


def shown(ax: Axes) -> np.ndarray:
    return layers(ax)[1].get_array().filled(np.nan)


def rows_of(sdata: SpatialData, name: str) -> np.ndarray:
    return (sdata["table"].obs["region"] == name).to_numpy()


def one_slide() -> ad.AnnData:
    rng = np.random.default_rng(0)
    xy = 10.0 * np.stack(np.meshgrid(np.arange(6), np.arange(4)), axis=-1).reshape(-1, 2)
    adata = ad.AnnData(rng.poisson(3, (24, 2)).astype(np.float32), var=pd.DataFrame(index=["EPCAM", "CD74"]))
    adata.obsm["spatial"] = xy
    adata.obsm["h2e"] = pd.DataFrame({"EPCAM": rng.normal(size=24).astype(np.float32)}, index=adata.obs_names)
    adata.obsm["h2e"].iloc[[2, 7]] = np.nan
    return adata


# ---- a table alone
# ------------------------------------------------------------------------------------------------------


def test_a_map_of_a_table_shows_its_predictions_and_marks_what_is_missing():
    adata = one_slide()
    background, dots = h2e.pl.spatial_pred(adata, "EPCAM").collections[:2]
    np.testing.assert_allclose(dots.get_array().filled(np.nan), adata.obsm["h2e"]["EPCAM"], equal_nan=True)
    np.testing.assert_array_equal(dots.get_offsets(), adata.obsm["spatial"])
    np.testing.assert_array_equal(background.get_offsets(), adata.obsm["spatial"][[2, 7]])
    mark = background.get_facecolor()[0]
    assert mark[3] == 1
    assert np.abs(plt.get_cmap("viridis")(np.linspace(0, 1, 99))[:, :3] - mark[:3]).max(axis=1).min() > 0.25
    plt.gcf().canvas.draw()
    np.testing.assert_array_equal(
        dots.get_facecolor()[[2, 7]], background.get_facecolor()[[0, 0]]
    )  # nothing hides the mark
    assert (np.ptp(np.delete(dots.get_facecolor()[:, :3], [2, 7], axis=0), axis=1) > 0.1).all()


def test_y_points_down_and_a_unit_is_as_long_in_x_as_in_y():
    ax = h2e.pl.spatial_pred(one_slide(), "EPCAM")
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_xlim()[0] < ax.get_xlim()[1]
    assert ax.get_aspect() == 1


def test_a_table_shows_what_was_measured_only_if_asked():
    axes = h2e.pl.spatial_pred(one_slide(), "EPCAM", measured=True)
    assert [ax.get_title() for ax in axes][1] == "EPCAM\nmeasured"
    expected = measured(one_slide(), ["EPCAM"])["EPCAM"]
    np.testing.assert_allclose(shown(axes[1]), expected, rtol=1e-6)


def test_a_table_without_um_has_no_scale_bar_and_with_it_one():
    adata = one_slide()
    assert len(h2e.pl.spatial_pred(adata, "EPCAM").lines) == 0
    adata.obs["um_per_px"] = 4.0
    assert len(h2e.pl.spatial_pred(adata, "EPCAM").lines) == 1


def test_spots_of_a_table_have_the_size_that_spaceranger_wrote():
    adata = one_slide()
    adata.obs["library"] = "S1"
    adata.uns["spatial"] = {"S1": {"scalefactors": {"spot_diameter_fullres": 5.5}}}
    dots = layers(h2e.pl.spatial_pred(adata, "EPCAM", library_key="library", size=1))[1]
    np.testing.assert_allclose(dots.get_widths(), 5.5)
    alone = h2e.pl.spatial_pred(adata, "EPCAM", size=1)
    np.testing.assert_allclose(layers(alone)[1].get_widths(), 5.5)  # a single slide's
    adata.uns["spatial"]["S2"] = {}
    with pytest.raises(ValueError, match=r"has the slides \['S1', 'S2'\]; pass library_key"):
        h2e.pl.spatial_pred(adata, "EPCAM")
    adata.uns["spatial"] = {}
    width = layers(h2e.pl.spatial_pred(adata, "EPCAM", size=1))[1].get_widths()[0]
    assert width == pytest.approx(9)  # 0.9 pitches: not known


@pytest.mark.parametrize("floats", [False, True])
def test_a_table_that_holds_images_is_shown_on_the_one_that_fits(floats: bool):
    adata = one_slide()
    rng = np.random.default_rng(0)
    hires, lowres = rng.integers(0, 255, (1600, 2400, 3), np.uint8), rng.integers(0, 255, (160, 240, 3), np.uint8)
    images = {"hires": hires / np.float32(255) if floats else hires, "lowres": lowres}
    factors = {"tissue_hires_scalef": 40.0, "tissue_lowres_scalef": 4.0, "spot_diameter_fullres": 5.0}
    adata.uns["spatial"] = {"S1": {"images": images, "scalefactors": factors}}
    adata.obsm["spatial"] = adata.obsm["spatial"] + 5
    for inches, pixels, factor in ((1.3, lowres, 4), (20, hires, 40)):
        axis = plt.figure(figsize=(inches, inches)).add_axes((0, 0, 1, 1))
        picture = h2e.pl.spatial_pred(adata, "EPCAM", ax=axis).images[0]
        drawn = picture.get_array()
        left, right, _, top = picture.get_extent()
        assert (right - left) * factor == pytest.approx(drawn.shape[1])
        x, y = round(left * factor), round(top * factor)
        np.testing.assert_array_equal(drawn, pixels[y : y + drawn.shape[0], x : x + drawn.shape[1]])
    adata.uns["spatial"]["S1"]["scalefactors"]["microns_per_pixel"] = 2.0
    assert len(h2e.pl.spatial_pred(adata, "EPCAM").lines) == 1


@pytest.mark.parametrize("turned", [0, 10, -30, 100])
def test_bins_of_visium_hd_are_squares_that_touch(turned: float):
    adata = one_slide()
    c, s = np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))
    adata.obsm["spatial"] = adata.obsm["spatial"] @ np.array([[c, s], [-s, c]])
    adata.uns["spatial"] = {"S1": {"scalefactors": {"spot_diameter_fullres": 10.0, "bin_size_um": 8.0}}}
    ax = h2e.pl.spatial_pred(adata, "EPCAM", cmap="Greys_r")
    dots = layers(ax)[1]
    np.testing.assert_allclose(dots.get_widths(), 10)
    corners = dots.get_paths()[0].vertices[:4] * dots.get_widths() / 2
    angle = np.deg2rad(dots.get_angles()[0])
    rotated = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy = adata.obsm["spatial"]
    found = (xy[:, None] + rotated).reshape(-1, 2)
    assert len(np.unique(found.round(3), axis=0)) == 5 * 7  # neighbours share their corners


def test_many_spots_are_two_collections_and_no_artist_of_their_own():
    n = 20_000  # an artist for each would take minutes
    xy = np.stack(np.divmod(np.arange(n), 160), axis=1) * 10.0
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obsm={"spatial": xy})
    adata.obsm["h2e"] = pd.DataFrame({"EPCAM": np.sin(xy[:, 0])}, index=adata.obs_names)
    ax = h2e.pl.spatial_pred(adata, "EPCAM")
    assert len(ax.collections) == 2
    assert len(shown(ax)) == n
    assert len(ax.get_children()) < 50
    assert all(len(collection.get_paths()) == 1 for collection in ax.collections)
    ax.figure.canvas.draw()


def test_a_pdf_holds_the_outline_of_a_spot_once_also_where_some_are_missing(tmp_path: Path):
    n = 2500
    xy = np.stack(np.divmod(np.arange(n), 50), axis=1) * 10.0
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obsm={"spatial": xy})
    adata.obsm["h2e"] = pd.DataFrame({"EPCAM": np.sin(xy[:, 0])}, index=adata.obs_names)
    adata.obsm["h2e"].iloc[::7] = np.nan
    ax = h2e.pl.spatial_pred(adata, "EPCAM")
    with plt.rc_context({"pdf.compression": 0}):
        ax.figure.savefig(tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().count(b" c\n") < n  # curves; a disc has eight


# ---- slides
# -------------------------------------------------------------------------------------------------------------


def test_maps_stand_slide_by_slide_target_by_target_predicted_before_measured(known: SpatialData):
    axes = h2e.pl.spatial_pred(known, GENES[:2], slides=["toy_A1", "toy_B1"])
    truth = measured(known["table"], GENES)
    expected = [
        {"toy_A1": known["table"].obsm["h2e"], "toy_B1": known["table"].obsm["h2e_loo"]}[slide][gene]
        if what == "predicted"
        else truth[gene]
        for slide in ("toy_A1", "toy_B1")
        for gene in GENES[:2]
        for what in ("predicted", "measured")
    ]
    slides = ["toy_A1"] * 4 + ["toy_B1"] * 4
    assert [ax.get_ylabel() for ax in axes] == ["toy_A1", "", "", "", "toy_B1", "", "", ""]
    for ax, values, slide in zip(axes, expected, slides, strict=True):
        np.testing.assert_allclose(shown(ax), values[rows_of(known, slide)], rtol=1e-5, equal_nan=True)


def test_the_title_says_what_was_held_out_and_how_well_it_agrees(known: SpatialData):
    table = known["table"]
    axes = h2e.pl.spatial_pred(known, "TOY02", slides=["toy_A1", "toy_B1"])
    truth = measured(table, ["TOY02"])["TOY02"].to_numpy()
    for ax, key, slide, about in (
        (axes[0], "h2e", "toy_A1", "predicted"),
        (axes[2], "h2e_loo", "toy_B1", "predicted, held-out donor"),
    ):
        rows = rows_of(known, slide) & table.obsm[key]["TOY02"].notna().to_numpy()
        r = stats.pearsonr(table.obsm[key]["TOY02"].to_numpy()[rows], truth[rows]).statistic
        assert ax.get_title() == f"TOY02\n{about}, r = {r:.2f}".replace("-0", "−0")


def test_targets_without_skill_are_marked_in_the_title(known: SpatialData):
    known["table"].uns["h2e"]["skill_below_0"] = np.array(["TOY02"])
    titles = [
        ax.get_title().splitlines()[0] for ax in h2e.pl.spatial_pred(known, GENES, slides="toy_B1", measured=False)
    ]
    assert titles == ["TOY01", "TOY02 (skill < 0)", "TOY03"]


def test_the_title_of_a_single_slide_gives_the_range_over_its_quarters(known: SpatialData):
    table = known["table"]
    table.uns["h2e"]["params"]["left_out"] = "quarter of the slide"
    ax = h2e.pl.spatial_pred(known, "TOY01", slides="toy_B1")[0]
    rows = rows_of(known, "toy_B1")
    xy = (
        np.asarray(table.obsm["spatial"])[rows]
        if "spatial" in table.obsm
        else known["toy_B1"].geometry.get_coordinates()
    )
    xy = np.asarray(xy)
    right, lower = (xy > np.median(xy, axis=0)).T
    truth = measured(table, ["TOY01"])["TOY01"].to_numpy()[rows]
    told = table.obsm["h2e_loo"]["TOY01"].to_numpy()[rows]
    r = [
        stats.pearsonr(told[part], truth[part])[0]
        for part in (right & lower, right & ~lower, ~right & lower, ~right & ~lower)
    ]
    assert ax.get_title().splitlines()[1].endswith(f"r = {min(r):.2f} to {max(r):.2f}".replace("-", "−"))
    x, y = ax.lines[0].get_xdata()[0], ax.lines[1].get_ydata()[0]  # then the scale bar
    np.testing.assert_array_equal(xy > (x, y), xy > np.median(xy, axis=0))
    assert not np.isin((x, y), xy).any()


def test_a_correlation_that_rounds_to_zero_has_no_sign(known: SpatialData):
    table = known["table"]
    rows = rows_of(known, "toy_B1")
    truth = measured(table, ["TOY01"])["TOY01"].to_numpy(float)[rows]
    noise = np.random.default_rng(0).normal(size=rows.sum())
    z, noise = truth - truth.mean(), noise - noise.mean()
    nothing = noise - z * (noise @ z / (z @ z)) - 1e-3 * z / z.std()
    table.obsm["h2e_loo"].loc[rows, "TOY01"] = nothing.astype(np.float32)
    assert h2e.pl.spatial_pred(known, "TOY01", slides="toy_B1")[0].get_title().endswith("r = 0.00")


def test_what_the_models_have_seen_is_called_so_and_not_scored(known: SpatialData):
    known["table"].obsm["h2e"] = frame_like(known["table"])
    titles = [ax.get_title() for ax in h2e.pl.spatial_pred(known, "TOY01", slides="toy_B1")]
    assert titles == ["TOY01\npredicted, in-sample", "TOY01\nmeasured"]


def test_held_out_predictions_may_be_asked_for_by_name(known: SpatialData):
    axes = h2e.pl.spatial_pred(known, "TOY01", key="h2e_loo")
    assert [ax.get_ylabel() for ax in axes[::2]] == ["toy_B1", "toy_C1"]  # others have none
    assert "held-out donor, r =" in axes[0].get_title()
    np.testing.assert_allclose(
        shown(axes[0]), known["table"].obsm["h2e_loo"]["TOY01"][rows_of(known, "toy_B1")], rtol=1e-6
    )


def test_a_spread_is_shown_alone(known: SpatialData):
    ax = h2e.pl.spatial_pred(known, "TOY01", key="h2e_std", slides="toy_A2")
    assert ax.get_title() == "TOY01\nspread"
    assert bar_labels([ax]) == ["SD, log-normalized expression"]


@pytest.mark.parametrize("key", ["h2e", "h2e_std"])
def test_a_key_without_a_value_on_a_slide_is_refused(known: SpatialData, key: str):
    way_out = {"h2e": "run h2e.tl.predict on it", "h2e_std": "Show a slide that the ensemble was not trained on"}[key]
    del known["table"].obsm["h2e_loo"]
    with pytest.raises(ValueError, match=rf"obsm\['{key}'\] has no value on slide 'toy_B1'.*{way_out}"):
        h2e.pl.spatial_pred(known, "TOY01", key=key, slides=["toy_A1", "toy_B1"])


def test_more_than_a_dozen_maps_are_drawn_only_if_the_slides_are_named(known: SpatialData, caplog):
    assert len(h2e.pl.spatial_pred(known, GENES[:2])) == 12
    assert "3 of 4 slides are shown" in caplog.text
    slides = ["toy_A1", "toy_A2", "toy_B1", "toy_C1"]
    assert len(h2e.pl.spatial_pred(known, GENES[:2], slides=slides)) == 16


def test_each_row_has_the_name_of_its_slide_and_the_unit_stands_once(known: SpatialData):
    axes = h2e.pl.spatial_pred(known, GENES[:2], slides=["toy_A1", "toy_B1"], ncols=2)
    assert [ax.get_ylabel() for ax in axes] == ["toy_A1", ""] * 2 + ["toy_B1", ""] * 2
    assert bar_labels(axes) == ["log-normalized expression", "", "", ""]
    apart = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", share_scale=False)
    assert bar_labels(apart) == ["", "log-normalized expression"]


def test_predicted_and_measured_share_their_colours_unless_told_otherwise(known: SpatialData):
    known["table"].obsm["h2e"] *= 0.1
    shared = h2e.pl.spatial_pred(known, GENES[:2], slides="toy_A1")
    limits = [layers(ax)[1].get_clim() for ax in shared]
    assert limits[0] == limits[1]
    assert limits[2] == limits[3]
    assert limits[0] != limits[2]
    values = [shown(shared[0]), shown(shared[1])]
    ends = [(np.nanpercentile(v, 1), np.nanpercentile(v, 99)) for v in values]
    np.testing.assert_allclose(limits[0], (min(e[0] for e in ends), max(e[1] for e in ends)))
    alone = h2e.pl.spatial_pred(known, GENES[0], slides="toy_A1", share_scale=False)
    np.testing.assert_allclose([layers(ax)[1].get_clim() for ax in alone], ends)


def test_all_slides_share_their_colours_if_asked(known: SpatialData):
    known["table"].obsm["h2e"] *= 0.1
    axes = h2e.pl.spatial_pred(known, GENES[:2], slides=["toy_A1", "toy_B1"], share_scale="slides")
    first, second = axes[[0, 1, 4, 5]], axes[[2, 3, 6, 7]]
    for some in (first, second):
        ends = [(np.nanpercentile(v, 1), np.nanpercentile(v, 99)) for v in map(shown, some)]
        expected = (min(e[0] for e in ends), max(e[1] for e in ends))
        for ax in some:
            np.testing.assert_allclose(layers(ax)[1].get_clim(), expected)
    with pytest.raises(ValueError, match="share_scale must be True, False or 'slides', got 'slide'"):
        h2e.pl.spatial_pred(known, share_scale="slide")


@pytest.mark.parametrize("turned", [0.0, 0.3])
def test_square_bins_are_drawn_as_squares_and_other_polygons_as_discs(known: SpatialData, turned: float):
    import shapely
    from shapely.affinity import rotate

    centres = known.shapes["toy_A1"].geometry
    squares = [rotate(shapely.box(p.x - 4, p.y - 4, p.x + 4, p.y + 4), turned, use_radians=True) for p in centres]
    for polygons, area, n_vertices in (
        (squares, 64, 5),
        ([square.union(square.buffer(1)) for square in squares], None, 26),
    ):
        known.shapes["toy_A1"] = ShapesModel.parse(
            gpd.GeoDataFrame(geometry=polygons, index=centres.index),
            transformations=get_transformation(known.shapes["toy_A1"], get_all=True),
        )
        size = None if area else 1  # squares touch as they are
        dots = layers(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False, size=size))[1]
        assert (len(dots.get_paths()[0].vertices) == 5) == (n_vertices == 5)
        if area is not None:
            np.testing.assert_allclose(dots.get_widths(), 8)
            np.testing.assert_allclose(np.abs(dots.get_angles()), np.degrees(turned), atol=1e-6)
        else:
            np.testing.assert_allclose(dots.get_widths(), 2 * np.sqrt(polygons[0].area / np.pi))


def test_neighbours_nearly_touch_by_default_and_a_size_is_that_of_real_spots(known: SpatialData):
    circles = known.shapes["toy_A1"]
    touching = layers(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False))[1].get_widths()
    assert 0.9 * 32 < touching[0] <= 32  # the pitch
    dots = layers(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False, size=1))[1]
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([circles.geometry.x, circles.geometry.y]))
    np.testing.assert_allclose(dots.get_widths(), 2 * circles["radius"].iloc[0])
    np.testing.assert_allclose(dots.get_heights(), 2 * circles["radius"].iloc[0])
    larger = layers(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False, size=1.5))[1]
    np.testing.assert_allclose(larger.get_widths(), 3 * circles["radius"].iloc[0])


def test_discs_cover_the_area_that_their_diameter_on_the_slide_says():
    ax = h2e.pl.spatial_pred(one_slide(), "EPCAM")
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[:, :, :3]
    x0, y0, x1, y1 = ax.get_window_extent().extents
    inside = pixels[::-1][int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
    per_unit = np.diff(ax.transData.transform([(0, 0), (1, 0)])[:, 0])[0]
    covered = (inside.astype(int).sum(axis=2) < 3 * 250).sum()
    assert covered == pytest.approx(24 * np.pi * (4.85 * per_unit) ** 2, rel=0.1)  # two without a value


def test_the_scale_bar_is_as_long_as_it_says(known: SpatialData):
    first, second = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1")
    assert len(second.lines) == 0
    number, unit = re.fullmatch(r"(\d+) (µm|mm)", first.texts[0].get_text()).groups()
    um = float(number) * {"µm": 1, "mm": 1000}[unit]
    length = np.ptp(first.lines[0].get_xdata()) * known["table"].obs["um_per_px"].iloc[0]
    assert length == pytest.approx(um)
    assert str(um)[0] in "125"
    assert 0.08 < np.ptp(first.lines[0].get_xdata()) / np.ptp(first.get_xlim()) <= 0.25
    assert len(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", scale_bar=False)[0].lines) == 0


def test_slides_of_about_one_size_have_equal_scale_bars(known: SpatialData):
    sizes = {"toy_A1": 1.0, "toy_A2": 1.9, "toy_B1": 9.0}
    del known["table"].obs["um_per_px"]
    axes = h2e.pl.spatial_pred(known, "TOY01", slides=list(sizes), um_per_px=sizes, measured=False)
    labels = [ax.texts[0].get_text() for ax in axes]
    assert labels[0] == labels[1] != labels[2]
    for ax, um_per_px in zip(axes, sizes.values(), strict=True):
        number, unit = ax.texts[0].get_text().split()
        length = np.ptp(ax.lines[0].get_xdata()) * um_per_px
        assert length == pytest.approx(float(number) * {"µm": 1, "mm": 1000}[unit])


@pytest.mark.parametrize("free", ["left", "right"])
def test_the_scale_bar_lies_where_fewer_spots_are(free: str):
    xy = 10.0 * np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2)
    beside = xy[:, 0] < 30 if free == "left" else xy[:, 0] > 80
    xy = xy[~(beside & (xy[:, 1] > 80))]
    adata = ad.AnnData(np.zeros((len(xy), 1), np.float32), obsm={"spatial": xy})
    adata.obs["um_per_px"] = 4.0
    adata.obsm["h2e"] = pd.DataFrame({"EPCAM": xy[:, 0]}, index=adata.obs_names)
    x = h2e.pl.spatial_pred(adata, "EPCAM").lines[0].get_xdata()
    assert (np.asarray(x) < 55).all() == (free == "left")
    assert (np.asarray(x) > 55).all() == (free == "right")


@pytest.mark.parametrize(("um", "expected"), [(1, 1), (1.9, 1), (2, 2), (499, 200), (500, 500), (0.07, 0.05)])
def test_a_scale_bar_is_round(um: float, expected: float):
    assert round_length(um) == pytest.approx(expected)


def test_uncertain_spots_are_transparent_and_only_those_predicted(known: SpatialData):
    predicted, measured = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", alpha_by_std=True)
    spread = known["table"].obsm["h2e_std"]["TOY01"].to_numpy()[rows_of(known, "toy_A1")]
    alpha = layers(predicted)[1].get_alpha()
    there = np.isfinite(spread)
    assert stats.spearmanr(alpha[there], spread[there]).statistic == pytest.approx(-1)
    assert alpha[there].max() == 1
    assert 0 < alpha[there].min() < 0.2
    assert layers(measured)[1].get_alpha() is None
    predicted.figure.canvas.draw()
    gray, dots = layers(predicted)
    np.testing.assert_array_equal(dots.get_facecolor()[~there], gray.get_facecolor())


def test_where_models_have_no_spread_spots_cannot_fade(known: SpatialData):
    with pytest.raises(ValueError, match="held-out predictions come from one model"):
        h2e.pl.spatial_pred(known, "TOY01", slides="toy_B1", alpha_by_std=True)


# ---- what was measured
# --------------------------------------------------------------------------------------------------


def test_targets_that_were_not_measured_are_shown_alone(known: SpatialData):
    table = known["table"]
    for key in ("h2e", "h2e_loo", "h2e_std"):
        table.obsm[key] = table.obsm[key].rename(columns={"TOY01": "ELSEWHERE"})
    axes = h2e.pl.spatial_pred(known, ["ELSEWHERE", "TOY02"], slides="toy_A1")
    assert [ax.get_title().split(",")[0] for ax in axes] == [
        "ELSEWHERE\npredicted",
        "TOY02\npredicted",
        "TOY02\nmeasured",
    ]
    axes = h2e.pl.spatial_pred(known, ["ELSEWHERE", "TOY02", "TOY03"], slides="toy_A1", ncols=4)
    assert [ax.get_subplotspec().colspan.start for ax in axes] == [0, 1, 2, 0, 1]  # a pair is not torn apart
    with pytest.raises(KeyError, match="does not hold \\['ELSEWHERE'\\]"):
        h2e.pl.spatial_pred(known, ["ELSEWHERE", "TOY02"], measured=True)


def test_proportions_are_shown_beside_predictions_of_proportions(known: SpatialData):
    table = known["table"]
    truth = table.obsm["proportions"]
    table.obsm["h2e"] = (truth * 0.5).astype(np.float32)
    table.uns["h2e"]["unit"] = "as in obsm['proportions']"
    del table.obsm["h2e_loo"]
    axes = h2e.pl.spatial_pred(known, truth.columns[1], slides="toy_C1")
    np.testing.assert_allclose(shown(axes[1]), truth.iloc[:, 1][rows_of(known, "toy_C1")])
    assert axes[0].get_title().endswith("r = 1.00")
    assert bar_labels(axes) == ["as in obsm['proportions']"]


def test_a_table_without_counts_shows_predictions_alone_unless_asked(known: SpatialData):
    known["table"].X = known["table"].X.toarray() - 0.5
    assert h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1").get_title() == "TOY01\npredicted"
    with pytest.raises(ValueError, match="negative"):
        h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=True)


def test_log_normalized_values_are_shown_as_they_are(known: SpatialData):
    known["table"].layers["log"] = np.log1p(known["table"].X.toarray())
    axes = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", layer="log", log_normalized=True)
    expected = known["table"][:, "TOY01"].layers["log"].ravel()[rows_of(known, "toy_A1")]
    np.testing.assert_allclose(shown(axes[1]), expected)
    known["table"].X, known["table"].uns["log1p"] = known["table"].layers["log"], {}  # as scanpy marks it
    np.testing.assert_allclose(shown(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1")[1]), expected)


# ---- the image
# ----------------------------------------------------------------------------------------------------------


def watched(sides: tuple[int, ...], chunk: int) -> tuple[list[da.Array], list[tuple[int, int, int]]]:
    """A pyramid that notes which chunks are read: level, row, column."""
    read = []

    def load(level: int, block_info: dict | None = None) -> np.ndarray:
        spot = block_info[None]
        read.append((level, *spot["chunk-location"][1:]))
        return np.full(spot["chunk-shape"], 100 + level, np.uint8)

    arrays = [
        da.map_blocks(
            load, level, dtype=np.uint8, chunks=da.core.normalize_chunks((3, chunk, chunk), (3, side, side)),
            meta=np.empty((0, 0, 0), np.uint8),
        )
        for level, side in enumerate(sides)
    ]  # fmt: skip
    return arrays, read


def slide_on(levels: list[da.Array]) -> SpatialData:
    """Spots in the right lower quarter of an image."""
    from h2e.datasets._cohort import multiscale_image

    side = levels[0].shape[1]
    axis = np.linspace(0.6, 0.9, 8) * side
    xy = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    circles = ShapesModel.parse(xy, geometry=0, radius=10.0)
    table = ad.AnnData(np.ones((64, 1), np.float32), var=pd.DataFrame(index=["EPCAM"]))
    table.obs["region"] = pd.Categorical(["s"] * 64)
    table.obs["instance"] = np.arange(64)
    table.obsm["h2e"] = pd.DataFrame({"EPCAM": np.arange(64.0)}, index=table.obs_names)
    table = TableModel.parse(table, region="s", region_key="region", instance_key="instance")
    image = (
        multiscale_image(levels, "global") if len(levels) > 1 else Image2DModel.parse(levels[0], dims=("c", "y", "x"))
    )
    return SpatialData(
        images={"he": image}, shapes={"s": ShapesModel.parse(circles, transformations=None)}, tables={"table": table}
    )


def test_only_the_chunks_under_the_spots_are_read_from_the_level_that_fits():
    levels, read = watched((4096, 2048, 1024, 512), 256)
    sdata = slide_on(levels)
    read.clear()
    figure, axis = plt.subplots(figsize=(3, 3))
    inches = axis.get_window_extent().width / figure.dpi
    h2e.pl.spatial_pred(sdata, "EPCAM", measured=False, ax=axis)
    box = np.ptp(axis.get_xlim())
    expected = max(i for i in range(4) if 2**i <= box / (inches * 200))
    assert expected == 1  # neither the finest nor the coarsest
    assert {level for level, _, _ in read} == {expected}
    first, last = np.array(axis.get_xlim()) / 2 // 256
    assert {column for _, _, column in read} == set(range(int(first), int(last) + 1))
    assert len(read) == len(set(read))


def test_a_larger_picture_reads_a_finer_level():
    levels, read = watched((4096, 2048, 1024, 512), 256)
    sdata = slide_on(levels)
    for inches, level in ((1, 3), (3, 1), (9, 0)):
        read.clear()
        axis = plt.figure(figsize=(inches, inches)).add_axes((0, 0, 1, 1))
        h2e.pl.spatial_pred(sdata, "EPCAM", measured=False, ax=axis)
        assert {found for found, _, _ in read} == {level}


def test_the_image_lies_where_its_pixels_are(known: SpatialData):
    ax = h2e.pl.spatial_pred(known, "TOY01", slides="toy_B1", measured=False)
    picture = ax.images[0]
    left, right, bottom, top = picture.get_extent()
    pixels = np.asarray(known.images["toy_B1_image"]["scale0"]["image"].data)
    drawn = picture.get_array()
    assert (right - left) / drawn.shape[1] == (bottom - top) / drawn.shape[0] == 1
    np.testing.assert_array_equal(drawn, pixels[:, int(top) : int(bottom), int(left) : int(right)].transpose(1, 2, 0))
    x0, x1 = ax.get_xlim()
    assert left <= max(x0, 0)
    assert right >= min(x1, pixels.shape[2])


def test_an_image_without_coarse_levels_is_averaged_where_it_lies():
    _, read = watched((64,), 64)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 96, 128), np.uint8)
    from h2e._slide.image import Image

    picture, part = read_box(Image("he", (da.from_array(pixels, chunks=(3, 32, 32)),), (1.0,)), (30.5, 8, 90, 40), 4.0)
    assert part == (30, 8, 90, 40)
    expected = pixels[:, 8:40, 30:90].reshape(3, 8, 4, 15, 4).mean(axis=(2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(picture, expected, atol=0.51)
    assert read == []


def test_the_image_can_be_left_out(known: SpatialData):
    ax = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False, image=False)
    assert len(ax.images) == 0


def test_only_the_image_is_pixels_in_vector_graphics(known: SpatialData, tmp_path: Path):
    ax = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False)
    with plt.rc_context({"svg.fonttype": "none"}):
        ax.figure.savefig(tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert 1 <= text.count("<image") <= 2  # the slide, and the colours of the bar
    assert text.count("<use") >= rows_of(known, "toy_A1").sum()


# ---- arguments
# ----------------------------------------------------------------------------------------------------------


def test_by_default_the_first_two_targets_of_all_slides_with_predictions_are_shown(known: SpatialData):
    known["table"].obsm["h2e_loo"][rows_of(known, "toy_C1")] = np.nan
    axes = h2e.pl.spatial_pred(known)
    assert [ax.get_ylabel() for ax in axes if ax.get_ylabel()] == ["toy_A1", "toy_A2", "toy_B1"]
    assert {ax.get_title().split("\n")[0] for ax in axes} == set(GENES[:2])


@pytest.mark.parametrize(
    ("ncols", "columns"), [(6, [0, 1, 2, 3, 4, 5]), (4, [0, 1, 2, 3, 0, 1]), (3, [0, 1, 0, 1, 0, 1]), (1, [0, 1] * 3)]
)
def test_a_prediction_and_its_measurement_stand_in_one_row(known: SpatialData, ncols: int, columns: list[int]):
    axes = h2e.pl.spatial_pred(known, GENES, slides="toy_A1", ncols=ncols)
    assert [ax.get_subplotspec().colspan.start for ax in axes] == columns


def test_several_slides_share_a_row_if_they_fit(known: SpatialData):
    axes = h2e.pl.spatial_pred(known, "TOY01", ncols=6)
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0] * 6 + [1] * 2


def test_maps_are_drawn_on_the_axes_given(known: SpatialData):
    axes = plt.subplots(1, 2)[1]
    assert list(h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", ax=axes)) == list(axes)
    alone = plt.subplots()[1]
    assert h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", measured=False, ax=alone) is alone
    with pytest.raises(ValueError, match="ax has 1 Axes, this plot draws on 2: maps"):
        h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1", ax=alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "other"}, r"'other' is not in adata.obsm; it has \[.*'h2e'.*h2e.tl.predict"),
        ({"targets": "TOY1"}, r"\['TOY1'\] are not there; there are 'TOY01'.*Did you mean.*TOY01"),
        ({"targets": []}, "is empty"),
        ({"targets": ["TOY01", "donor"]}, "'donor' is a column of obs.*squidpy.*color='donor'"),
        ({"slides": "toy_B9"}, r"slides \['toy_B9'\] are not there; there are 'toy_A1'.*Did you mean"),
        ({"table_key": "spots"}, "it has \\['table'\\]"),
    ],
)
def test_errors_say_what_is_there(known: SpatialData, arguments: dict, message: str):
    with pytest.raises(KeyError, match=message):
        h2e.pl.spatial_pred(known, **arguments)


def test_a_row_holds_at_least_one_map(known: SpatialData):
    with pytest.raises(ValueError, match="ncols must be at least 1, got 0"):
        h2e.pl.spatial_pred(known, ncols=0)


@pytest.mark.parametrize("letters", [10, 16])
def test_titles_lie_within_the_figure_and_apart(known: SpatialData, letters: int):
    with plt.rc_context({"font.size": letters}):
        axes = h2e.pl.spatial_pred(known, GENES[:2], slides="toy_B1")
        axes[0].figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert all(box.y1 <= axes[0].figure.bbox.height for box in boxes)
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


# ---- training
# -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble(cohort_source: SpatialData) -> h2e.Ensemble:
    losses = [
        {"learner": learner, "held_out": group, "epoch": epoch, "loss": 1 / epoch + i, "seconds": 1.0}
        for learner in ("multiscale", "multiscale 2")
        for i, group in enumerate("AB–")
        for epoch in (1, 2, 3)
    ]
    found = h2e.tl.fit(cohort_source, targets=GENES, learners="mean", group_key="donor", progress=False)
    return dataclasses.replace(found, history=pd.DataFrame(losses))


def test_history_has_a_line_for_each_model(ensemble: h2e.Ensemble):
    ax = h2e.pl.history(ensemble)
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {
        f"{learner}, {what}"
        for learner in ("multiscale", "multiscale 2")
        for what in ("without A", "without B", "all groups")
    }  # fmt: skip
    line = lines["multiscale, without B"]
    np.testing.assert_allclose(line.get_xydata(), [(1, 2), (2, 1.5), (3, 1 / 3 + 1)])
    assert (
        line.get_color() == lines["multiscale 2, without B"].get_color() != lines["multiscale, without A"].get_color()
    )
    assert line.get_linestyle() != lines["multiscale 2, without B"].get_linestyle()


def test_history_of_what_was_not_trained_in_epochs_is_refused(ensemble: h2e.Ensemble):
    with pytest.raises(ValueError, match="none of its learners is trained in epochs"):
        h2e.pl.history(dataclasses.replace(ensemble, history=ensemble.history[:0]))


@pytest.fixture
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (group, slide, target, metric, level + rng.normal(0, 0.1), 50, method)
        for group, slide in (("A", "A1"), ("A", "A2"), ("B", "B1"))
        for target, level in (("low", 0.1), ("high", 0.8), ("middle", 0.4))
        for metric in ("pearson", "skill")
        for method in ("baseline: mean", "without knn", "ensemble")
        if (group, target) != ("B", "low")  # targets are chosen anew without each group
    ]
    return pd.DataFrame(rows, columns=["group", "slide", "target", "metric", "value", "n_spots", "method"])


def test_target_scores_are_sorted_and_show_each_group_and_their_mean(scores: pd.DataFrame):
    ax = h2e.pl.target_scores(scores, metric="skill")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["high", "middle", "low"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the best at the top
    of_skill = scores[(scores["metric"] == "skill") & (scores["method"] == "ensemble")]
    by_group = of_skill.groupby(["target", "group"])["value"].mean()
    groups, means = ax.collections[1:3]
    np.testing.assert_allclose(np.sort(groups.get_offsets()[:, 0]), np.sort(by_group))
    expected = by_group.groupby("target").mean()
    got = {round(float(y)): float(x) for x, y in means.get_offsets()}
    assert got == pytest.approx({i: expected[name] for i, name in enumerate(["high", "middle", "low"])})


def test_a_target_of_one_group_is_hollow(scores: pd.DataFrame):
    with plt.style.context("dark_background"):
        ax = h2e.pl.target_scores(scores)
    hollow = [tuple(color) == ax.get_facecolor() for color in ax.collections[2].get_facecolor()]
    assert dict(zip(ax.collections[2].get_offsets()[:, 1].round(), hollow, strict=True)) == {
        0: False,
        1: False,
        2: True,
    }
    single = h2e.pl.target_scores(scores[scores["group"] == "A"])
    assert (single.collections[2].get_facecolor()[:, :3] != 1).any(axis=1).all()


def test_of_many_targets_the_best_and_the_worst_fit_on_a_page_with_their_legend(scores: pd.DataFrame):
    one = scores[scores["target"] == "low"]
    many = pd.concat([one.assign(target=f"G{i:02}", value=one["value"] - i) for i in range(64)])
    ax = h2e.pl.target_scores(many, methods=["ensemble", "baseline: mean"])
    ax.figure.canvas.draw()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"G{i:02}" for i in range(15)] + ["… 34 more …"] + [f"G{i:02}" for i in range(49, 64)]
    assert ax.figure.get_figheight() < 11
    drawn = ax.collections[2].get_offsets()
    assert sorted(drawn[:, 1].round()) == [*range(15), *range(16, 31)]
    few = h2e.pl.target_scores(scores)
    few.figure.canvas.draw()
    for figure in (ax.figure, few.figure):
        box = figure.axes[0].get_legend().get_window_extent()
        assert box.x0 >= 0 and box.y1 <= figure.bbox.height and box.x1 <= figure.bbox.width  # noqa: PT018
    told = float(ax.get_legend().get_texts()[0].get_text().split("(")[1].rstrip(")").replace("−", "-"))
    of_all = many[(many["method"] == "ensemble") & (many["metric"] == "pearson")]
    assert told == pytest.approx(of_all["value"].mean(), abs=0.006)


def test_methods_are_named_with_the_same_mean_as_the_summary_baselines_last(scores: pd.DataFrame):
    ax = h2e.pl.target_scores(scores)
    summary = h2e.metrics.summarize(scores).query("metric == 'pearson'").set_index("method")["mean"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"{name} ({summary[name]:.2f})" for name in ("ensemble", "baseline: mean")]
    several = h2e.pl.target_scores(scores[scores["method"] != "ensemble"])
    assert [text.get_text().split(" (")[0] for text in several.get_legend().get_texts()] == [
        "without knn",
        "baseline: mean",
    ]


def test_some_methods_are_shown_in_the_order_asked_for(scores: pd.DataFrame):
    ax = h2e.pl.target_scores(scores, methods=["baseline: mean", "ensemble"])
    assert [text.get_text().split(" (")[0] for text in ax.get_legend().get_texts()] == ["baseline: mean", "ensemble"]
    alone = h2e.pl.target_scores(scores, methods="ensemble")
    assert len(alone.get_legend().get_texts()) == 1
    for methods in (["other"], []):
        with pytest.raises(
            KeyError, match=r"not in these scores; they have \['ensemble', 'without knn', 'baseline: mean'\]"
        ):
            h2e.pl.target_scores(scores, methods=methods)


def test_scores_without_methods_and_with_undefined_values_are_shown(scores: pd.DataFrame):
    alone = scores[scores["method"] == "ensemble"].drop(columns="method")
    alone.loc[alone["target"] == "low", "value"] = np.nan
    ax = h2e.pl.target_scores(alone, ax=plt.subplots()[1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["high", "middle"]


def test_a_metric_that_was_not_scored_is_refused(scores: pd.DataFrame):
    with pytest.raises(KeyError, match=r"'ccc' has no value in these scores; they have \['pearson', 'skill'\]"):
        h2e.pl.target_scores(scores, metric="ccc")
    with pytest.raises(KeyError, match=r"lack the columns \['group'\]"):
        h2e.pl.target_scores(scores.drop(columns="group"))


# ---- whatever the style and the way of asking
# ---------------------------------------------------------------------------


def test_a_picture_is_upright_and_its_marks_are_black_in_any_style(known):
    h2e.pp.realign_spots(known)
    with plt.style.context(["dark_background", {"image.origin": "lower", "axes.grid": True}]):
        first = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A2")[0]
        second = h2e.pl.tissue(known, image_key="toy_A2_image")[0]
        heat = h2e.pl.target_overview(known, GENES[:3])[1]
    for ax in (first, second):
        assert ax.images[0].origin == "upper"
        assert all(text.get_color() == "black" for text in ax.texts)
        assert ax.texts
    assert first.get_facecolor()[:3] == (1, 1, 1)
    assert not any(line.get_visible() for line in heat.get_xgridlines())


def test_bounds_of_intervals_are_called_so(known):
    table = known["table"]
    table.obsm["h2e_lower"], table.obsm["h2e_upper"] = table.obsm["h2e"] - 1, table.obsm["h2e"] + 1
    for end in ("lower", "upper"):
        axes = h2e.pl.spatial_pred(known, "TOY01", key=f"h2e_{end}", slides="toy_A1")
        assert axes[0].get_title() == f"TOY01\n{end} end of the interval"


def test_colour_maps_axes_of_a_mosaic_and_targets_named_twice_are_taken(known):
    _, axes = plt.subplot_mosaic("AB")
    drawn = h2e.pl.spatial_pred(
        known, ["TOY01", "TOY01"], slides="toy_A1", cmap=plt.get_cmap("magma"), ax=axes, measured=True
    )
    assert list(drawn) == list(axes.values())
    assert layers(drawn[0])[1].get_cmap().name == "magma"


@pytest.mark.parametrize(
    "pixels", [np.full((16, 24, 3), 400, np.uint16), np.full((16, 24), 9, np.uint8), 255.0 * np.ones((16, 24, 3))]
)
def test_pictures_of_unknown_values_are_left_out_with_a_warning(pixels, caplog):
    adata = one_slide()
    factors = {"tissue_hires_scalef": 0.4, "spot_diameter_fullres": 5.0}
    adata.uns["spatial"] = {"S1": {"images": {"hires": pixels}, "scalefactors": factors}}
    assert not h2e.pl.spatial_pred(adata, "EPCAM").images
    assert "is not shown" in caplog.text


def test_the_scale_bar_is_in_the_unit_of_the_positions_that_are_shown():
    adata = one_slide()
    adata.obs["um_per_px"] = 4.0  # of the shapes
    adata.uns["spatial"] = {"S1": {"scalefactors": {"microns_per_pixel": 8.0}}}
    bar = h2e.pl.spatial_pred(adata, "EPCAM").lines[0]
    label = h2e.pl.spatial_pred(adata, "EPCAM").texts[0].get_text()
    assert np.ptp(bar.get_xdata()) * 8 == pytest.approx(float(label.removesuffix(" µm")))


def test_what_was_measured_is_of_the_layer_that_was_learned(known):
    table = known["table"]
    expected = measured(table, GENES)
    table.layers["counts"] = table.X.copy()
    table.X = table.X * 0.37
    table.uns["h2e"]["params"]["layer"] = "counts"
    axes = h2e.pl.spatial_pred(known, "TOY01", slides="toy_A1")
    np.testing.assert_allclose(shown(axes[1]), expected["TOY01"][rows_of(known, "toy_A1")], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:6.25 µm per pixel of table.obs are taken for image 'small'")
def test_the_tissue_of_one_of_several_images_has_its_spots(cohort):
    element = cohort.images["toy_A1_image"]
    cohort.images["small"] = Image2DModel.parse(
        element["scale1"]["image"].data, dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        transformations={"toy_A1": Scale([2, 2], ("x", "y"))},
    )  # fmt: skip
    for key in ("small", "toy_A1_image"):
        (axes,) = h2e.pl.tissue(cohort, image_key=key)
        assert axes.get_title() == "toy_A1: 60 spots, 1 invalid"


def test_stains_enlarge_the_same_coloured_part_before_and_after(cohort):
    h2e.pp.normalize_stains(cohort)
    axes = h2e.pl.stains(cohort, image_key="toy_A1_image")[:, 0]
    parts = [np.asarray(ax.images[0].get_array(), float) for ax in axes[2:]]
    assert axes[2].images[0].get_extent() == axes[3].images[0].get_extent()
    left, right, bottom, top = axes[2].images[0].get_extent()
    pixels = np.asarray(cohort.images["toy_A1_image"]["scale0"]["image"].data).transpose(1, 2, 0)
    np.testing.assert_array_equal(parts[0], pixels[int(top) : int(bottom), int(left) : int(right)])
    assert np.ptp(parts[0], axis=2).mean() > np.ptp(pixels.astype(float), axis=2).mean()
    assert np.abs(parts[1] - parts[0]).max() > 0
    frame = next(patch for patch in axes[0].patches if not patch.get_fill()).get_bbox()
    np.testing.assert_allclose((frame.x0, frame.y0), (left, top), atol=1)


def test_many_slides_stand_in_rows_and_their_names_do_not_overlap(cohort):
    table = cohort["table"]
    table.obs["many"] = [f"a_long_name_{i % 14}" for i in range(table.n_obs)]
    axes = h2e.pl.target_overview(table, GENES, library_key="many", n_maps=1)
    plt.gcf().canvas.draw()
    boxes = [label.get_window_extent() for label in axes[-1].get_xticklabels()]
    assert len(boxes) == 14
    assert all(label.get_rotation() == 30 for label in axes[-1].get_xticklabels())
