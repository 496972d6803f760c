"""Every script of benchmarks/ runs in seconds with ``--smoke``, and every measurement says what it was made with."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
RESULTS = FOLDER / "results"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
RECORD = ["h2e", "date", "processor"]

PAGES = {
    "ablation": "benchmarks.md",
    "accuracy": "benchmarks.md",
    "encoders": "encoders.md",
    "growth": "cluster.md",
    "scale_cue": "benchmarks.md",
    "orientation": "benchmarks.md",
    "speed": "speed.md",
    "transforms": "benchmarks.md",
    "tried": "benchmarks.md",
    "trust": "trust.md",
}
"""The page of the documentation that shows what a script prints with ``--table``."""

RESUMED = {"ablation": (), "accuracy": (), "growth": (), "speed": (), "training": ("--fold",), "tried": ()}
"""Scripts that measure only what is not in the file yet, and with which options."""

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run a script as ``python benchmarks/script.py`` does, but in this process: the imports are shared."""
    monkeypatch.syspath_prepend(FOLDER)

    def run_script(script: Path, *options: str) -> None:
        import matplotlib.pyplot as plt

        monkeypatch.setattr(sys, "argv", [str(script), *options])
        runpy.run_path(str(script), run_name="__main__")
        plt.close("all")

    return run_script


def committed_files() -> dict[Path, tuple[int, int]]:
    """Size and time of last change of all that scripts write where nothing else is said."""
    folders = (RESULTS, ROOT / "docs" / "_static", ROOT / "src" / "h2e" / "weights")
    stats = {path: path.stat() for folder in folders for path in folder.iterdir()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.filterwarnings("ignore")  # of other packages; h2e's own are tested elsewhere
@each_script
def test_a_short_run_writes_what_the_script_promises_and_leaves_what_was_measured_alone(
    script: Path, run, tmp_path: Path, capsys: pytest.CaptureFixture
):
    before = committed_files()
    run(script, "--smoke", "--out", str(tmp_path))
    assert committed_files() == before
    assert [path for path in tmp_path.iterdir() if path.is_file() and path.stat().st_size]
    tables = {path: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert {path.name for path in RESULTS.glob(f"{script.stem}*.csv")} <= {path.name for path in tables}
    for path, table in tables.items():
        assert len(table)
        assert table[RECORD].notna().all(axis=None)
        assert list(table) == list(pd.read_csv(RESULTS / path.name, nrows=0))
    if script.stem in PAGES:
        assert re.search(r"^\|(---\|)+\n\| \w", capsys.readouterr().out, flags=re.MULTILINE)
    if script.stem in RESUMED:
        run(script, "--smoke", "--out", str(tmp_path), *RESUMED[script.stem])
        assert all(pd.read_csv(path).equals(table) for path, table in tables.items())


@each_script
def test_a_short_run_refuses_the_folders_of_what_was_measured(script: Path, run):
    before = committed_files()
    with pytest.raises(SystemExit):
        run(script, "--smoke", "--out", str(RESULTS))
    assert committed_files() == before


@each_script
def test_the_first_lines_of_a_script_say_its_command_and_how_long_it_takes(script: Path):
    doc = script.read_text(encoding="utf-8").split(chr(34) * 3)[1]
    assert f"python benchmarks/{script.name}" in doc
    assert re.search(r"\b(seconds?|minutes?|hours?)\b", doc)


@pytest.mark.parametrize("path", sorted(RESULTS.iterdir()), ids=lambda path: path.name)
def test_every_measurement_says_version_date_and_processor(path: Path):
    table = pd.read_csv(path)
    assert list(table)[-3:] == RECORD
    assert table[RECORD].notna().all(axis=None)
    assert table["date"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_the_documentation_are_those_that_the_files_give(name: str, run, capsys: pytest.CaptureFixture):
    run(FOLDER / f"{name}.py", "--table")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / PAGES[name]).read_text(encoding="utf-8").splitlines()
    assert len(lines) > 5
    assert set(lines) <= set(page)
