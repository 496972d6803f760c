"""What each step takes, beside the code of an earlier commit: processor time, wall time and memory.

    H2E_DATA=../shared/data python benchmarks/speed.py [--steps fit …] [--large]   # 15 minutes; --large: hours
    python benchmarks/speed.py --table [--all]   # prints the table of docs/speed.md, from the file
    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/speed.py --encoder   # 5 minutes; writes no file

Each step runs in a process of its own, on one thread, first with the code of commit 560ccb5 (checked out into a
folder), then with the code of today, so that both meet the same machine in the same state. Reading, compiling and what
a step needs from the step before are not counted. Rows that are missing are added to results/speed.csv; delete the
file to measure again. A clone without that commit, and --smoke, time the code of today only. ``--large`` adds 10,000
and 100,000 synthetic spots; what takes longer than half an hour is stopped there. ``--encoder`` prints how far the packaged encoder
is in bfloat16 from float32, in features and scores, and what torch.compile would gain.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _data import cohort_of, load
from _record import CommandLine, append, read, select
from _speed_steps import STEPS
from _tables import markdown, means_of, number, wide
from torch import nn

import h2e
from h2e._learners.shell import BATCH, _moments, _stain_channels, shell_network
from h2e._slide.tiles import read_views

BEFORE = "560ccb5"
"""The commit that the code of today is compared with."""

ROOT = Path(__file__).parents[1]
LIMIT = 1800
"""Seconds after which a step of the earlier code is stopped."""

LARGE = [step for step in STEPS if any(size in step for size in ("100,000", "30,000", "20,000²", "40,000²"))]
LARGE += [step for step in STEPS if step.startswith(("fit", "predict")) and "10,000" in step]
SHOWN = ("import", "fit", "predict", "evaluate", "make_spots")
"""What steps in the documentation begin with; --all prints the others, too."""
SMOKE = ["import h2e", "head pls, 1,000 spots"]


def check_out(folder: Path) -> Path | None:
    """Unpack the earlier code; ``None`` where the clone has not got it."""
    command = ["git", "-C", str(ROOT), "archive", BEFORE, "src"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


def measure(step: str, source: Path, *, smoke: bool, limit: int | None) -> dict[str, float]:
    """Run a step with the code of a folder; nothing was measured where it took too long."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__).with_name("_speed_steps.py")), step, *["--smoke"] * smoke]
    environment = os.environ | one | {"PYTHONPATH": str(source), "MPLBACKEND": "agg"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"cpu": float("nan"), "wall": float("nan"), "peak_gb": float("nan")}
    if done.returncode:
        sys.exit(f"{step} failed with the code in {source}:\n{done.stderr}")
    spent = json.loads(done.stdout.splitlines()[-1])
    if Path(spent.pop("source")).resolve() != (source / "h2e").resolve():
        sys.exit(f"{step} did not run with the code in {source}.")
    return spent


def table(measured: pd.DataFrame, *, every: bool) -> Iterator[str]:
    """Yield the table, a line a step: processor time with the earlier code and today, their ratio, and memory."""
    rows = []
    for step, of_step in measured.groupby("step", sort=False):
        if not (every or step.startswith(SHOWN)):
            continue
        by_code = of_step.drop_duplicates("code", keep="last").set_index("code").reindex([BEFORE, "today"])
        before, today = by_code["cpu"]
        late = f"over {LIMIT / 60:.0f} min" if BEFORE in of_step["code"].tolist() else ""
        row = [step, number(today, 1), number(before, 1) or late, number(before / today, 1)]
        rows.append([*row, number(by_code.loc["today", "peak_gb"], 1)])
    yield from markdown(["step", "CPU seconds", f"before ({BEFORE})", "times faster", "memory, GB"], rows)


def precision(*, smoke: bool) -> list[np.ndarray]:
    """Print what bfloat16 changes in the features of 64 spots, and in the scores of ridge; gives their tiles."""
    sdata = load("her2st", smoke=smoke)
    cohort = cohort_of(sdata, "donor")
    spacing_um, step = cohort.spacing_um(np.arange(len(cohort.rows))), max(1, len(cohort.rows) // 64)
    learners = {name: h2e.tl.Embedding(precision=name) for name in ("float32", "bfloat16")}
    views = learners["float32"].views
    tiles = [read_views(slide, slide.xy[::step], views, spacing_um=spacing_um) for slide in cohort.slides]
    tiles = [np.concatenate(of_view)[:64] for of_view in zip(*tiles, strict=True)]
    x, rounded = (learner.extract_features(tiles) for learner in learners.values())
    change = abs(rounded - x)
    for name, relative in {"of a feature": change / abs(x), "of its std over spots": change / x.std(axis=0)}.items():
        print(f"bfloat16, share {name}: median {np.median(relative):.2g}, most {relative.max():.2g}")
    for name, learner in learners.items():
        spent = cpu_seconds(lambda learner=learner: learner.extract_features(tiles))
        scores = h2e.tl.evaluate(sdata, learners=learner, group_key="donor", baselines=(), progress=False)
        means = wide(select(means_of(scores), group="all"), ["method"]).reset_index()
        print(f"{name}: {spent:.2f} CPU s\n{means[['method', 'pearson', 'skill']].to_string(index=False)}", flush=True)
    return tiles


def cpu_seconds(task: Callable[[], object], n: int = 3) -> float:
    """Take the least processor time of some runs."""
    spent = []
    for _ in range(n):
        start = time.process_time()
        task()
        spent.append(time.process_time() - start)
    return min(spent)


def compiling(tiles: list[np.ndarray]) -> None:
    """Print what the features of some spots take by today's network and by that of torch alone, compiled or not."""
    today = copy.deepcopy(shell_network(torch.device("cpu")))
    of_torch = copy.deepcopy(today)
    for name, module in list(of_torch.named_modules()):
        if isinstance(module, nn.GroupNorm):
            norm = nn.GroupNorm(module.num_groups, module.num_channels, module.eps)
            norm.load_state_dict(module.state_dict())
            of_torch.set_submodule(name, nn.Sequential(norm, nn.Mish()))
    # Torch cannot see into the compiled loops: it compiles what lies between them.
    around = copy.deepcopy(today)
    for module in around.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = torch.compiler.disable(module.forward)
    around = torch.compile(around)

    def moments_of_torch(x: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        return [torch.var_mean(level, (2, 3), correction=0) for level in of_torch(x)]

    variants = {
        "today's network": lambda x: [_moments(level) for level in today(x)],
        "today's network, compiled": lambda x: [_moments(level) for level in around(x)],
        "torch alone": moments_of_torch,
        "torch alone, compiled": torch.compile(moments_of_torch),
    }

    def extract(encode: Callable[[torch.Tensor], object]) -> None:
        with torch.inference_mode():
            for view in tiles:
                for start in range(0, len(view), BATCH):
                    x = torch.from_numpy(_stain_channels(view[start : start + BATCH]))
                    encode(x.contiguous(memory_format=torch.channels_last))

    with tempfile.TemporaryDirectory() as folder:
        # What an earlier run compiled is not used.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for name, encode in variants.items():
            start = time.perf_counter()
            extract(encode)
            first, spent = time.perf_counter() - start, cpu_seconds(lambda encode=encode: extract(encode), n=5)
            print(f"{name}: {spent:.2f} CPU s, the first time {first:.0f} s", flush=True)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the table of docs/speed.md, measure nothing")
    parser.add_argument("--all", action="store_true", help="print every row of it")
    parser.add_argument("--large", action="store_true", help="10,000 and 100,000 spots, too")
    parser.add_argument("--today", action="store_true", help="without the earlier code")
    parser.add_argument("--steps", nargs="+", default=[""], metavar="WORDS", help="only steps that begin so")
    parser.add_argument("--encoder", action="store_true", help="what bfloat16 and torch.compile change, and stop")
    options = parser.parse_args()
    if options.encoder:
        torch.set_num_threads(1)
        # h2e says of each slide which tiles are enlarged.
        warnings.simplefilter("ignore")
        compiling(precision(smoke=options.smoke))
        return
    path = options.results / "speed.csv"
    steps = SMOKE if options.smoke else [step for step in ("import h2e", *STEPS) if options.large or step not in LARGE]
    with tempfile.TemporaryDirectory() as folder:
        before = None if options.smoke or options.table or options.today else check_out(Path(folder))
        for step in steps:
            known = select(read(path), step=step)
            if options.table or len(known) or not step.startswith(tuple(options.steps)):
                continue
            sources = ({BEFORE: before} if before else {}) | {"today": ROOT / "src"}
            rows = [
                {
                    "step": step,
                    "code": code,
                    **measure(step, source, smoke=options.smoke, limit=LIMIT if code == BEFORE else None),
                }
                for code, source in sources.items()
            ]
            append(pd.DataFrame(rows), path)
            print(pd.DataFrame(rows).to_string(index=False, header=False), flush=True)
    print("\n".join(table(read(path), every=options.all)))


if __name__ == "__main__":
    main()
