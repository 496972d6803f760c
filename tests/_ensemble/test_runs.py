"""Runs that are killed, on a full disk, or find damaged files: the ensemble is that of an undisturbed run."""

from __future__ import annotations

import errno
import linecache
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import h2e
from h2e._ensemble import store as _store
from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._learners.folds import make_folds

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from h2e._ensemble.fold_models import Spots

EPOCHS = 3
N_MODELS = 3

# Trains in another process, which can be killed.
SCRIPT = f"""
import sys, h2e
network = h2e.tl.Multiscale(epochs={EPOCHS}, tile_px=26, subtile_px=16, encoders=("center",), symmetries=False)
options = dict(targets=["TOY01", "TOY02"], group_key="donor", progress=False)
sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
h2e.tl.fit(sdata, learners=network, run_dir=sys.argv[1], **options).save(sys.argv[2])
"""


def start(run_dir: Path, out: Path) -> subprocess.Popen:
    """Train in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(run_dir), str(out)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


@cache
def two_slides() -> SpatialData:
    """Two slides of two donors, which training leaves as they are."""
    return h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)


def fit(run_dir: Path | None) -> Ensemble:
    network = h2e.tl.Multiscale(epochs=EPOCHS, tile_px=26, subtile_px=16, encoders=("center",), symmetries=False)
    options = {"targets": ["TOY01", "TOY02"], "group_key": "donor", "run_dir": run_dir, "progress": False}
    return h2e.tl.fit(two_slides(), learners=network, **options)


@pytest.fixture(scope="module")
def undisturbed() -> Ensemble:
    return fit(None)


def finished(run_dir: Path) -> list[Path]:
    """Folders of models that are complete."""
    return [path for path in run_dir.glob("*") if not path.name.startswith(".")]


def assert_same(one: Ensemble, other: Ensemble) -> None:
    pd.testing.assert_frame_equal(one.loo, other.loo, check_exact=True)
    pd.testing.assert_frame_equal(one.history.drop(columns="seconds"), other.history.drop(columns="seconds"))


def test_a_run_that_is_killed_in_the_middle_of_a_fold_goes_on_where_it_was(undisturbed: Ensemble, tmp_path: Path):
    killed = tmp_path / "killed"
    process = start(killed, tmp_path / "never")
    deadline = time.monotonic() + 300
    while not finished(killed) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # the first model is there, the second is being trained
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in finished(killed)}
    assert 1 <= len(before) < N_MODELS
    assert not (tmp_path / "never").exists()
    (killed / ".half-written").mkdir()  # what a kill in the middle of storing leaves
    (killed / ".half-written" / "weights.safetensors").write_bytes(b"half")
    # Two processes differ in the last digits.
    pd.testing.assert_frame_equal(fit(killed).loo, undisturbed.loo, rtol=1e-5)
    assert len(finished(killed)) == N_MODELS
    assert before.items() <= {path: path.stat().st_mtime_ns for path in finished(killed)}.items()  # not trained again


def test_a_full_disk_loses_nothing_but_the_shortcut(undisturbed: Ensemble, tmp_path: Path, monkeypatch, caplog):
    written = []

    def write(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            with self.open("wb") as file:
                file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, content)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)
    assert_same(fit(tmp_path), undisturbed)
    assert "No space left on device" in caplog.text
    assert len(list(tmp_path.iterdir())) == N_MODELS - 1  # and nothing half-written beside them
    monkeypatch.undo()
    assert_same(fit(tmp_path), undisturbed)
    assert len(finished(tmp_path)) == N_MODELS


def test_a_damaged_model_is_trained_again(undisturbed: Ensemble, tmp_path: Path, caplog):
    fit(tmp_path)
    damaged, cut = finished(tmp_path)[:2]
    content = bytearray((damaged / _store.ARRAYS).read_bytes())
    content[-1] ^= 1
    (damaged / _store.ARRAYS).write_bytes(content)
    (cut / _store.ABOUT).write_text('{"format"')
    assert_same(fit(tmp_path), undisturbed)
    assert sum("again" in message for message in caplog.messages) == 2


def test_an_interrupt_while_a_model_is_stored_leaves_the_others(tmp_path: Path, monkeypatch):
    calls = []

    def interrupted(*args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args, **kwargs)

    real = _store.save
    monkeypatch.setattr(_store, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path)
    assert len(finished(tmp_path)) == len(list(tmp_path.iterdir())) == 1


OWN = """
from dataclasses import dataclass

import numpy as np

import h2e


class Model(h2e.tl.Model):
    def __init__(self, mean):
        self.mean = mean

    def predict(self, x):
        return np.tile(self.mean, (len(x), 1))

    def arrays(self):
        return {"mean": self.mean}


@dataclass(frozen=True)
class Own(h2e.tl.Learner):
    name = "own"
    uses = "xy"

    def fit(self, x, y, groups, **_):
        return Model(y.mean(axis=0))

    def restore(self, arrays):
        return Model(**arrays)
"""


def own_learner(text: str, file: str) -> h2e.tl.Learner:
    """The learner of a file, of a cell of a notebook, or of a shell."""
    names = {"__name__": "own"}
    exec(compile(text, file, "exec", dont_inherit=True), names)
    return names["Own"]()


def fit_own(spots: Spots, learner: h2e.tl.Learner, run_dir: Path | None) -> np.ndarray:
    spots = replace(spots, x={"own": spots.x["mean"]})
    config = FitConfig((learner,), "log", "mean", 0, run_dir=run_dir, progress=False)
    return fit_members(
        spots, make_folds(spots.slides, spots.groups, spots.x["own"][:, :2], buffer_um=0), config
    ).held_out


def test_a_learner_whose_file_was_changed_is_trained_again(spots: Spots, tmp_path: Path):
    file, run_dir = tmp_path / "own.py", tmp_path / "run"

    def fit_text(text: str) -> np.ndarray:
        file.write_text(text)
        return fit_own(spots, own_learner(text, str(file)), run_dir)

    mean = fit_text(OWN)
    kept = finished(run_dir)
    np.testing.assert_array_equal(fit_text(OWN), mean)
    assert finished(run_dir) == kept  # by another import of the same file
    largest = fit_text(OWN.replace("y.mean", "y.max"))
    assert (largest > mean).all()
    assert len(finished(run_dir)) == 2 * len(kept)


def test_what_a_learner_derives_from_counts_too(tmp_path: Path):
    base, own = tmp_path / "base.py", tmp_path / "own.py"
    own.write_text("class Child(Own):\n    def fit(self, *args, **kwargs): return super().fit(*args, **kwargs)")
    sources = []
    for text in (OWN, OWN.replace("y.mean", "y.max")):
        base.write_text(text)
        names = {"Own": type(own_learner(text, str(base))), "__name__": "own"}
        exec(compile(own.read_text(), str(own), "exec"), names)
        sources.append(_store.source_of(names["Child"]))
    assert all(sources)
    assert sources[0] != sources[1]


def test_a_learner_without_a_file_is_trained_anew_each_time(spots: Spots, tmp_path: Path, caplog):
    mean = fit_own(spots, own_learner(OWN, "<stdin>"), tmp_path)
    largest = fit_own(spots, own_learner(OWN.replace("y.mean", "y.max"), "<stdin>"), tmp_path)
    assert (largest > mean).all()
    assert finished(tmp_path) == []
    assert "models of learner Own are neither kept in run_dir nor taken from it" in caplog.text
    caplog.clear()
    fit_own(spots, own_learner(OWN, "<stdin>"), None)
    assert not caplog.text


def test_a_cell_of_a_notebook_is_a_file(monkeypatch):
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(OWN), None, OWN.splitlines(keepends=True), "<cell 1>"))
    assert OWN in _store.source_of(type(own_learner(OWN, "<cell 1>")))


def test_models_of_other_code_of_h2e_are_not_taken(spots: Spots, tmp_path: Path, monkeypatch):
    fit_own(spots, own_learner(OWN, __file__), tmp_path)
    n = len(finished(tmp_path))
    changed = tmp_path.with_suffix(".py")
    changed.write_text("")
    monkeypatch.setattr(_store, "CODE", (*_store.CODE[1:], changed))
    _store.own_code.cache_clear()
    fit_own(spots, own_learner(OWN, __file__), tmp_path)
    assert len(finished(tmp_path)) == 2 * n
    monkeypatch.undo()
    _store.own_code.cache_clear()


def test_all_that_learners_import_of_h2e_is_code_that_trains():
    imported = {
        name
        for path in (_store.HERE / "_learners").glob("*.py")
        for name in re.findall(r"from (h2e[\w.]*) import", path.read_text(encoding="utf-8"))
    }
    modules = {name for name in imported if not name.startswith("h2e._learners")}
    # Tiles are cut before: a learner gets their pixels, and of this module only its settings.
    paths = {_store.HERE.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in modules - {"h2e._slide.tiles"}}
    assert paths <= set(_store.CODE)
    assert {path.name for path in _store.CODE} >= {"training.py", "heads.py", "texture.py", "_statistics.py"}
