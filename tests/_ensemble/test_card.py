"""The card of an ensemble, and ensembles that are saved without the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import h2e

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

pytestmark = pytest.mark.usefixtures("quick_models")


@pytest.fixture(scope="module")
def fitted(few_source: SpatialData, quick_models: None) -> h2e.Ensemble:
    """Train on the small slides, which are not changed."""
    learners = [h2e.tl.Texture(), "knn", h2e.tl.Embedding(lambda images: images.mean((2, 3)), px=8), "embedding"]
    return h2e.tl.fit(few_source, learners=learners, targets=["TOY01", "TOY02"], group_key="donor", progress=False)


def test_the_card_tells_training_data_encoders_and_scores(fitted: h2e.Ensemble, tmp_path: Path):
    scores = pd.DataFrame(
        [("ensemble", "A", "A1", "TOY01", "pearson", 0.2), ("ensemble", "B", "B1", "TOY01", "pearson", 0.4)],
        columns=["method", "group", "slide", "target", "metric", "value"],
    )
    card = fitted.card(scores)
    n_spots = (fitted.training["slide"] == "toy_A1").sum()
    told = [
        f"| toy_A1 | A | {n_spots} | 6.25 |", "TOY01, TOY02. Unit: log-normalized", "| ensemble | 0.3 |",
        "'encoder': '<lambda>'", "'encoder': 'shell'", "licence: MIT", "models of nearest neighbours: knn\n",
        f"features of {len(fitted.training)} training spots", "measured targets, held-out predictions",
    ]  # fmt: skip
    assert [part for part in told if part not in card] == []
    fitted.save(tmp_path / "one", scores=scores)
    assert (tmp_path / "one" / "README.md").read_text() == card
    fitted.save(tmp_path / "one")
    assert (tmp_path / "one" / "README.md").read_text() == fitted.card()
    (tmp_path / "one" / "README.md").write_text("# Mine")
    fitted.save(tmp_path / "one", scores=scores)
    assert (tmp_path / "one" / "README.md").read_text() == "# Mine"


def test_without_the_training_data_new_slides_are_predicted_the_same(
    fitted: h2e.Ensemble, two_slides: SpatialData, tmp_path: Path
):
    fitted.save(tmp_path / "whole")
    fitted.save(tmp_path / "private", private=True)
    encoders = {"embedding": fitted.learners[2].encoder}
    whole, private = (h2e.Ensemble.load(tmp_path / name, encoders=encoders) for name in ("whole", "private"))
    new = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=6, seed=1)
    kept = []
    for ensemble in (whole, private):
        h2e.tl.predict(new, ensemble, progress=False)
        kept.append(
            {**new["table"].obsm, **new["table"].obs[["h2e_novelty"]], "uns": pd.Series(new["table"].uns["h2e"])}
        )
    assert kept[0].keys() == kept[1].keys() >= {"h2e", "h2e_lower", "h2e_upper", "h2e_std"}
    for name, values in kept[0].items():
        assert kept[1][name].equals(values) if hasattr(values, "equals") else (kept[1][name] == values).all()
    pd.testing.assert_series_equal(private.held_out_skill(), whole.held_out_skill())
    with pytest.raises(ValueError, match="saved with private=True; load one that was not"):
        private.error_correlation()
    # Nothing that was measured, and no name or place of a spot, is in the folder; models hold what they predict by.
    text = (tmp_path / "private" / "ensemble.json").read_text()
    names = {instance for _, instance in fitted.training.index}
    assert names
    assert not [name for name in names if f'"{name}"' in text]
    arrays = np.concatenate([a.ravel() for a in (private.truth, private.held_out, private.loo.to_numpy())])
    assert not arrays.size
    assert not private.thumbnails
    assert set(private.training) == {"slide", "group"}
    errors = np.sort(fitted.calibration[fitted.training["group"] == "A"], axis=0)
    np.testing.assert_array_equal(private.calibration[private.training["group"] == "A"], errors)
    assert "nothing else: saved with `private=True`" in (tmp_path / "private" / "README.md").read_text()
    private.save(tmp_path / "again")
    assert h2e.Ensemble.load(tmp_path / "again", encoders=encoders).card() == private.card()
