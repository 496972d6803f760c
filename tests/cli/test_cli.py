"""The command line, end to end: what it writes is what Python gives, whole or not there, and faults are told."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from anndata import read_h5ad
from click.testing import CliRunner, Result

import h2e
from h2e.cli import COMMANDS, main
from h2e.cli.inputs import Sample, read, read_sheet, samples_of
from h2e.cli.record import state_of

WRITES = re.compile(r"\.(save|write|write_text|write_h5ad|to_csv)\(")
QUICK = ("--learners", "texture", "--n-targets", "4")


def run(*args: object, code: int = 0) -> Result:
    """Run a command in this process; bugs are raised."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def record(path: Path) -> dict:
    """Read a record."""
    return json.loads(path.read_text())


def run_python(text: str) -> dict:
    """Run what a command says is the same, without what it writes."""
    names: dict = {}
    exec("\n".join(line for line in text.splitlines() if not WRITES.search(line)), names)
    return names


def written(slides: Path) -> dict[str, list[float]]:
    """What a folder holds, with sizes and times."""
    return {path.name: state_of(path) for path in slides.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write two slides of as many donors, one as the file of a scanner, two that cannot be opened, and a sheet."""
    folder = tmp_path_factory.mktemp("slides")
    cohort = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=6)
    for name, old in {"a": "toy_A1", "b": "toy_B1"}.items():
        cohort.filter_by_coordinate_system(old).write(folder / f"{name}.zarr")
    pixels = cohort["toy_C1_image"]["scale0"]["image"].data.compute().transpose(1, 2, 0)
    about = {"axes": "YXS", "PhysicalSizeX": 6.25, "PhysicalSizeY": 6.25}
    tifffile.imwrite(folder / "only.ome.tif", pixels, tile=(128, 128), photometric="rgb", metadata=about)
    (folder / "cut.zarr").mkdir()
    (folder / "cut.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_')
    (folder / "text.svs").write_text("no slide")
    rows = ["sample,path,donor", "S1,a.zarr,X", "S2,b.zarr,Y", "broken,cut.zarr,Z"]
    (folder / "sheet.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def fitted(folder, tmp_path_factory, quick_models) -> tuple[Path, Result]:
    """Fit an ensemble to the slides of the sheet, of which one cannot be opened."""
    out = tmp_path_factory.mktemp("run")
    return out, run("fit", folder / "sheet.csv", "--out", out, *QUICK, code=1)


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Count the calls of ``tl.predict``, which then needs no time."""
    calls, predict = [], h2e.tl.predict

    def counted(sdata: sd.SpatialData, *args: object, **options: object) -> None:
        calls.append("".join(sdata.images))
        predict(sdata, *args, **options)

    monkeypatch.setattr(h2e.tl, "predict", counted)
    return calls


def test_fit_goes_on_without_a_broken_slide_and_says_so(fitted):
    out, result = fitted
    about = record(out / "fit.json")
    assert "error: broken: JSONDecodeError: " in result.output
    assert result.output.endswith("error: 1 failed: broken\n")
    assert list(about["settings"]["left_out"]) == ["broken"]
    assert {"command", "python", "settings", "versions", "seconds", "finished"} == set(about)
    assert set(about["versions"]) == {"h2e", "python", "torch", "spatialdata", "anndata"}
    assert pd.read_csv(out / "quality.csv")["slide"].tolist() == ["S1", "S2"]
    assert about["python"] in result.output


def test_fit_gives_what_the_python_that_it_says_gives(fitted):
    out, _ = fitted
    same, ensemble = run_python(record(out / "fit.json")["python"])["result"], h2e.Ensemble.load(out / "ensemble")
    pd.testing.assert_frame_equal(same.loo, ensemble.loo, check_exact=True)
    assert all(sorted(one.training["group"].unique()) == ["X", "Y"] for one in (same, ensemble))


def test_nothing_is_trained_where_a_slide_fails_and_strict_asks_for_all_or_too_few_are_left(folder, tmp_path):
    for inputs in ([folder / "sheet.csv", "--strict"], [folder / "a.zarr", folder / "only.ome.tif"]):
        result = run("fit", *inputs, "--out", tmp_path / "out", code=1)
        assert "nothing was trained" in result.output
        assert not (tmp_path / "out").exists()
    assert "only: it must have measurements in 'table'" in result.output


def test_evaluate_writes_the_scores_that_python_gives(folder, tmp_path, monkeypatch, quick_models):
    given, evaluate = [], h2e.tl.evaluate

    def noted(sdata: sd.SpatialData, **options: object) -> pd.DataFrame:
        given.append((sdata["table"].obs["donor"].tolist(), {**options, "progress": None}))
        return evaluate(sdata, **options) if len(given) == 1 else pd.DataFrame()

    monkeypatch.setattr(h2e.tl, "evaluate", noted)
    options = ["--group-key", "donor", "--targets", "TOY01, TOY02", "--um-per-px", 6.25]
    run("evaluate", folder / "a.zarr", folder / "b.zarr", "--out", tmp_path, *QUICK[:2], *options)
    run_python(record(tmp_path / "evaluate.json")["python"])
    assert given[0][1] == {**given[1][1]}
    assert given[0][0] == given[1][0]
    assert given[0][1]["um_per_px"] == {"a": 6.25, "b": 6.25}
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["target"]) == {"TOY01", "TOY02"}
    assert {"ensemble", "baseline: mean"} <= set(scores["method"])
    assert len(pd.read_csv(tmp_path / "quality.csv")) == 2


def test_predict_gives_what_python_gives_leaves_its_input_alone_and_skips_what_is_done(
    folder, fitted, tmp_path, counted
):
    stores, slides = [folder / name for name in ("b.zarr", "only.ome.tif", "cut.zarr")], tmp_path / "slides"
    before = [state_of(store) for store in stores]
    command = ["predict", *stores, folder / "text.svs", "--ensemble", fitted[0] / "ensemble", "--out", tmp_path]
    command += ["--geojson", "--um-per-px", 6.25]
    result = run(*command, code=1)
    assert result.output.endswith("error: 2 failed: cut, text\n")
    whole = {f"{name}.{kind}" for name in ("b", "only") for kind in ("zarr", "json", "geojson")}
    assert set(written(slides)) == whole | {"cut.json", "text.json"}
    assert [state_of(store) for store in stores] == before
    for name, source in {"b": "um_per_px=", "only": "affine to µm: 'only_um'"}.items():
        about, table = record(slides / f"{name}.json"), sd.read_zarr(slides / f"{name}.zarr")["table"]
        again = run_python(about["python"])
        same = again["sdata"]["table"]
        assert "h2e" in same.obsm
        for key in same.obsm:
            assert pd.DataFrame(table.obsm[key]).equals(pd.DataFrame(same.obsm[key])), key
        assert (about["sample"], about["n_spots"], about["um_per_px_from"]) == (name, table.n_obs, source)
        assert about["um_per_px"] == pytest.approx(6.25)
        assert "error" not in about
        (line,) = re.findall(r"write_text\((.*)\)$", about["python"], flags=re.MULTILINE)
        assert eval(line, again) == (slides / f"{name}.geojson").read_text()
    assert all(record(slides / f"{name}.json")["error"] for name in ("cut", "text"))
    left = {name: state for name, state in written(slides).items() if name in whole}
    del counted[:]
    assert "2 of 4 samples, 2 of them before" in run(*command, code=1).output
    assert counted == []
    assert left.items() <= written(slides).items()


def test_what_is_not_whole_changed_or_was_asked_otherwise_is_predicted_again(folder, fitted, tmp_path, counted):
    source, slides = tmp_path / "b.zarr", tmp_path / "out" / "slides"
    shutil.copytree(folder / "b.zarr", source)
    command = ["predict", source, "--ensemble", fitted[0] / "ensemble", "--out", tmp_path / "out"]
    (slides / ".b.part").mkdir(parents=True)
    (slides / ".b.part" / "b.zarr").write_text("of a run that was killed")
    run(*command, "--h5ad")
    assert set(written(slides)) == {"b.h5ad", "b.json"}
    assert "h2e_loo" in read_h5ad(slides / "b.h5ad").obsm
    sdata, python, _ = read(Sample("new", slides / "b.h5ad"))
    assert list(sdata.shapes) == ["new"]
    assert list(run_python("import anndata, h2e\n" + python[0])["sdata"].images) == list(sdata.images) == ["new_hires"]
    run(*command, "--h5ad")
    assert len(counted) == 1
    os.truncate(slides / "b.h5ad", 100)
    run(*command, "--h5ad")
    assert len(counted) == 2
    (source / "zarr.json").touch()
    run(*command, "--h5ad")
    assert len(counted) == 3
    run(*command, "--h5ad", "--geojson")
    assert len(counted) == 4
    assert set(written(slides)) == {"b.h5ad", "b.geojson", "b.json"}


def test_a_crash_in_the_middle_leaves_nothing_that_looks_done(folder, fitted, tmp_path, monkeypatch):
    slides = tmp_path / "slides"

    def killed(self: sd.SpatialData, path: Path) -> None:
        path.mkdir()
        (path / "zarr.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(sd.SpatialData, "write", killed)
    command = ["predict", folder / "b.zarr", "--ensemble", fitted[0] / "ensemble", "--out", tmp_path]
    run(*command, code=1)
    assert list(slides.iterdir()) == []


def test_shards_part_the_sorted_samples_and_bad_ones_are_refused(tmp_path, fitted, monkeypatch):
    names = [f"s{number:02d}" for number in range(7)]
    for name in names:
        (tmp_path / f"{name}.txt").touch()
    seen: list[list[str]] = []
    command = ["predict", *tmp_path.glob("*.txt"), "--ensemble", fitted[0] / "ensemble"]
    for part in (1, 2, 3):
        out = tmp_path / str(part)
        run(*command, "--out", out, "--shard", f"{part}/3", code=1)
        seen.append(sorted(path.stem for path in (out / "slides").iterdir()))
    assert seen == [names[0::3], names[1::3], names[2::3]]
    for wrong in ("0/3", "4/3", "1", "a/3", "1/0", "-1/3"):
        assert "must be I/N" in run(*command, "--out", tmp_path, "--shard", wrong, code=2).output


def test_with_json_each_line_is_an_object_that_names_its_sample(folder, tmp_path, fitted):
    inputs = [folder / "b.zarr", folder / "text.svs"]
    output = run(
        "predict", *inputs, "--ensemble", fitted[0] / "ensemble", "--out", tmp_path, "--h5ad", "--json", code=1
    ).output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert all(set(line) == {"time", "level", "message", "sample"} for line in lines)
    assert {(line["level"], line["sample"]) for line in lines} >= {("error", "text"), ("info", "b"), ("error", None)}
    assert len(lines) + len(record(tmp_path / "slides" / "b.json")["python"].splitlines()) == len(output.splitlines())


def test_the_log_and_warnings_are_left_as_they_were(folder, tmp_path):
    before = (logging.getLogger("h2e").level, list(logging.getLogger("h2e").handlers), warnings.showwarning)
    run("fit", folder / "only.ome.tif", "--out", tmp_path / "out", code=1)
    assert (logging.getLogger("h2e").level, list(logging.getLogger("h2e").handlers), warnings.showwarning) == before


def test_a_bad_sheet_lists_every_fault_with_row_and_column(tmp_path):
    (tmp_path / "a.svs").touch()
    rows = [
        "sample,path,um_per_px,doner,donor",
        "A,a.svs,0.5,,x",
        "",
        "a,a.svs,,,x",
        ",gone.svs,-1,,",
        "n/a,,zero,,x,7",
    ]
    (tmp_path / "sheet.csv").write_text("\n".join(rows))
    text = run("fit", tmp_path / "sheet.csv", "--out", tmp_path / "out", code=1).output
    for fault in (
        "row 1, column 'doner': ", "row 4, column 'sample': 'a' is the name of row 2", "row 5, column 'sample': is empty",
        "row 5, column 'path': 'gone.svs' does not exist", "row 5, column 'um_per_px': ", "row 5, column 'donor': is empty",
        "row 6, column 'sample': ", "row 6, column 'path': is empty", "row 6, column 'um_per_px': ", "row 6: there are 6",
    ):  # fmt: skip
        assert fault in text
    assert text.count("\n  row ") == 10
    for content, fault in {
        "name\nx\ny": "row 1: column 'sample' is missing",
        "": "'path' is missing",
        "sample,path": "row 2",
    }.items():
        (tmp_path / "sheet.csv").write_text(content)
        with pytest.raises(ValueError, match=fault):
            read_sheet(tmp_path / "sheet.csv")


def test_a_sheet_of_a_spreadsheet_is_read_and_its_paths_are_beside_it(tmp_path):
    (tmp_path / "a.svs").touch()
    (tmp_path / "full.tif").touch()
    text = "\ufeffsample;path;um_per_px;image;donor\r\nB;a.svs;0.5;he;1\r\nA;a.svs;;full.tif;2\r\n\r\n"
    (tmp_path / "sheet.csv").write_bytes(text.encode())
    wanted = [
        Sample("A", tmp_path / "a.svs", "2", 0.25, str(tmp_path / "full.tif")),
        Sample("B", tmp_path / "a.svs", "1", 0.5, "he"),
    ]
    assert samples_of([tmp_path / "sheet.csv"], 0.25, "other") == wanted


def test_samples_on_the_line_are_named_after_their_files(tmp_path):
    (tmp_path / "link.svs").symlink_to(tmp_path / "other.svs")
    assert samples_of([tmp_path / "link.svs"], None, None)[0].sample == "link"
    paths = [Path("x/P 1.ome.tif"), Path("x/S1/outs"), Path("x/S2.zarr"), Path("x/S3")]
    assert [one.sample for one in samples_of(paths, None, None)] == ["P_1", "S1", "S2", "S3"]
    with pytest.raises(ValueError, match="different names"):
        samples_of([Path("x/S.svs"), Path("y/s.svs")], None, None)


def test_each_kind_of_input_is_read_by_its_reader(tmp_path, cohort, monkeypatch):
    calls = []

    def reader(*args: object, **options: object) -> sd.SpatialData:
        calls.append((*args, options))
        return cohort

    (tmp_path / "S" / "outs" / "spatial").mkdir(parents=True)
    for name in ("x.svs", "full.tif"):
        (tmp_path / name).touch()
    full = str(tmp_path / "full.tif")
    monkeypatch.setattr(h2e.datasets, "read_slide", reader)
    monkeypatch.setattr("spatialdata_io.visium", reader)
    outs, slide = str(tmp_path / "S" / "outs"), str(tmp_path / "x.svs")
    for path in (tmp_path / "S", tmp_path / "S" / "outs"):
        _, python, size = read(Sample("S", path, None, 2.0, full))
        assert python == [f"sdata = spatialdata_io.visium({outs!r}, dataset_id='S', fullres_image_file={full!r})"]
        assert size == 2.0
    _, python, size = read(Sample("x", tmp_path / "x.svs", None, 0.5))
    assert (python, size) == ([f"sdata = h2e.datasets.read_slide({slide!r}, name='x', um_per_px=0.5)"], None)
    assert calls[1:] == [
        (outs, {"dataset_id": "S", "fullres_image_file": full}),
        (slide, {"name": "x", "um_per_px": 0.5}),
    ]
    monkeypatch.setitem(sys.modules, "spatialdata_io", None)
    assert "pip install spatialdata-io" in run("fit", tmp_path / "S", "--out", tmp_path / "out", code=1).output
    with pytest.raises(ValueError, match="must be a store"):
        read(Sample("x", tmp_path))
    with pytest.raises(KeyError, match="'gone.tif' is not in sdata.images"):
        read(Sample("x", tmp_path / "x.svs", image="gone.tif"))


def test_one_image_of_several_are_read(tmp_path, two_slides):
    image = two_slides["toy_A1_image"]
    one = sd.SpatialData(images={"he": image, "other": image}, shapes={"toy_A1": two_slides["toy_A1"]})
    one.write(tmp_path / "a.zarr")
    sdata, python, _ = read(Sample("a", tmp_path / "a.zarr", image="he"))
    assert list(sdata.images) == list(run_python("import spatialdata\n" + "\n".join(python))["sdata"].images) == ["he"]
    with pytest.raises(KeyError, match="'no' is not in sdata.images"):
        read(Sample("a", tmp_path / "a.zarr", image="no"))


def test_a_cluster_is_connected_to_and_left(monkeypatch, tmp_path, folder):
    seen = []

    class Client:
        def __init__(self, address: str) -> None:
            seen.append(address)

        def __enter__(self) -> None:
            seen.append("in")

        def __exit__(self, *_: object) -> None:
            seen.append("out")

    monkeypatch.setattr("distributed.Client", Client)
    run("fit", folder / "only.ome.tif", "--out", tmp_path / "out", "--cluster", "tcp://here:1", code=1)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://there:1")
    run("fit", folder / "only.ome.tif", "--out", tmp_path / "out", code=1)
    assert seen == ["tcp://here:1", "in", "out", "tcp://there:1", "in", "out"]


def test_errors_are_one_line_and_debug_shows_where_they_arose(tmp_path, folder):
    command = ["predict", folder / "a.zarr", "--ensemble", tmp_path, "--out", tmp_path / "out"]
    assert run(*command, code=1).output.startswith("error: folder must hold a saved ensemble")
    with pytest.raises(FileNotFoundError):
        run("--debug", *command)


def test_help_lists_every_command_and_imports_none():
    code = "import sys\nfrom h2e.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in text for command in COMMANDS)
    assert not {"numpy", "pandas", "dask", "spatialdata", "h2e.cli.fit"} & set(text.splitlines()[-1].split())
    for command in COMMANDS:
        assert run(command, "--help").output.startswith("Usage: ")
