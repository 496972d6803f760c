"""A saved ensemble may come from anybody: it makes h2e neither import, download, run nor write anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import h2e
from h2e._ensemble import store as _store

FIXTURE = Path(__file__).parents[1] / "fixtures" / "v1_mean"


def with_embedding(folder: Path, **settings: object) -> Path:
    """Copy an ensemble, with other settings of its embedding and a checksum that is right."""
    about, arrays = _store.load(FIXTURE)
    learners = [json.loads(text) for text in about["learners"]]
    about["learners"] = [json.dumps(one | settings if one["name"] == "embedding" else one) for one in learners]
    _store.save(folder, {key: value for key, value in about.items() if key not in ("format", "weights_sha256")}, arrays)
    return folder


@pytest.fixture
def new() -> h2e.datasets.toy_cohort:
    return h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=4, seed=1)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Names of the models that timm, which is a stand-in, was asked to download."""
    names = []

    class Shell(torch.nn.Module):
        """What the fixture was trained with, as a model of timm."""

        pretrained_cfg = {"mean": (0, 0, 0), "std": (1 / 255,) * 3}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(h2e.tl.Embedding()._encode(x.round().numpy().astype(np.uint8)))

    def create_model(name: str, **_: object) -> Shell:
        names.append(name)
        return Shell()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return names


def test_an_ensemble_that_was_saved_without_a_precision_computes_in_float32():
    assert "precision" not in (FIXTURE / "ensemble.json").read_text()
    learners = {learner.name: learner for learner in h2e.Ensemble.load(FIXTURE).learners}
    assert learners["embedding"].precision == "float32"


def test_an_encoder_that_a_file_names_is_built_only_when_the_user_names_it_too(tmp_path, new, made):
    folder = with_embedding(tmp_path / "ensemble", encoder="timm:a_model")
    loaded = h2e.Ensemble.load(folder)
    assert len(loaded.loo)
    with pytest.raises(
        ValueError, match=r"'timm:a_model'; pass it: .*load\(folder, encoders=\{'embedding': 'timm:a_model'\}"
    ):
        h2e.tl.predict(new, loaded, progress=False)
    assert made == []
    assert "h2e" not in new["table"].obsm
    loaded.save(tmp_path / "again")
    for consent in ({"encoders": {"embedding": "timm:a_model"}}, {"allow_download": True}):
        again = h2e.Ensemble.load(tmp_path / "again", **consent)
        h2e.tl.predict(new, again, progress=False)
        assert made.pop() == "a_model"
        h2e._learners.encoders._network.cache_clear()
    h2e.tl.predict(new, h2e.Ensemble.load(FIXTURE), key_added="packaged", progress=False)
    np.testing.assert_allclose(new["table"].obsm["h2e"], new["table"].obsm["packaged"], rtol=1e-4)


def test_loading_a_file_that_names_an_encoder_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it raises
    h2e.Ensemble.load(with_embedding(tmp_path / "ensemble", encoder="timm:a_model"))


def test_an_encoder_that_was_code_is_asked_for(tmp_path, new):
    loaded = h2e.Ensemble.load(with_embedding(tmp_path / "ensemble", encoder=None))
    with pytest.raises(
        ValueError, match=r"the encoder is not stored, for it is code; pass it: .*encoders=\{'embedding'"
    ):
        h2e.tl.predict(new, loaded, progress=False)


def test_a_file_chooses_neither_the_folder_of_the_cache_nor_the_device(tmp_path, new):
    cache = tmp_path / "written"
    loaded = h2e.Ensemble.load(with_embedding(tmp_path / "ensemble", cache=str(cache), device="cuda:7"))
    (embedding,) = (learner for learner in loaded.learners if learner.name == "embedding")
    assert (embedding.cache, embedding.device) == (None, None)
    h2e.tl.predict(new, loaded, progress=False)
    assert not cache.exists()


def test_features_in_obsm_need_no_encoder(tmp_path, cohort):
    table = cohort["table"]
    table.obsm["X"] = np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    for encoder in ("shell", None):
        learner = h2e.tl.Embedding(encoder, obsm="X")
        ensemble = h2e.tl.fit(cohort, learners=learner, targets=["TOY01"], group_key="donor", progress=False)
        ensemble.save(tmp_path / "ensemble")
        assert h2e.Ensemble.load(tmp_path / "ensemble").learners == (learner,)
