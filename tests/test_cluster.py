"""On a cluster of processes the results are the same, pixels are read where they are used, and a lost worker is no loss."""

from __future__ import annotations

import operator
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import h2e
from h2e._ensemble import held_out
from h2e._learners.baselines import Mean
from h2e._parallel import in_parallel, in_task, send
from h2e._sdata.cohort import open_cohort
from h2e._sdata.keys import Keys
from h2e._slide.windows import Windows, read

OPTIONS = {"group_key": "donor", "learners": ["texture", "mean"], "n_targets": 4, "progress": False}
SCORED = OPTIONS | {"metrics": "pearson", "baselines": "mean"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Three slides in a store, read lazily."""
    from spatialdata import read_zarr

    path = tmp_path_factory.mktemp("cluster") / "slides.zarr"
    sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=6)
    h2e.pp.normalize_stains(sdata)
    sdata.write(path)
    return read_zarr(path)


@pytest.fixture(scope="module")
def scores(stored) -> pd.DataFrame:
    return h2e.tl.evaluate(stored, **SCORED)


@pytest.fixture(scope="module")
def ensemble(stored) -> h2e.Ensemble:
    return h2e.tl.fit(stored, **OPTIONS)


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Client]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.usefixtures("two_processes")
def test_two_processes_score_train_and_predict_the_same(stored, scores, ensemble):
    pd.testing.assert_frame_equal(h2e.tl.evaluate(stored, **SCORED), scores, rtol=1e-5)
    there = h2e.tl.fit(stored, **OPTIONS)
    pd.testing.assert_frame_equal(there.loo, ensemble.loo, rtol=1e-5)
    predicted = []
    for one in (ensemble, there):
        h2e.tl.predict(stored, one, in_sample=True, progress=False)
        predicted.append(stored["table"].obsm["h2e"])
    pd.testing.assert_frame_equal(*predicted, rtol=1e-5)


def test_slides_folds_and_their_models_are_tasks_of_the_workers(two_processes, stored):
    def done() -> set[str]:
        logs = two_processes.run(lambda dask_worker: [list(map(str, one)) for one in dask_worker.state.log])
        return {one[0] for log in logs.values() for one in log if one[1:3] == ["executing", "memory"]}

    before = done()
    h2e.tl.fit(stored, **OPTIONS)
    after_fit = done()
    h2e.tl.evaluate(stored, **SCORED)
    of_fit, of_evaluate = after_fit - before, done() - after_fit

    def n(keys: set[str], name: str) -> int:
        return sum(key.startswith(name) for key in keys)

    assert n(of_fit, "extract_features") == 3
    assert n(of_fit, "train_without") == 4
    # Normalized images: each slide once for each reference, but it is sent once.
    assert n(of_evaluate, "extract_features") == 9
    assert n(of_evaluate, "_of_fold") == 3
    assert n(of_evaluate, "train_without") == 0
    # Pixels are no tasks: whoever needs them reads them.
    assert not [key for key in of_fit | of_evaluate if not key.startswith(("extract", "train", "_of_fold", "_given"))]


def test_a_slide_in_a_store_travels_as_its_path(stored):
    slides = open_cohort(stored, Keys(group_key="donor")).slides
    pixels = sum(level.nbytes for slide in slides for level in slide.image.levels)
    pickled = sum(len(pickle.dumps(slide.image)) for slide in slides)
    assert pickled < pixels / 20
    # A fold is not even sent that.
    assert len(pickle.dumps(slides[0].without_pixels().image)) < 5000


@pytest.mark.usefixtures("two_processes")
def test_what_is_in_memory_is_sent_once_however_many_calls_take_it(monkeypatch):
    from tqdm.auto import tqdm

    pickled = []
    monkeypatch.setattr(Counted, "pickled", pickled)
    (item,) = send([Counted(3)])
    assert in_parallel(operator.mul, [(item, i) for i in range(6)], bar=tqdm(disable=True)) == [0, 3, 6, 9, 12, 15]
    assert len(pickled) == 1


@pytest.mark.usefixtures("two_processes")
def test_a_fold_is_sent_no_pixels(two_slides, monkeypatch):
    sent = []
    real = held_out.in_parallel

    def spy(function, calls, **options):
        return real(function, (sent.append(call[0].result()) or call for call in calls), **options)

    monkeypatch.setattr(held_out, "in_parallel", spy)
    h2e.tl.evaluate(two_slides, **SCORED)
    assert len(sent) == 2
    for spec in sent:
        assert all(len(slide.image.levels) == 1 for slide in spec.cohort.slides)
        assert not any(slide.image.levels[0].compute().any() for slide in spec.cohort.slides)


def test_pixels_that_the_cluster_holds_are_read_from_it(two_processes):
    picture = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    level = two_processes.persist(da.from_array(picture, chunks=(3, 32, 32)))
    windows = Windows(0, np.array([[0, 0], [30, 30]]), 16, 16)
    (tiles,) = read((level + np.uint8(0),), [windows], "held")
    np.testing.assert_array_equal(tiles[1], picture[:, 30:46, 30:46])


def test_two_workers_of_the_command_line_one_of_which_is_killed_in_the_middle(tmp_path: Path, stored):
    # Defined here, it travels to workers that do not know this file.
    @dataclass(frozen=True)
    class Deadly(Mean):
        name = "deadly"
        marker: str = ""

        def fit(self, x, y, groups, **options):
            if in_task() and not Path(self.marker).exists():
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().fit(x, y, groups, **options)

    died, address = tmp_path / "died", tmp_path / "scheduler.json"
    options = SCORED | {"learners": [Deadly(marker=str(died)), "texture"]}
    # Workers of other tests are spared.
    died.touch()
    expected = h2e.tl.evaluate(stored, **options)
    died.unlink()
    command = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(address), "--no-dashboard"]
    worker = [*command, "worker", *where, "--nthreads", "1", "--no-nanny", "--death-timeout", "180"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    started = [subprocess.Popen([*command, "scheduler", *where, "--port", "0"], **quiet)]
    started += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    try:
        with Client(scheduler_file=str(address), timeout=180) as client:
            client.wait_for_workers(2, timeout=180)
            there = h2e.tl.evaluate(stored, **options)
            assert died.exists()
            assert [process.poll() for process in started].count(-signal.SIGKILL) == 1
        pd.testing.assert_frame_equal(there, expected, rtol=1e-5)
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_the_page_shows_how_slurm_is_asked_for_workers():
    import dask

    page = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
    (block,) = [one for one in page.split("```python\n") if one.startswith("from dask_jobqueue")]
    code, gpu = block.split("cluster.scale(")[0], re.search(r"job_extra_directives=\[.*?\]", page)[0]
    with dask.config.set({"jobqueue.slurm.scheduler-options": {"dashboard_address": ":0"}}):
        names: dict = {}
        exec(code.replace('queue="cpu",', f'queue="cpu", {gpu},'), names)
        with names["cluster"] as cluster:
            script = cluster.job_script()
    wanted = ["#SBATCH -p cpu", "#SBATCH -n 1", "#SBATCH --mem=8G", "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1"]
    for line in [*wanted, "export OMP_NUM_THREADS=1"]:
        assert line in script.splitlines()
    assert "--nthreads 1" in script


class Counted:
    """A number that counts how often it is pickled here."""

    pickled: list[int] = []

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple:
        self.pickled.append(self.number)
        return int, (self.number,)
