"""Runs that are killed, on a full disk, or find damaged files: the ensemble is that of an undisturbed run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import h2e
from h2e._ensemble import store as _store
from h2e._ensemble.ensemble import Ensemble

if TYPE_CHECKING:
    from spatialdata import SpatialData

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
