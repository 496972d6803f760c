"""What all scripts share: the command line, where files go, and what is recorded of each measurement."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "_static"
RECORD = ("h2e", "date", "processor")
"""Columns of every CSV: version of h2e, day of the measurement, and what computed."""

MAX_BYTES = 300 * 1024
"""Of a picture in the documentation."""


class CommandLine(argparse.ArgumentParser):
    """The options that every script has; ``results`` and ``pictures`` are the folders that it may write to."""

    def __init__(self, doc: str) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--smoke", action="store_true", help="try the script on tiny synthetic data, in seconds")
        self.add_argument("--out", type=Path, metavar="FOLDER", help="for all files (--smoke: a temporary folder)")

    def parse_args(self) -> argparse.Namespace:
        """Parse, and keep what nobody measured out of the folders of what was measured."""
        options = super().parse_args()
        if options.smoke:
            options.out = options.out or Path(tempfile.mkdtemp(prefix="h2e-smoke-"))
            if options.out.resolve() in (RESULTS.resolve(), PICTURES.resolve()):
                self.error(f"--out must be another folder with --smoke, got {options.out}, which holds measurements.")
        options.results, options.pictures = options.out or RESULTS, options.out or PICTURES
        options.results.mkdir(parents=True, exist_ok=True)
        return options


def processor() -> str:
    """Give the name of the processor."""
    linux = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", linux.read_text(), flags=re.MULTILINE) if linux.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def stamp(table: pd.DataFrame, device: str | None = None) -> pd.DataFrame:
    """Add what every row must say; ``device`` is what computed, if not the processor."""
    values = (version("h2e"), datetime.date.today().isoformat(), device or processor())
    return table.assign(**dict(zip(RECORD, values, strict=True)))


def write(table: pd.DataFrame, path: Path, device: str | None = None) -> None:
    """Replace a file, and print what is in it."""
    stamp(table, device).to_csv(path, index=False)
    print(f"\n{path.name}\n{table.to_string(index=False, na_rep='')}")


def append(table: pd.DataFrame, path: Path, device: str | None = None) -> None:
    """Add rows to a file."""
    stamped = stamp(table, device)
    columns = read(path).columns if path.exists() else stamped.columns
    stamped[list(columns)].round(4).to_csv(path, mode="a", header=not path.exists(), index=False)


def read(path: Path) -> pd.DataFrame:
    """Read what was measured so far."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def select(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Take the rows that have these values in these columns."""
    return table[table[list(values)].eq(pd.Series(values)).all(axis=1)] if len(table) else table


def run_apart(script: str, *command: str) -> str:
    """Run a script in a process of its own, on one thread; returns what it printed."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, script, *command], env=os.environ | one, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{script} {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def save_picture(figure: plt.Figure, path: Path, *, dpi: int) -> None:
    """Write a JPEG of at most 300 kB and close the figure."""
    import matplotlib.pyplot as plt

    for quality in (85, 75, 65, 55, 45, 35):
        figure.savefig(path, dpi=dpi, pil_kwargs={"quality": quality, "optimize": True, "progressive": True})
        if path.stat().st_size < MAX_BYTES:
            break
    plt.close(figure)
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")
