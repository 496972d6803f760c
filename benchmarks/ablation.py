"""What each part of the method is worth: one part changed at a time, a donor of her2st left out, nothing of it used.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/ablation.py [--epochs 12] [--minutes 60] [--rows base]
    python benchmarks/ablation.py --list      # the rows, in their order
    python benchmarks/ablation.py --table [--all]  # prints the tables of docs/benchmarks.md, or every row, from the file

Targets are chosen without the donor, as ``h2e.tl.evaluate`` does; each fold has one model of all training spots (no
stack, unless the row says so), and its predictions come back to log-normalized expression. Rows that are missing are
added to benchmarks/results/ablation.csv one by one, so that it goes on where it was interrupted. ``--epochs`` and the
seed belong to the name of a row of the network: runs of other lengths stand beside each other in the file.
``--minutes`` starts no row after that time. One thread; a row of texture takes up to half a minute, one of the
network with 6 epochs 1 to 40 minutes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _ablation_rows import CHEAP, NETWORK, Row, smoke_rows
from _ablation_runs import Data, predictions_of
from _data import targets_of
from _record import CommandLine, append, read, select
from _tables import markdown, means_of, number, wide

from h2e._ensemble.training import folds_within
from h2e.metrics import score

METRICS = ["pearson", "skill", "variance_ratio"]
SHOWN = (
    "base", "displaced", "displaced, realigned", "source, last epoch", "source, best epoch", "center encoder alone",
)  # fmt: skip
"""Rows in the documentation; --all prints the others, too."""
COLUMNS = ["part", "row", "epochs", "seed", "group", *METRICS, "n_spots", "cpu_s"]


def one_run(row: Row, data: Data, *, epochs: int, seed: int) -> pd.DataFrame:
    """Score each held-out group, and the mean over groups, for each method that the row names."""
    start = time.process_time()
    cohort, scored = data.cohort(row)
    targets = targets_of(cohort, 4 if data.smoke else 35)
    folds = folds_within(cohort, np.arange(len(cohort.rows)), (row.learner,))
    parts = []
    for fold in folds[:1] if data.smoke else folds:
        values = targets.measured(fold.train)
        predictions, baseline = predictions_of(row, data, fold, values, epochs=epochs, seed=seed)
        keep = scored[fold.test]
        test = fold.test[keep]
        labels = {"slides": cohort.names[test], "groups": cohort.groups[test]}
        for method, prediction in predictions.items():
            scores = score(prediction[keep], values.iloc[test], **labels, baseline=baseline, metrics=METRICS)
            parts.append(scores.assign(row=method))
    table = wide(means_of(pd.concat(parts, ignore_index=True)), ["row", "group"])[METRICS].reset_index()
    return table.assign(n_spots=int(scored.sum()), cpu_s=round(time.process_time() - start))


def plan(epochs: int, seeds: list[int], rows: list[Row]) -> list[tuple[str, Row, int, int]]:
    """List part, row, epochs and seed of every run; rows of texture have neither epochs nor seeds."""
    texture, network = ([row for row in rows if (row.learner.name == "texture") == cheap] for cheap in (True, False))
    return [("texture", row, 0, 0) for row in texture] + [
        ("network", row, epochs, seed) for seed in seeds for row in network
    ]


def measure(runs: list[tuple[str, Row, int, int]], data: Data, path: Path, *, minutes: float) -> None:
    """Add what is missing to the file."""
    begun = time.monotonic()
    for part, row, epochs, seed in runs:
        key = {"part": part, "epochs": epochs, "seed": seed}
        if all(len(select(read(path), row=method, **key)) for method in row.methods):
            continue
        if time.monotonic() - begun > 60 * minutes:
            print("out of time before", part, row.name, flush=True)
            return
        with warnings.catch_warnings():
            # h2e says in each fold which tiles are enlarged.
            warnings.simplefilter("ignore")
            table = one_run(row, data, epochs=epochs, seed=seed).assign(**key)[COLUMNS]
        append(table, path)
        print(table.to_string(index=False, header=False), flush=True)


def tables(measured: pd.DataFrame, *, every: bool) -> Iterator[str]:
    """Yield the Markdown: a table for the rows of texture, and one for each number of epochs of the network."""
    for (part, epochs), table in measured.groupby(["part", "epochs"], sort=False):
        planned = CHEAP if part == "texture" else NETWORK
        rows = {method: what for row in planned for method, what in row.methods.items()}
        title = "Texture ridge" if part == "texture" else f"Network, {epochs} epochs"
        listed = [name for name in rows if name in set(table["row"]) and (every or name in SHOWN)]
        heads = [title, "what is changed", "Pearson", "− base", "median skill"]
        yield from markdown(heads, ([name, rows[name], *cells(table, name)] for name in listed))
        yield ""


def cells(table: pd.DataFrame, method: str) -> list[str]:
    """Average over the seeds; the difference from base is taken within the seeds that both have."""
    mine = select(table, row=method)
    base = select(table, row="base", group="all").set_index("seed")["pearson"]
    overall = select(mine, group="all").set_index("seed")
    gain = (overall["pearson"] - base).dropna()
    from_base = "" if method == "base" or gain.empty else number(gain.mean())
    return [number(overall["pearson"].mean()), from_base, number(overall["skill"].mean())]


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=sorted({row.name for row in (*CHEAP, *NETWORK)}))
    parser.add_argument("--minutes", type=float, default=np.inf)
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--table", action="store_true", help="print the tables of docs/benchmarks.md and stop")
    parser.add_argument("--all", action="store_true", help="print every row of them")
    options = parser.parse_args()
    path = options.results / "ablation.csv"
    rows = [row for row in (*CHEAP, *NETWORK) if not options.rows or row.name in options.rows]
    runs = plan(1, [0], smoke_rows()) if options.smoke else plan(options.epochs, options.seeds, rows)
    if options.list:
        print("\n".join(f"{part} | {row.name} | epochs={epochs} seed={seed}" for part, row, epochs, seed in runs))
        return
    if not options.table:
        torch.set_num_threads(1)
        measure(runs, Data(options.smoke), path, minutes=options.minutes)
    print("\n".join(tables(read(path), every=options.all)))


if __name__ == "__main__":
    main()
