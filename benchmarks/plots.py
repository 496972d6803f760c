"""Time and size of a map of 100,000 spots.

python benchmarks/plots.py [--spots 100000] [--out benchmarks/results/plots.csv]

One map of a table, discs and the squares of Visium HD, 3 % of the spots without a value, saved as PNG, PDF and SVG.
Seconds are of CPU time on one thread, from the call to the written file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import h2e

OUT = Path(__file__).parent / "results" / "plots.csv"


def table_of(n: int, *, bins: bool) -> ad.AnnData:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spots", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        h2e.pl.spatial_pred(table_of(100, bins=False), "EPCAM").figure.savefig(Path(folder, "first.png"))  # imports
        for shape in ("discs", "squares"):
            adata = table_of(arguments.spots, bins=shape == "squares")
            for kind in ("png", "pdf", "svg"):
                path = Path(folder, f"map.{kind}")
                start = time.process_time()
                h2e.pl.spatial_pred(adata, "EPCAM").figure.savefig(path)
                seconds = time.process_time() - start
                plt.close("all")
                rows.append(
                    {
                        "spots": arguments.spots,
                        "shape": shape,
                        "format": kind,
                        "cpu_s": round(seconds, 1),
                        "MB": round(path.stat().st_size / 1e6, 2),
                    }
                )
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
