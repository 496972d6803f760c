"""The command line, end to end: what it writes is what Python gives, whole or not there, and faults are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import spatialdata as sd
from anndata import read_h5ad
from click.testing import CliRunner, Result

import h2e
from h2e.cli import COMMANDS, main
from h2e.cli.record import state_of

pytestmark = pytest.mark.usefixtures("quick_models")
QUICK = ("--learners", "texture,mean", "--n-targets", "4")


def run(*args: object, code: int = 0) -> Result:
    """Run a command in this process; bugs are raised."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def record(path: Path) -> dict:
    """Read a record."""
    return json.loads(path.read_text())


def run_python(text: str) -> dict:
    """Run what a command says is the same, with what it writes left out."""
    names: dict = {}
    exec("\n".join(line for line in text.splitlines() if ".save(" not in line and ".write" not in line), names)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write three slides of as many donors, one slide as an H&E alone, one that is cut off, and a sheet."""
    folder = tmp_path_factory.mktemp("slides")
    cohort = h2e.datasets.toy_cohort(n_slides=4, n_donors=4, side=6)
    for name, old in {"a": "toy_A1", "b": "toy_B1", "c": "toy_C1"}.items():
        cohort.filter_by_coordinate_system(old).write(folder / f"{name}.zarr")
    image = cohort["toy_D1_image"]
    sd.SpatialData(images={"he": image}).write(folder / "only.zarr")
    cohort.filter_by_coordinate_system("toy_C1").write(folder / "cut.zarr")
    (folder / "cut.zarr" / "zarr.json").write_text("{")
    (folder / "text.svs").write_text("no slide")
    rows = ["sample,path,donor", "S1,a.zarr,A", "S2,b.zarr,B", "S3,c.zarr,C", "broken,cut.zarr,D"]
    (folder / "sheet.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def fitted(folder, tmp_path_factory, quick_models) -> tuple[Path, Result]:
    """Fit an ensemble to the slides of the sheet, of which one cannot be opened."""
    out = tmp_path_factory.mktemp("run")
    return out, run("fit", folder / "sheet.csv", "--out", out, *QUICK, code=1)


def test_fit_goes_on_without_a_broken_slide_and_says_so(fitted):
    out, result = fitted
    about = record(out / "fit.json")
    assert "error: broken: " in result.output
    assert result.output.endswith("error: 1 failed: broken\n")
    assert list(about["settings"]["left_out"]) == ["broken"]
    assert {"command", "python", "settings", "versions", "seconds", "finished"} <= set(about)
    assert set(about["versions"]) == {"h2e", "python", "torch", "spatialdata", "anndata"}
    assert pd.read_csv(out / "quality.csv")["slide"].tolist() == ["S1", "S2", "S3"]
    assert about["python"] in result.output


def test_fit_gives_what_the_python_that_it_says_gives(fitted):
    out, _ = fitted
    same, ensemble = run_python(record(out / "fit.json")["python"])["result"], h2e.Ensemble.load(out / "ensemble")
    pd.testing.assert_frame_equal(same.loo, ensemble.loo, check_exact=True)
    assert sorted(same.training["group"].unique()) == ["A", "B", "C"]


def test_nothing_is_trained_where_a_slide_fails_and_strict_asks_for_all_or_too_few_are_left(folder, tmp_path):
    for inputs in ([folder / "sheet.csv", "--strict"], [folder / "a.zarr", folder / "only.zarr"]):
        result = run("fit", *inputs, "--out", tmp_path / "out", code=1)
        assert "nothing was trained" in result.output
        assert not (tmp_path / "out").exists()
    assert "only: it must have measurements in 'table'" in result.output


def test_evaluate_gives_the_scores_that_python_gives(folder, tmp_path):
    run("evaluate", folder / "a.zarr", folder / "b.zarr", "--out", tmp_path, *QUICK, "--group-key", "donor")
    python = record(tmp_path / "evaluate.json")["python"]
    same = run_python("\n".join(line for line in python.splitlines() if ".to_csv(" not in line))["result"]
    scores = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(scores, same.reset_index(drop=True), check_dtype=False, rtol=1e-12)
    assert len(pd.read_csv(tmp_path / "quality.csv")) == 2


def test_predict_gives_what_python_gives_leaves_its_input_alone_and_skips_what_is_done(folder, fitted, tmp_path):
    stores, slides = [folder / f"{name}.zarr" for name in ("c", "only", "cut")], tmp_path / "slides"
    before = [state_of(store) for store in stores]
    command = ["predict", *stores, folder / "text.svs", "--ensemble", fitted[0] / "ensemble", "--out", tmp_path]
    command += ["--geojson", "--um-per-px", 6.25]
    result = run(*command, code=1)
    assert result.output.endswith("error: 2 failed: cut, text\n")
    names = {"c.zarr", "c.json", "c.geojson", "only.zarr", "only.json", "only.geojson", "cut.json", "text.json"}
    assert {path.name for path in slides.iterdir()} == names
    assert [state_of(store) for store in stores] == before
    for name, spots in {"c": "table.obs", "only": "um_per_px="}.items():
        about, table = record(slides / f"{name}.json"), sd.read_zarr(slides / f"{name}.zarr")["table"]
        same = run_python(about["python"])["sdata"]["table"]
        for key in same.obsm:
            assert pd.DataFrame(table.obsm[key]).equals(pd.DataFrame(same.obsm[key])), key
        assert (about["sample"], about["n_spots"], about["um_per_px"]) == (name, table.n_obs, 6.25)
        assert "error" not in about
    for name in ("cut", "text"):
        assert record(slides / f"{name}.json")["error"]
    written = {path.name: state_of(path) for path in slides.glob("[co]*[lyn]")}
    assert "2 of 4 samples, 2 of them before" in run(*command, code=1).output
    assert {path.name: state_of(path) for path in slides.glob("[co]*[lyn]")} == {
        **written,
        "cut.json": state_of(slides / "cut.json"),
    }
