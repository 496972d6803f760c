"""What was tried to predict better than the default learners, on the same folds and targets, and how high one can get.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/tried.py   # adds rows that results/tried.csv lacks
    python benchmarks/tried.py --table [--all]  # prints the table of docs/benchmarks.md, or every row, from the file

Each row changes the features, the labels or the heads of the first, the default learners on genes as measured; its
predictions are the plain mean of its heads and are scored as ``h2e.tl.evaluate`` scores them, without anything of the
group that is left out; donors weigh the same. What a row would need in the package (tissue pixels where this script
takes spots to standardize features, say) is not built before it pays. A row takes seconds to two minutes, all of them
about half an hour. One thread.

The second table (``--table --all``) is about the depth of the spots: targets that are chosen, and models that are trained, without it. The
rule was fixed before anything was measured: a row is proposed for the default if its Pearson correlation at equal depth
is at least 0.01 above that of the same learners as the default has them on the donor split, and below it on no split.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _record import CommandLine, append, read, select
from _tables import markdown, triple
from _tried_data import SPLITS, Data
from _tried_rows import CHOICES, DEFAULT, DEFAULT_LEARNERS, DEPTH_ROWS, ROWS, SMOKE_ROWS, WITHOUT_DEPTH, Row

from h2e._ensemble.transforms import fit_transform
from h2e._learners.folds import Fold
from h2e._learners.texture import Texture
from h2e._statistics import group_mean
from h2e.metrics import ceiling, score

METRICS = ["pearson", "skill", "variance_ratio", "pearson_equal_depth", "pearson_no_biology"]
CEILING = "ceiling_equal_depth"
COLUMNS = ["split", "row", "group", *METRICS, CEILING, "cpu_s"]
DONOR = "her2st donor"
PERFECT = "a perfect prediction"
SHOWN = (
    "genes as measured", "the default", "encoder, 48 px", "stain jitter", "standardized features", "smooth labels",
)  # fmt: skip
"""Rows in the documentation; --all prints the others, too."""
GAIN = 0.01
"""By which a row must be ahead with a donor left out, at equal depth."""


def predict(row: Row, data: Data, fold: Fold) -> np.ndarray:
    """Average the predictions of the heads, in the unit of the targets."""
    cohort, copies = data.cohort, range(row.copies + 1)
    y, predictions = data.labels(fold, row), []
    slides, groups = cohort.names[fold.train], cohort.groups[fold.train]
    for name, head in row.heads:
        for transform, standardized in row.standardized:
            z, back = fit_transform(transform, y, slides, groups)
            back = back.within(data.values[row.chosen, fold.name].to_numpy(np.float32)[fold.train])
            x = [
                data.features_of(name.replace("encoder", row.encoder), copy, standardized=standardized)
                for copy in copies
            ]
            learner = Texture(head=head, k=30 * len(copies))
            train = np.concatenate([of_copy[fold.train] for of_copy in x])
            model = learner.fit(train, np.tile(z, (len(copies), 1)), np.tile(groups, len(copies)))
            used = x if row.predict_copies else x[:1]
            predictions.append(np.mean([back.invert(model.predict(of_copy[fold.test])) for of_copy in used], axis=0))
    return np.mean(predictions, axis=0)


def one_run(row: Row, data: Data) -> pd.DataFrame:
    """Score each group left out, and average over donors."""
    start, parts, cohort = time.process_time(), [], data.cohort
    for fold in data.folds:
        values = data.values[row.chosen, fold.name]
        counts, totals = data.targets.counts(list(values))
        beside = {
            "slides": cohort.names[fold.test], "groups": cohort.groups[fold.test], "counts": counts[fold.test],
            "totals": totals[fold.test], "baseline": group_mean(values.to_numpy()[fold.train], cohort.groups[fold.train]),
        }  # fmt: skip
        parts.append(score(predict(row, data, fold), values.iloc[fold.test], **beside, metrics=METRICS))
        parts.append(ceilings(data, fold, row.chosen, equal_depth=True))
    means = data.means_of(pd.concat(parts, ignore_index=True))
    return means.assign(row=row.name, cpu_s=round(time.process_time() - start))


def perfect(data: Data) -> pd.DataFrame:
    """Estimate the correlation that counts so shallow allow, averaged over slides, donors and targets like a score."""
    parts = [ceilings(data, fold, "measured", equal_depth=False) for fold in data.folds]
    means = data.means_of(pd.concat(parts, ignore_index=True))
    return means.rename(columns={CEILING: "pearson"}).assign(row=PERFECT)


def ceilings(data: Data, fold: Fold, chosen: str, *, equal_depth: bool) -> pd.DataFrame:
    """Estimate the highest correlation of each target on each slide of a fold, as a table of scores."""
    cohort, parts = data.cohort, []
    targets = list(data.values[chosen, fold.name])
    counts, totals = data.targets.counts(targets)
    for slide in np.unique(cohort.names[fold.test]):
        rows = fold.test[cohort.names[fold.test] == slide]
        highest = ceiling(counts[rows], totals=totals[rows], equal_depth=equal_depth)
        parts.append(pd.DataFrame({"slide": slide, "target": targets, "value": highest, "n_spots": len(rows)}))
    return pd.concat(parts).assign(group=fold.name, metric=CEILING)


def measure(splits: list[str], rows: list[Row], path: Path, *, smoke: bool) -> None:
    """Add what is missing to the file."""
    for split in splits:
        data = None
        for row in (None, *rows):
            if len(select(read(path), split=split, row=row.name if row else PERFECT)):
                continue
            data = data or Data(split, smoke)
            means = one_run(row, data) if row else perfect(data)
            means = means.assign(split=split).reindex(columns=COLUMNS)
            append(means, path)
            print(means.to_string(index=False, header=False), flush=True)


def table(means: pd.DataFrame, *, every: bool = False) -> Iterator[str]:
    """Yield the Markdown: Pearson and skill of a row under each split."""
    tried = {row.name: row.what for row in ROWS if every or row.name in SHOWN} | {PERFECT: "what noisy counts allow"}
    rows = [[name, what, *cells(means, name, "pearson", "skill")] for name, what in tried.items()]
    yield from markdown(["tried", "what", *SPLITS], rows)


def depth_table(means: pd.DataFrame) -> Iterator[str]:
    """Yield the Markdown: the default learners on targets without depth, whether a row is proposed, and ceilings."""
    metrics, rows = ("pearson", "pearson_equal_depth", "pearson_no_biology", "skill"), []
    for name in WITHOUT_DEPTH:
        proposed = "" if name == DEFAULT else "yes" if is_proposed(means, name) else "no"
        rows.append([name, *cells(means, f"{DEFAULT_LEARNERS}: {name}", *metrics), proposed])
    highest = {name: cells(means, f"{DEFAULT_LEARNERS}: {name}", CEILING) for name in CHOICES.values()}
    rows += [[f"{PERFECT} at equal depth, {name}", *of_splits, ""] for name, of_splits in highest.items()]
    yield from markdown(["targets", *SPLITS, "proposed"], rows)


def is_proposed(means: pd.DataFrame, name: str) -> bool:
    """Whether a row of the default learners is proposed by the rule above."""
    tried, default = (overall(means, f"{DEFAULT_LEARNERS}: {row}")["pearson_equal_depth"] for row in (name, DEFAULT))
    return bool(tried[DONOR] - default[DONOR] >= GAIN and (tried >= default).all())


def cells(means: pd.DataFrame, row: str, *metrics: str) -> list[str]:
    """Write metrics of a row, one cell per split."""
    return [triple(*of[~np.isnan(of)]) for of in overall(means, row)[list(metrics)].to_numpy()]


def overall(means: pd.DataFrame, row: str) -> pd.DataFrame:
    """Take what a row scored over all donors; NaN where it was not measured."""
    return select(means, group="all", row=row).set_index("split").reindex(list(SPLITS))


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--table", action="store_true", help="print the table of docs/benchmarks.md and stop")
    parser.add_argument("--all", action="store_true", help="print every row, and the table of targets without depth")
    options = parser.parse_args()
    path = options.results / "tried.csv"
    if not options.table:
        torch.set_num_threads(1)
        # h2e says of each slide which tiles are enlarged.
        warnings.simplefilter("ignore")
        splits, rows = ([DONOR], SMOKE_ROWS) if options.smoke else (options.splits, ROWS + DEPTH_ROWS)
        measure(splits, rows, path, smoke=options.smoke)
    print("\n".join(table(read(path), every=options.all)))
    if options.all or options.smoke:
        print("", *depth_table(read(path)), sep="\n")


if __name__ == "__main__":
    main()
