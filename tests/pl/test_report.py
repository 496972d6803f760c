"""The picture of the report shows its figures, and which slides are odd."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import h2e
from h2e.pl._report import FIGURES, ODD


def table_with(n: int) -> AnnData:
    """Keep a report of slides of which one is blurred."""
    rng = np.random.default_rng(0)
    figures = pd.DataFrame({name: rng.normal(0, 0.01, n) for name in FIGURES}, index=[f"S{i}" for i in range(n)])
    figures.loc["S1", "sharpness"] = -2
    words = ["sharpness is -2, of all slides 0" if name == "S1" else "" for name in figures.index]
    return AnnData(uns={"h2e": {"report": figures.assign(warnings=words).rename_axis("slide")}})


@pytest.mark.parametrize("n", [2, 30])
def test_each_figure_is_drawn_a_row_a_slide_and_what_is_odd_is_named(n: int):
    table = table_with(n)
    report = h2e.get.report(table)
    axes = h2e.pl.report(table)
    assert len(axes) == len(FIGURES) + 1
    for axis, name in zip(axes, FIGURES, strict=False):
        (dots,) = axis.collections
        np.testing.assert_allclose(dots.get_offsets(), np.column_stack([report[name], np.arange(n)]))
        odd = (dots.get_facecolors() == plt.matplotlib.colors.to_rgba(ODD)).all(axis=1)
        # Two slides do not tell which of them is odd.
        assert odd.tolist() == [n > 2 and name == "sharpness" and row == 1 for row in range(n)]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == report.index.tolist()
    assert [label.get_color() == ODD for label in axes[0].get_yticklabels()] == (report.index == "S1").tolist()
    assert [text.get_text() for text in axes[-1].texts] == report["warnings"].tolist()
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]
    plt.close("all")


def test_an_older_report_is_drawn_as_far_as_it_goes():
    old = pd.DataFrame({"um_per_px": [0.5, 0.5], "shift": [0.1, np.nan]}, index=pd.Index(["a", "b"], name="slide"))
    axes = h2e.pl.report(AnnData(uns={"h2e": {"report": old}}))
    assert axes[0].collections[0].get_offsets()[:, 0].tolist() == [0.5, 0.5]
    assert np.isnan(np.ma.filled(axes[3].collections[0].get_offsets()[:, 0], np.nan)).all()
    plt.close("all")


def test_a_report_prints_all_of_its_columns_on_lines_of_100_characters():
    report = h2e.get.report(table_with(3))
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(any(f" {column}" in line for line in lines) for column in report.columns)
    assert type(report[["sharpness"]]) is pd.DataFrame
