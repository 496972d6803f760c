"""How time and memory grow with slides, donors and workers, on synthetic slides in a store.

    python benchmarks/growth.py            # 25 minutes on two quiet cores; rows that are there are not measured again
    python benchmarks/growth.py --table    # prints the tables of docs/cluster.md, from the file

Each step runs in a process of its own on one thread, with a store of so many slides of four donors (evaluate: of as many
donors as slides); what it needs from the step before is not counted. Workers are processes of one thread on this machine,
which have done a small evaluation before; processor time is that of all processes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from _record import CommandLine, append, read, run_apart, select
from _speed_steps import _forget_peak, _peak_gb
from _tables import markdown, number
from spatialdata import SpatialData, read_zarr

import h2e

LEARNERS = ("texture", "knn", "pls")
OPTIONS = {"learners": LEARNERS, "group_key": "donor", "progress": False}

SLIDES, DONORS, WORKERS = (4, 16, 64), (4, 8, 16), ("here", 1, 2)
STEPS = [
    *(("open", n) for n in (*SLIDES, 100)),
    *((step, n) for step in ("normalize", "fit", "predict") for n in SLIDES),
    *(("evaluate", n) for n in DONORS),
    ("evaluate, n_folds=4", 16),
    *((f"evaluate, workers: {n}", 8) for n in WORKERS),
]
"""Steps, and the number of their slides."""

MEASURED = ("pearson", "wall", "cpu", "client_cpu", "peak_gb")
"""Columns of the file; what a step does not tell stays empty."""

SMOKE = [("open", 2), ("evaluate", 2)]


def store(folder: Path, n_slides: int, n_donors: int) -> Path:
    """Write so many synthetic slides once."""
    path = folder / f"{n_slides}_of_{n_donors}.zarr"
    if not path.exists():
        h2e.datasets.toy_cohort(n_slides=n_slides, n_donors=n_donors).write(path)
    return path


def task_of(step: str, path: Path) -> Callable[[], object]:
    """Prepare a step, up to what is timed."""
    if step == "open":
        return lambda: opened(read_zarr(path))
    sdata = read_zarr(path)
    if step == "normalize":
        return lambda: h2e.pp.normalize(sdata, progress=False)
    if step == "fit":
        return lambda: h2e.tl.fit(sdata, **OPTIONS)
    if step == "predict":
        ensemble = h2e.tl.fit(sdata, **OPTIONS)
        return lambda: h2e.tl.predict(sdata, ensemble, in_sample=True, progress=False)
    n_folds = 4 if "n_folds" in step else None
    return lambda: h2e.tl.evaluate(sdata, n_folds=n_folds, **OPTIONS)


def opened(sdata: SpatialData) -> list:
    """Find each slide's image, spots and scale, as every call of h2e does first."""
    from h2e._sdata.keys import Keys
    from h2e._sdata.slides import open_slides

    return open_slides(sdata, Keys())


def on_workers(n: int, path: Path) -> dict[str, float]:
    """Evaluate on some worker processes, after a small evaluation that compiles what they need."""
    from distributed import Client, LocalCluster

    # As docs/cluster.md says; by default dask has memory given back at once, which takes time.
    os.environ |= {"MALLOC_TRIM_THRESHOLD_": str(2**29), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    sdata, small = read_zarr(path), h2e.datasets.toy_cohort(n_slides=2 * n, n_donors=2 * n, side=6)
    with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        h2e.tl.evaluate(small, **OPTIONS)

        def spent() -> np.ndarray:
            return np.array([time.perf_counter(), time.process_time(), sum(client.run(time.process_time).values())])

        before = spent()
        h2e.tl.evaluate(sdata, **OPTIONS)
        wall, own, others = spent() - before
        return {"wall": wall, "cpu": own + others, "client_cpu": own}


def measure(step: str, path: Path) -> dict[str, float]:
    """Time a step in this process; kernels are compiled before."""
    if step.partition("workers: ")[2].isdigit():
        return on_workers(int(step[-1]), path)
    task = task_of(step, path)
    small = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    h2e.pp.normalize(small, progress=False)
    h2e.tl.evaluate(small, **OPTIONS)
    _forget_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    result = task()
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak_gb": _peak_gb()}
    if step.startswith("evaluate"):
        summary = h2e.metrics.summarize(result).set_index(["method", "metric"])
        spent["pearson"] = float(summary.loc[("ensemble", "pearson"), "mean"])
    return spent


def table(measured: pd.DataFrame) -> None:
    """Print how each step grows, and what folds and workers change."""
    rows = []
    for step in ("open", "normalize", "fit", "predict"):
        of_step = select(measured, step=step).set_index("slides")
        cells = [f"{number(of_step['cpu'].get(n, float('nan')), 1)}" for n in (*SLIDES, 100)]
        rows.append([step, *cells, number(of_step["peak_gb"].max(), 1)])
    print("\n".join(markdown(["CPU seconds", *(f"{n} slides" for n in (*SLIDES, 100)), "memory, GB"], rows)), "\n")
    of_evaluate = measured[measured["step"].str.startswith("evaluate") & ~measured["step"].str.contains("workers")]
    rows = [
        [row["step"], str(row["slides"]), number(row["cpu"], 0), number(row["pearson"], 3)]
        for _, row in of_evaluate.iterrows()
    ]
    print("\n".join(markdown(["", "donors", "CPU seconds", "Pearson"], rows)), "\n")
    of_workers = measured[measured["step"].str.contains("workers")].set_index("step")
    one = of_workers["wall"].get("evaluate, workers: 1", float("nan"))
    rows = [
        [step.partition(": ")[2], number(row["wall"], 0), number(row["cpu"], 0), number(one / row["wall"], 1)]
        for step, row in of_workers.iterrows()
    ]
    # Folds are as long as each other, and what the client does itself has no share in it.
    client = of_workers["client_cpu"].max()
    for n in (8, 64):
        paper = client + (one - client) * math.ceil(8 / n) / 8
        rows.append([f"{n}, on paper", number(paper, 0), "", number(one / paper, 1)])
    print("\n".join(markdown(["workers", "seconds", "CPU seconds", "× one worker"], rows)))


def main() -> None:
    """Measure what is missing, or print the tables."""
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables of docs/cluster.md, measure nothing")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "STORE"), help="measure one step and print it as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.step:
        print(json.dumps(measure(options.step[0], Path(options.step[1]))))
        return
    path = options.results / "growth.csv"
    with tempfile.TemporaryDirectory() as folder:
        for step, n in () if options.table else SMOKE if options.smoke else STEPS:
            if len(select(read(path), step=step, slides=n)):
                continue
            n_donors = n if step.startswith("evaluate") else min(n, 4)
            spent = run_apart(__file__, "--step", step, str(store(Path(folder), n, n_donors)))
            row = {
                "step": step,
                "slides": n,
                **dict.fromkeys(MEASURED, float("nan")),
                **json.loads(spent.splitlines()[-1]),
            }
            append(pd.DataFrame([row]), path)
            print(step, n, row, file=sys.stderr, flush=True)
    table(read(path))


if __name__ == "__main__":
    main()
