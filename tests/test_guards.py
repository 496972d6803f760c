"""What must not change by accident: saved ensembles, predictions, scores, names, defaults and stored keys.

The fixtures are made by ``tests/fixtures/make.py``.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import h2e

FIXTURES = Path(__file__).parent / "fixtures"
ENSEMBLES = sorted(path.stem for path in FIXTURES.glob("v*_*.csv"))

CLOSE, CLOSE_NEIGHBOURS = 1e-3, 1e-2
"""Median difference of predictions in spreads of the target: processors round differently, which swaps neighbours."""


@pytest.fixture(scope="module")
def make():
    """Import the script that made the fixtures."""
    spec = importlib.util.spec_from_file_location("make_fixtures", FIXTURES / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_of_a_released_format_loads_and_predicts_what_it_did(name: str, make):
    expected = pd.read_csv(FIXTURES / f"{name}.csv", index_col=0, header=[0, 1])
    found = make.predict(h2e.Ensemble.load(FIXTURES / name))
    assert list(found.columns) == list(expected.columns)
    assert found.index.equals(expected.index)
    assert found.isna().equals(expected.isna())
    tolerance = CLOSE_NEIGHBOURS if name.endswith("_mean") else CLOSE
    of_targets = expected["h2e"].std().to_numpy()
    for key in ("h2e", "h2e_std"):
        difference = np.abs(found[key] - expected[key]) / of_targets
        assert (difference.median() < tolerance).all(), key


def test_there_is_an_ensemble_of_every_format_that_was_ever_written():
    assert {"v1_mean", "v1_ridge", "v1_mlp", "v1_network"} <= set(ENSEMBLES)


def test_an_ensemble_trained_today_predicts_what_it_did(make):
    expected = pd.read_csv(FIXTURES / "trained.csv", index_col=0, header=[0, 1])
    found = make.predict(make.train("ridge", make.small_cohort()))
    difference = np.abs(found["h2e"] - expected["h2e"]) / expected["h2e"].std().to_numpy()
    assert (difference.median() < CLOSE_NEIGHBOURS).all()


def test_scores_are_what_they_were(make):
    keys = ["method", "metric", "slide"]
    expected = pd.read_csv(FIXTURES / "scores.csv").set_index(keys)["value"]
    found = make.scores().set_index(keys)["value"]
    assert sorted(found.index) == sorted(expected.index)
    # The oracle of domains depends on k-means, which rounding can tip over.
    stable = ~expected.index.get_level_values("method").str.contains("domains")
    stable &= expected.index.get_level_values("metric") != "within_domain"
    np.testing.assert_allclose(found[expected.index][stable], expected[stable], atol=5e-3)


def test_names_order_and_defaults_of_public_arguments_are_what_they_were(make):
    assert make.signatures() == json.loads((FIXTURES / "signatures.json").read_text())


def test_each_public_function_writes_the_keys_that_it_did(make):
    assert make.written_keys() == json.loads((FIXTURES / "written_keys.json").read_text())
