"""Features are extracted once where they would be the same."""

from __future__ import annotations

import numpy as np

import h2e
from h2e._ensemble import extraction
from h2e._ensemble.fold_models import Spots
from h2e._sdata.cohort import open_cohort
from h2e._sdata.keys import Keys
from h2e._slide.tiles import View


def test_spacings_that_differ_by_rounding_share_their_features(monkeypatch):
    sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=6)
    table = sdata["table"]
    # The pitch of each slide differs in the seventh digit, as where it was fitted to the positions of spots.
    for i, region in enumerate(sorted(sdata.shapes)):
        table.obs.loc[table.obs["region"] == region, "um_per_px"] = 6.25 * (1 + 3e-7 * i)
    seen = []
    real = extraction.extract_features
    monkeypatch.setattr(
        extraction, "extract_features", lambda slide, *a, **k: seen.append(slide.name) or real(slide, *a, **k)
    )
    options = {"learners": h2e.tl.Texture(views=(View(1, 8),)), "targets": ["TOY01"], "group_key": "donor"}
    scores = h2e.tl.evaluate(sdata, **options, baselines=["mean"], metrics="pearson", progress=False)
    assert sorted(seen) == sorted(sdata.shapes)
    assert np.isfinite(scores["value"]).all()


def test_evaluate_extracts_the_features_of_a_slide_once_for_every_stain_reference(few, monkeypatch):
    h2e.pp.normalize_stains(few)
    seen, described = [], []
    real, describe = extraction.extract_features, h2e.tl.Texture.extract_features
    monkeypatch.setattr(
        extraction,
        "extract_features",
        lambda slide, learners, **how: seen.append((slide.name, how["reference"])) or real(slide, learners, **how),
    )
    monkeypatch.setattr(
        h2e.tl.Texture, "extract_features", lambda self, tiles: described.append(len(tiles[0])) or describe(self, tiles)
    )
    small = (View(1, 8),)
    learners = [h2e.tl.Texture(views=small), h2e.tl.Texture(views=small, head="knn", k=3)]
    options = {
        "learners": learners,
        "targets": ["TOY01"],
        "group_key": "donor",
        "metrics": "pearson",
        "progress": False,
    }
    h2e.tl.evaluate(few, **options, baselines=["mean"])
    # Three donors are left out, and the two others have a reference of their own each time.
    assert len(seen) == len(set(seen)) == 3 * len(few.shapes)
    # Both learners, whose heads alone differ, share them.
    n_spots = few["table"].n_obs
    assert sum(described) <= 3 * n_spots


def test_learners_with_the_same_features_share_their_memory_and_all_spots_are_no_copy(few):
    small = (View(1, 8),)
    learners = [h2e.tl.Texture(views=small), h2e.tl.Texture(views=small, head="knn"), h2e.tl.Texture()]
    features = extraction.Features(open_cohort(few, Keys(group_key="donor")), progress=False)
    x = features.extract(learners, reference=None, spacing_um=100.0).x
    assert x["texture"] is x["knn"]
    assert x["texture"] is not x["texture 2"]
    n = len(x["knn"])
    spots = Spots(np.arange(n), np.arange(n), x, np.zeros((n, 2), np.float32))
    for rows in (np.arange(n), np.arange(2, n - 1), np.arange(0, n, 2)):
        taken = spots.take(rows)
        assert taken.x["texture"] is taken.x["knn"]
        assert np.shares_memory(taken.x["knn"], x["knn"]) == (rows[1] - rows[0] == 1)
        np.testing.assert_array_equal(taken.x["knn"], x["knn"][rows])
        np.testing.assert_array_equal(taken.slides, rows)
