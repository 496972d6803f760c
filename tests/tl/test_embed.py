"""Features of an encoder in the table, the models that learn from them, and what LazySlide makes of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import h2e

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData

OPTIONS = {"targets": ["TOY01", "TOY02"], "group_key": "donor", "progress": False}


def colours(images: np.ndarray) -> np.ndarray:
    """Stand in for an encoder."""
    return np.concatenate([images.mean((2, 3)), images.std((2, 3))], axis=1).astype(np.float32)


def embed(sdata: SpatialData, **options: object) -> np.ndarray:
    """Embed the centre of each spot."""
    encoder = options.pop("encoder", h2e.tl.Embedding(colours, px=8, tile=0, surroundings=0))
    h2e.tl.embed(sdata, encoder, key_added="X_colours", progress=False, **options)
    return sdata["table"].obsm["X_colours"]


def test_features_in_the_table_are_those_that_the_learner_sees(two_slides: SpatialData, tmp_path: Path):
    one = h2e.tl.Embedding(colours, px=8, tile=0, surroundings=0)
    seen = h2e.tl.fit(two_slides, learners=one, **OPTIONS)
    x = embed(two_slides)
    stored = h2e.tl.fit(two_slides, learners=h2e.tl.Embedding(obsm="X_colours"), **OPTIONS)
    np.testing.assert_array_equal(stored.loo, seen.loo)
    facts = two_slides["table"].uns["h2e"]["params"]["X_colours"]
    spacing = seen.spacing_um
    assert facts == {
        "function": "embed", "encoder": "colours", "views_um": [spacing], "views_px": [8], "image": "as it is",
        "weights": "",
    }  # fmt: skip
    half = embed(two_slides, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, x, rtol=1e-3)
    # What was encoded is not encoded again.
    calls = []

    def counted(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return colours(images)

    learner = h2e.tl.Embedding(counted, px=8, tile=0, surroundings=0, cache=tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(embed(two_slides, encoder=learner), x)
    assert sum(n > 1 for n in calls) == 2


def test_features_that_were_made_otherwise_are_refused(two_slides: SpatialData, tmp_path: Path):
    new = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=6, seed=1)
    embed(two_slides)
    ensemble = h2e.tl.fit(two_slides, learners=h2e.tl.Embedding(obsm="X_colours"), **OPTIONS)
    ensemble.save(tmp_path / "ensemble")
    ensemble = h2e.Ensemble.load(tmp_path / "ensemble")
    spacing = ensemble.spacing_um
    embed(new, spacing_um=spacing)
    h2e.tl.predict(new, ensemble, progress=False)
    before = new["table"].obsm["h2e"]
    embed(new, spacing_um=2 * spacing)
    with pytest.raises(ValueError, match=r"trained on, \{'views_um': \[200.*got \{'views_um': \[400"):
        h2e.tl.predict(new, ensemble, progress=False)
    h2e.pp.normalize_stains(new)
    embed(new, spacing_um=spacing, normalized=True)
    with pytest.raises(ValueError, match=r"'as it is'.*got \{'image': 'normalized, "):
        h2e.tl.predict(new, ensemble, progress=False)
    embed(new, spacing_um=spacing)
    del new["table"].uns["h2e"]["params"]
    with pytest.warns(UserWarning, match=r"nothing is on record about obsm\['X_colours'\]"):
        h2e.tl.predict(new, ensemble, progress=False)
    np.testing.assert_allclose(new["table"].obsm["h2e"], before)
    with pytest.raises(ValueError, match="no record of h2e having written it"):
        embed(new)
    with pytest.raises(ValueError, match="an Embedding without obsm"):
        embed(new, encoder=h2e.tl.Embedding(obsm="X_colours"), overwrite=True)
    with pytest.raises(ValueError, match="finite as float16"):
        embed(new, encoder=lambda images: np.full((len(images), 1), 1e6), dtype="float16", overwrite=True)


def test_lazyslide_predicts_from_features_of_tiles(two_slides: SpatialData):
    x = embed(two_slides)
    stored = h2e.tl.fit(two_slides, learners=h2e.tl.Embedding(obsm="X_colours"), **OPTIONS)
    seen = h2e.tl.fit(two_slides, learners=h2e.tl.Embedding(colours, px=8, tile=0, surroundings=0), **OPTIONS)
    for ensemble in (stored, seen):
        model = ensemble.to_lazyslide()
        assert (model.tile_um, model.name, model.features_model_name) == (ensemble.spacing_um, "h2e", None)
        assert model.to("cpu") is model
        assert model.get_transform() is None
        predicted = model.predict(x, None)
        assert list(predicted) == ["TOY01", "TOY02"]
        expected = ensemble.predict({"embedding": x})[0]
        np.testing.assert_array_equal(np.column_stack(list(predicted.values())), expected)
    for learners in ("texture", ["texture", h2e.tl.Embedding(obsm="X_colours")], h2e.tl.Embedding(colours, px=8)):
        with pytest.raises(ValueError, match="one Embedding with one view"):
            h2e.tl.fit(two_slides, learners=learners, **OPTIONS).to_lazyslide()
