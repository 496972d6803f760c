"""What each part of the method is worth: one part changed at a time, a donor of her2st left out, nothing of it used.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/ablation.py [--epochs 12] [--minutes 60] [--rows base
    "six models"] python benchmarks/ablation.py --list      # the rows, in their order python benchmarks/ablation.py
    --table     # prints the tables of docs/ablation.md, from the file

Targets are chosen without the donor, as ``h2e.tl.evaluate`` does; each fold has one model of all training spots (no
stack, unless the row says so), and its predictions come back to log-normalized expression. Rows that are missing are
added to benchmarks/results/ablation.csv one by one, so that it goes on where it was interrupted. ``--epochs`` and the
seed belong to the name of a row of the network: runs of other lengths stand beside each other in the file.
``--minutes`` starts no row after that time. One thread.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ablation_rows import CHEAP, NETWORK, Row
from ablation_runs import Data, predictions_of

from h2e._ensemble.training import TargetSpec, folds_within
from h2e.metrics import score, summarize

OUT = Path(__file__).parent / "results" / "ablation.csv"
KEY = ["part", "row", "epochs", "seed"]
METRICS = ("pearson", "skill", "variance_ratio")
N_TARGETS = 35


def one_run(row: Row, data: Data, *, epochs: int, seed: int) -> pd.DataFrame:
    """Scores of each held-out group and over groups, for each method that the row names."""
    start = time.process_time()
    cohort, scored = data.cohort(row)
    truth = TargetSpec(cohort.table, None, N_TARGETS, None, None, log_normalized=False)
    parts = []
    for fold in folds_within(cohort, np.arange(len(cohort.rows)), (row.learner,)):
        values = truth.of(cohort, fold.train)
        found, baseline = predictions_of(row, data, fold, values, epochs=epochs, seed=seed)
        keep = scored[fold.test]
        test = fold.test[keep]
        where = {"slides": cohort.names[test], "groups": cohort.groups[test]}
        for method, prediction in found.items():
            scores = score(prediction[keep], values.iloc[test], **where, baseline=baseline, metrics=METRICS)
            parts.append(scores.assign(row=method))
    scores = pd.concat(parts, ignore_index=True)
    both = pd.concat([summarize(scores).assign(group="all"), summarize(scores, by="group")])
    value = both["median"].where(both["metric"] == "skill", both["mean"])  # one target cannot ruin a median
    wide = both.assign(value=value).pivot_table(index=["row", "group"], columns="metric", values="value", sort=False)
    wide = wide[list(METRICS)].reset_index()
    wide["n_spots"] = int(scored.sum())
    wide["cpu_s"] = round(time.process_time() - start)
    return wide


def read() -> pd.DataFrame:
    """What was measured so far."""
    return pd.read_csv(OUT) if OUT.exists() else pd.DataFrame(columns=KEY)


def plan(epochs: int, seeds: list[int]) -> list[tuple[str, Row, int, int]]:
    """Part, row, epochs and seed of everything, what says most first; cheap rows have neither epochs nor seeds."""
    cheap = [("texture", row, 0, 0) for row in CHEAP]
    return cheap + [("network", row, epochs, seed) for seed in seeds for row in NETWORK]


def measure(asked: list[tuple[str, Row, int, int]], *, minutes: float) -> None:
    """Add what is missing to the file."""
    begun = time.monotonic()
    data = Data()
    for part, row, epochs, seed in asked:
        there = set(read()[KEY].itertuples(index=False, name=None))
        if all((part, method, epochs, seed) in there for method in row.methods):
            continue
        if time.monotonic() - begun > 60 * minutes:
            print("out of time before", part, row.name, flush=True)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tiles that are enlarged, once a fold
            found = one_run(row, data, epochs=epochs, seed=seed)
        found.insert(0, "part", part)
        found.insert(2, "epochs", epochs)
        found.insert(3, "seed", seed)
        OUT.parent.mkdir(exist_ok=True)
        found.to_csv(OUT, mode="a", header=not OUT.exists(), index=False, float_format="%.4f")
        print(found.to_string(index=False, header=False), flush=True)


def tables(found: pd.DataFrame) -> Iterator[str]:
    """Lines of Markdown: a table for the cheap rows, and one for each number of epochs of the network."""
    for (part, epochs), table in found.groupby(["part", "epochs"], sort=False):
        rows = [row for row in (CHEAP if part == "texture" else NETWORK) if set(row.methods) & set(table["row"])]
        donors = sorted(set(table["group"]) - {"all"})
        head = "Texture ridge" if part == "texture" else f"Network, {epochs} epochs"
        seeds = [] if part == "texture" else ["seeds"]
        heads = [*seeds, *donors, "mean", "− base", "skill", "variance ratio"]
        yield f"| **{head}** | what is changed | {' | '.join(heads)} |"
        yield "|---|---|" + "---|" * len(heads)
        for row in rows:
            for method, what in row.methods.items():
                if method in set(table["row"]):
                    yield f"| {method} | {what} | {' | '.join(cells(table, method, donors, seeds))} |"
        yield ""


def cells(table: pd.DataFrame, method: str, donors: list[str], seeds: list[str]) -> list[str]:
    """Means over the seeds; the difference from base is taken within the seeds that both have."""
    mine = table[table["row"] == method]
    base = table[(table["row"] == "base") & (table["group"] == "all")].set_index("seed")["pearson"]
    overall = mine[mine["group"] == "all"].set_index("seed")
    gain = (overall["pearson"] - base).dropna()
    pearson = [number(mine.loc[mine["group"] == donor, "pearson"].mean()) for donor in donors]
    several = [", ".join(str(seed) for seed in overall.index)] if seeds else []
    against = "" if method == "base" or gain.empty else number(gain.mean())
    rest = [number(overall["skill"].mean()), f"{overall['variance_ratio'].mean():.2f}"]
    return [*several, *pearson, number(overall["pearson"].mean()), against, *rest]


def number(value: float) -> str:
    """Three digits and a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def main() -> None:
    names = [row.name for row in (*CHEAP, *NETWORK)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=sorted(set(names)))
    parser.add_argument("--minutes", type=float, default=np.inf)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    asked = plan(options.epochs, options.seeds)
    if options.rows:
        asked = [run for run in asked if run[1].name in options.rows]
    if options.table:
        sys.stdout.write("\n".join(tables(read())))
    elif options.list:
        for part, row, epochs, seed in asked:
            print(part, row.name, f"epochs={epochs} seed={seed}", sep=" | ")
    else:
        torch.set_num_threads(1)
        measure(asked, minutes=options.minutes)
        print("\n".join(tables(read())))


if __name__ == "__main__":
    main()
