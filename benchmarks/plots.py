"""Time and size of a map of 100,000 spots.

    python benchmarks/plots.py [--spots 100000]   # a minute

One map of a table, discs and the squares of Visium HD, 3 % of the spots without a value, saved as PNG, PDF and SVG.
Seconds are of CPU time on one thread, from the call to the written file. Writes benchmarks/results/plots.csv.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _record import CommandLine, write

import h2e


def table_of(n: int, *, bins: bool) -> ad.AnnData:
    """Make a table of spots or bins with predictions of one target."""
    columns = int(np.sqrt(n))
    xy = np.stack(np.divmod(np.arange(n), columns)[::-1], axis=1) * 10.0
    rng = np.random.default_rng(0)
    values = np.sin(xy[:, 0] / 300) * np.cos(xy[:, 1] / 400) + rng.normal(0, 0.2, n)
    values[rng.random(n) < 0.03] = np.nan
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obsm={"spatial": xy})
    adata.obsm["h2e"] = pd.DataFrame({"EPCAM": values.astype(np.float32)}, index=adata.obs_names)
    factors = {"microns_per_pixel": 0.8} | ({"bin_size_um": 8.0} if bins else {})
    adata.uns["spatial"] = {"slide": {"scalefactors": factors}}
    return adata


def measure(n: int, folder: Path) -> pd.DataFrame:
    """Draw and write each map."""
    # What is imported at the first plot is not measured.
    h2e.pl.spatial_pred(table_of(100, bins=False), "EPCAM").figure.savefig(folder / "first.png")
    rows = []
    for shape in ("discs", "squares"):
        adata = table_of(n, bins=shape == "squares")
        for kind in ("png", "pdf", "svg"):
            path = folder / f"map.{kind}"
            start = time.process_time()
            h2e.pl.spatial_pred(adata, "EPCAM").figure.savefig(path)
            seconds = round(time.process_time() - start, 1)
            plt.close("all")
            megabytes = round(path.stat().st_size / 1e6, 2)
            rows.append({"spots": n, "shape": shape, "format": kind, "cpu_s": seconds, "MB": megabytes})
    return pd.DataFrame(rows)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--spots", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(400 if options.smoke else options.spots, Path(folder))
    write(table, options.results / "plots.csv")


if __name__ == "__main__":
    main()
