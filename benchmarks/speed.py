"""What each step takes, beside the code of an earlier commit: processor time, wall time and memory.

    H2E_DATA=../shared/data python benchmarks/speed.py [--steps fit …] [--large]   # 15 minutes; --large: hours
    python benchmarks/speed.py --table   # prints the table of docs/speed.md, from the file

Each step runs in a process of its own, on one thread, first with the code of commit 560ccb5 (checked out into a
folder), then with the code of today, so that both meet the same machine in the same state. Reading, compiling and what
a step needs from the step before are not counted. Rows that are missing are added to results/speed.csv; delete the
file to measure again. A clone without that commit, and --smoke, time the code of today only. ``--large`` adds 10,000
and 100,000 synthetic spots; what takes longer than half an hour is stopped there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd
from _record import CommandLine, append, read, select
from _speed_steps import STEPS
from _tables import markdown, number

BEFORE = "560ccb5"
"""The commit that the code of today is compared with."""

ROOT = Path(__file__).parents[1]
LIMIT = 1800
"""Seconds after which a step is stopped."""

LARGE = [step for step in STEPS if any(size in step for size in ("100,000", "20,000²", "40,000²"))]
LARGE += [step for step in STEPS if step.startswith(("fit", "predict")) and "10,000" in step]
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


def measure(step: str, source: Path, *, smoke: bool) -> dict[str, float]:
    """Run a step with the code of a folder; nothing was measured where it took too long."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__).with_name("_speed_steps.py")), step, *["--smoke"] * smoke]
    environment = os.environ | one | {"PYTHONPATH": str(source), "MPLBACKEND": "agg"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"cpu": float("nan"), "wall": float("nan"), "peak_gb": float("nan")}
    if done.returncode:
        sys.exit(f"{step} failed with the code in {source}:\n{done.stderr}")
    spent = json.loads(done.stdout.splitlines()[-1])
    if Path(spent.pop("source")).resolve() != (source / "h2e").resolve():
        sys.exit(f"{step} did not run with the code in {source}.")
    return spent


def table(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the table, a line a step, the ratios of processor time beside it."""
    rows = []
    for step, of_step in measured.groupby("step", sort=False):
        by_code = of_step.drop_duplicates("code", keep="last").set_index("code").reindex([BEFORE, "today"])
        before, today = by_code["cpu"]
        late = f"over {LIMIT / 60:.0f} min" if BEFORE in of_step["code"].tolist() else ""
        row = [step, number(before, 1) or late, number(today, 1), number(before / today, 1)]
        rows.append([*row, *(number(value, 1) for column in ("wall", "peak_gb") for value in by_code[column])])
    heads = ["step", f"CPU s, {BEFORE}", "CPU s, today", "ratio", f"wall s, {BEFORE}", "wall s, today"]
    yield from markdown([*heads, f"GB, {BEFORE}", "GB, today"], rows)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    parser.add_argument("--large", action="store_true", help="10,000 and 100,000 spots, too")
    parser.add_argument("--steps", nargs="+", default=[""], metavar="WORDS", help="only steps that begin so")
    options = parser.parse_args()
    path = options.results / "speed.csv"
    steps = SMOKE if options.smoke else [step for step in ("import h2e", *STEPS) if options.large or step not in LARGE]
    with tempfile.TemporaryDirectory() as folder:
        before = None if options.smoke or options.table else check_out(Path(folder))
        for step in steps:
            known = select(read(path), step=step)
            if options.table or len(known) or not step.startswith(tuple(options.steps)):
                continue
            sources = ({BEFORE: before} if before else {}) | {"today": ROOT / "src"}
            rows = [
                {"step": step, "code": code, **measure(step, source, smoke=options.smoke)}
                for code, source in sources.items()
            ]
            append(pd.DataFrame(rows), path)
            print(pd.DataFrame(rows).to_string(index=False, header=False), flush=True)
    print("\n".join(table(read(path))))


if __name__ == "__main__":
    main()
