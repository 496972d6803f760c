"""A public call opens the slides once: each region is paired with its image once, and each image is opened once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import h2e
from h2e._sdata import images, normalized, pairing, regions, slides
from h2e._slide.tiles import View

FIT = {
    "learners": h2e.tl.Texture(views=(View(1, 8),)),
    "targets": ["TOY01"],
    "group_key": "donor",
    "progress": False,
}


@pytest.fixture
def counts(monkeypatch) -> Counter:
    """Count what is paired, placed and opened."""
    seen = Counter()

    def count(owner, name: str, what):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: seen.update([what(*a)]) or real(*a, **k))

    count(pairing.Pairing, "image_of", lambda _, region, *a: ("paired", region))
    count(slides, "to_pixels", lambda _, region, key: ("placed", region))
    count(regions, "open_image", lambda _, key: ("opened", key))
    count(pairing, "open_image", lambda _, key: ("opened", key))
    count(pairing, "read_coarse", lambda image, _: ("read", image.key))
    count(slides, "open_image", lambda _, key: ("opened", key))
    count(normalized, "open_image", lambda _, key: ("opened", key))
    return seen


@pytest.fixture(scope="module")
def trained() -> tuple:
    sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=6)
    ensemble = h2e.tl.fit(sdata, **FIT)
    h2e.tl.predict(sdata, ensemble, progress=False)
    return sdata, ensemble


CALLS = {
    "normalize": lambda sdata, _: h2e.pp.normalize(sdata),
    "normalize, realigned": lambda sdata, _: h2e.pp.normalize(sdata, realign=True),
    "detect_tissue": lambda sdata, _: h2e.pp.detect_tissue(sdata),
    "normalize_stains": lambda sdata, _: h2e.pp.normalize_stains(sdata),
    "tissue_fraction": lambda sdata, _: h2e.pp.tissue_fraction(sdata),
    "realign_spots": lambda sdata, _: h2e.pp.realign_spots(sdata),
    "fit": lambda sdata, _: h2e.tl.fit(sdata, **FIT),
    "evaluate": lambda sdata, _: h2e.tl.evaluate(sdata, **FIT, baselines=["mean"], metrics="pearson"),
    "predict": lambda sdata, ensemble: h2e.tl.predict(sdata, ensemble, progress=False),
    "get.predictions": lambda sdata, _: h2e.get.predictions(sdata, key="h2e_loo"),
    "get.geojson": lambda sdata, _: h2e.get.geojson(sdata, "toy_A1"),
    "pl.spatial_pred": lambda sdata, _: h2e.pl.spatial_pred(sdata, "TOY01"),
    "pl.tissue": lambda sdata, _: h2e.pl.tissue(sdata),
    "pl.tiles": lambda sdata, _: h2e.pl.tiles(sdata, n=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_region_is_paired_and_each_image_opened_once(name: str, trained, counts):
    sdata, ensemble = trained
    CALLS[name](sdata, ensemble)
    assert {what for what, _ in counts} >= {"paired", "placed", "opened"}
    assert {key: n for key, n in counts.items() if n > 1} == {}


def test_the_cost_of_preparing_slides_is_linear_in_their_number(monkeypatch):
    real, calls = images.affine_of, []
    monkeypatch.setattr(images, "affine_of", lambda *args: calls.append(1) or real(*args))
    n_calls = []
    for n in (2, 4, 8):
        calls.clear()
        h2e.pp.normalize(h2e.datasets.toy_cohort(n_slides=n, n_donors=n, side=4))
        n_calls.append(len(calls))
    assert n_calls[0] > 0
    assert np.diff(n_calls).tolist() == [n_calls[0], 2 * n_calls[0]]
