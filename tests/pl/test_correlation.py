"""The heat map of the learners' errors shows every pair once on each side, in the order of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import h2e

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["texture", "knn", "multiscale"]


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def correlations() -> pd.DataFrame:
    values = [[1.0, 0.91, -0.2], [0.91, 1.0, 0.35], [-0.2, 0.35, 1.0]]
    return pd.DataFrame(values, index=NAMES, columns=NAMES)


def test_cells_have_the_values_of_the_frame_the_first_learner_in_the_upper_left(correlations: pd.DataFrame):
    ax = h2e.pl.residual_correlation(correlations)
    (cells,) = ax.collections
    np.testing.assert_array_equal(np.ma.getdata(cells.get_array()), correlations)
    assert [label.get_text() for label in ax.get_xticklabels()] == NAMES
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_xlim()[0] < ax.get_xlim()[1]
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in ax.texts}
    assert written == {(0, 1): "0.91", (0, 2): "−0.20", (1, 0): "0.91", (1, 2): "0.35", (2, 0): "−0.20", (2, 1): "0.35"}


def test_colours_do_not_depend_on_the_values_and_are_white_at_0(correlations: pd.DataFrame):
    (cells,) = h2e.pl.residual_correlation(correlations, ax=plt.subplots()[1]).collections
    assert cells.get_clim() == (-1, 1)
    assert min(cells.cmap(cells.norm(0.0))[:3]) > 0.95


def test_every_number_can_be_read_on_its_cell(correlations: pd.DataFrame):
    ax = h2e.pl.residual_correlation(correlations)
    (cells,) = ax.collections

    def luminance(colour: object) -> float:
        rgb = np.array(plt.matplotlib.colors.to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    for value in np.linspace(-1, 1, 41):
        other = pd.DataFrame([[1, value], [value, 1]], index=NAMES[:2], columns=NAMES[:2])
        text = h2e.pl.residual_correlation(other, ax=plt.figure().subplots()).texts[0]
        pair = sorted([luminance(text.get_color()), luminance(cells.cmap(cells.norm(value)))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5  # WCAG AA
        plt.close("all")


def test_what_is_not_known_is_gray(correlations: pd.DataFrame):
    correlations.loc["knn", "texture"] = correlations.loc["texture", "knn"] = np.nan
    ax = h2e.pl.residual_correlation(correlations)
    assert np.ma.getmaskarray(ax.collections[0].get_array()).sum() == 2
    assert ax.texts[0].get_text() == "–"


def test_frames_that_hold_no_correlations_of_pairs_are_refused(correlations: pd.DataFrame):
    with pytest.raises(ValueError, match="the same learners, in one order"):
        h2e.pl.residual_correlation(correlations[NAMES[::-1]])
    with pytest.raises(ValueError, match="the same learners"):
        h2e.pl.residual_correlation(correlations.iloc[:0, :0])
    with pytest.raises(ValueError, match="not within"):
        h2e.pl.residual_correlation(correlations * 2)
    correlations.iloc[0, 1] = 0.1
    with pytest.raises(ValueError, match="not symmetric"):
        h2e.pl.residual_correlation(correlations)
