"""The plot of what a score is made of shows the figures of the summary."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import h2e

METHODS = ["ensemble", "baseline: coordinates", "oracle: depth", "ceiling"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def scores() -> pd.DataFrame:
    rng, parts = np.random.default_rng(0), []
    for metric in ("pearson", "pearson_equal_depth", "pearson_no_biology"):
        for method in METHODS[: 3 if metric == "pearson_no_biology" else 4]:
            for group in "ABC":
                columns = {"group": group, "slide": group + "1", "target": ["g", "h"], "metric": metric}
                parts.append(pd.DataFrame(columns | {"value": rng.uniform(0, 0.6, 2), "n_spots": 9, "method": method}))
    return pd.concat(parts, ignore_index=True)


def test_means_worst_groups_and_ceilings_are_those_of_the_summary(scores):
    ax = h2e.pl.scores(scores)
    assert [label.get_text() for label in ax.get_yticklabels()] == METHODS[:3]
    table = h2e.metrics.summarize(scores).set_index(["metric", "method"])
    drawn = {dots.get_label(): dots.get_offsets()[:, 0] for dots in ax.collections}
    for metric, label in {
        "pearson": "Pearson, mean over groups",
        "pearson_equal_depth": "at equal depth, mean over groups",
        "pearson_no_biology": "Pearson without biology",
    }.items():
        np.testing.assert_allclose(drawn[label], table.loc[metric].loc[METHODS[:3], "mean"])
    lines = {line.get_label(): line for line in ax.lines}
    for metric, label in {"pearson": "Pearson, ceiling", "pearson_equal_depth": "at equal depth, ceiling"}.items():
        assert set(lines[label].get_xdata()) == {table.loc[(metric, "ceiling"), "mean"]}
    named = [(text.get_text(), text.xy[0]) for text in ax.texts]
    for metric in ("pearson", "pearson_equal_depth"):
        for method in METHODS[:3]:
            assert tuple(table.loc[(metric, method), ["worst_group", "worst"]]) in named
    # Every group is a dot.
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == 2 * 3 * 3


def test_scores_without_counts_are_drawn_plain(scores):
    plain = scores[(scores["metric"] == "pearson") & (scores["method"] != "ceiling")]
    ax = h2e.pl.scores(plain, methods="ensemble", ax=plt.figure().subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Pearson, mean over groups"]
    with pytest.raises(KeyError, match=r"methods \['magic'\] have no Pearson correlation"):
        h2e.pl.scores(scores, methods="magic")
    with pytest.raises(KeyError, match="have no Pearson"):
        h2e.pl.scores(plain.drop(columns="method"))
