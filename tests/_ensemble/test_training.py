"""What is checked before anything is trained: donors' names, panels, devices; and targets from anywhere, to the end."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pytest
import torch

import h2e
from h2e._ensemble.training import learners_of, spelled_alike
from h2e._learners.training import find_device

QUICK = {"learners": "mean", "progress": False}


@pytest.mark.parametrize(
    ("one", "other"),
    [("P1", "p1 "), ("P1", "P 1"), ("P-1", "P_1"), ("P1", "P01"), ("1", "1.0"), ("Müller", "müller"), ("A.b", "a b")],
)
def test_names_that_differ_in_writing_only_are_alike(one: str, other: str):
    assert set(spelled_alike([one, other, "another"])) == {one, other}


@pytest.mark.parametrize(
    "names", [("P1", "P2"), ("1-1", "11"), ("P1", "P10"), ("HER2+", "HER2-"), ("A", "AB"), ("1", "10")]
)
def test_names_of_two_donors_are_not_alike(names: tuple):
    assert spelled_alike(names) == []


def rename(sdata, names: dict[str, str]) -> None:
    donors = sdata["table"].obs["donor"].astype(str)
    sdata["table"].obs["donor"] = donors.replace(names)


@pytest.mark.parametrize("function", [h2e.tl.fit, h2e.tl.evaluate])
def test_donors_that_are_spelled_alike_are_told_of(two_slides, function):
    rename(two_slides, {"A": "P1", "B": "p1 "})
    options = {"baselines": "mean", "metrics": "pearson"} if function is h2e.tl.evaluate else {}
    with pytest.warns(UserWarning, match=r"groups \['P1', 'p1 '\] differ in case") as said:
        function(two_slides, targets=["TOY01"], group_key="donor", **options, **QUICK)
    assert said[0].filename == __file__


@pytest.mark.parametrize("function", [h2e.tl.fit, h2e.tl.evaluate])
def test_a_panel_without_a_named_target_is_told_of_and_no_other(two_slides, function):
    table = two_slides["table"]
    x = table.X.toarray()
    x[np.ix_(table.obs["donor"] == "B", table.var_names == "TOY05")] = 0
    table.X = x
    options = {"baselines": "mean", "metrics": "pearson"} if function is h2e.tl.evaluate else {}
    with pytest.warns(UserWarning, match=r"\"'TOY05' on 'toy_B1' \(0 of \d+ spots, \d+ expected\)\"\]") as said:
        function(two_slides, targets=["TOY05", "TOY07"], group_key="donor", **options, **QUICK)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(two_slides, targets=["TOY07"], group_key="donor", **options, **QUICK)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "xpu", "gpu", "meta", "", 7, object()])
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(monkeypatch, device: object):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for function in (h2e.tl.fit, h2e.tl.evaluate):
        with pytest.raises(ValueError, match=r"device must be one of \['cpu'\], which are here, got"):
            function(None, device=device, **QUICK)
    if isinstance(device, str):
        with pytest.raises(ValueError, match="device must be one of"):
            learners_of(h2e.tl.Embedding(device=device), None)


def test_a_device_that_is_here_is_passed_on(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    network, embedding, texture = learners_of(["multiscale", "embedding", "texture"], "mps")
    assert (network.device, embedding.device, hasattr(texture, "device")) == ("mps", "mps", False)
    assert find_device("mps") == torch.device("mps")
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert find_device(None) == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device must be one of \['cpu', 'cuda', 'mps'\].*got 'cuda:2'"):
        find_device("cuda:2")


def test_a_column_of_obs_is_learned_predicted_recognized_and_scored(two_slides, caplog):
    table = two_slides["table"]
    table.obs["score"] = table.obsm["proportions"].iloc[:, 0].to_numpy() - 0.3
    table.obs.loc[table.obs_names[::9], "score"] = np.nan
    options = {"learners": "texture", "group_key": "donor", "progress": False}
    with caplog.at_level(logging.WARNING):
        ensemble = h2e.tl.fit(two_slides, targets="score", **options)
    assert "have no value of some target" in caplog.text
    assert (ensemble.targets, ensemble.settings["unit"]) == (("score",), "as in obs")
    assert np.isfinite(ensemble.truth).all()
    h2e.tl.predict(two_slides, ensemble, progress=False)
    assert table.uns["h2e"]["unit"] == "as in obs"
    trained = table.obsm["h2e_loo"]["score"].notna().to_numpy()
    assert trained.sum() == len(ensemble.truth)
    scores = h2e.metrics.score_adata(table, key="h2e_loo", metrics="pearson")
    measured, held_out = (
        column.to_numpy(float)[trained] for column in (table.obs["score"], table.obsm["h2e_loo"]["score"])
    )
    slide = (table.obs["region"] == "toy_A1").to_numpy()[trained]
    assert scores["value"][0] == pytest.approx(np.corrcoef(measured[slide], held_out[slide])[0, 1], abs=1e-5)
    panels = h2e.pl.spatial_pred(two_slides, ["score"], key="h2e_loo")
    assert any("measured" in ax.get_title() for ax in np.ravel(panels))
    # A crop shows other colours: its spots are known by their names and by what was measured.
    crop = two_slides.query.bounding_box(("x", "y"), [0, 0], [260, 400], target_coordinate_system="toy_A1")
    for name in [name for name in crop.tables["table"].obsm if name.startswith("h2e")]:
        del crop["table"].obsm[name]
    with caplog.at_level(logging.INFO):
        h2e.tl.predict(crop, ensemble, progress=False, overwrite=True)
    assert "training spots by their names and by what was measured" in caplog.text
    evaluated = h2e.tl.evaluate(two_slides, targets=["score"], baselines="mean", metrics="pearson", **options)
    assert set(evaluated["target"]) == {"score"}
    assert evaluated["n_spots"].max() < trained.sum()
    with pytest.raises(ValueError, match="needs counts="):
        h2e.tl.evaluate(two_slides, targets=["score"], baselines="mean", metrics="auroc_detect", **options)


def test_a_table_on_disk_is_refused_in_plain_words_wherever_counts_are_read(two_slides, tmp_path):
    ensemble = h2e.tl.fit(two_slides, targets=["TOY01", "TOY02"], group_key="donor", **QUICK)
    crop = two_slides.query.bounding_box(("x", "y"), [0, 0], [200, 260], target_coordinate_system="toy_A1")
    for name, sdata in {"whole.h5ad": two_slides, "crop.h5ad": crop}.items():
        sdata.tables["table"].write_h5ad(tmp_path / name)
        table = ad.read_h5ad(tmp_path / name, backed="r")
        table.uns["spatialdata_attrs"]["region"] = table.uns["spatialdata_attrs"]["region"].tolist()
        sdata.tables["table"] = table
    match = r"on disk \(backed\); bring it into memory with adata.to_memory"
    for function in (
        h2e.pp.normalize,
        h2e.pp.realign_spots,
        lambda sdata: h2e.tl.fit(sdata, group_key="donor", **QUICK),
    ):
        with pytest.raises(ValueError, match=match):
            function(two_slides)
    # A crop is recognized by what was measured, which must not be passed over.
    with pytest.raises(ValueError, match=match):
        h2e.tl.predict(crop, ensemble, progress=False)


def test_several_donors_on_one_slide_are_sent_to_library_key(two_slides):
    table = two_slides["table"]
    table.obs["patient"] = np.where(np.arange(table.n_obs) % 2, "P1", "P2")
    with pytest.raises(
        ValueError, match=r"Pass as library_key a column that tells the slides apart: that of group_key"
    ):
        h2e.tl.fit(two_slides, targets=["TOY01"], group_key="patient", **QUICK)
