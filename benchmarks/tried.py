"""What was tried to predict better than the default learners, on the same folds and targets, and how high one can get.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/tried.py   # adds the rows that are missing to
    results/tried.csv python benchmarks/tried.py --table   # prints the table of docs/trust.md, from the file

Each row changes the features, the labels or the heads of the first, the default learners on genes as measured; its
predictions are the plain mean of its heads and are scored as ``h2e.tl.evaluate`` scores them, without anything of the
group that is left out. What a row would need in the package (tissue pixels where this script takes spots to
standardize features, say) is not built before it pays. A row takes seconds to two minutes, all of them about half an
hour. One thread.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _data import cohort_of, load, targets_of
from _record import CommandLine, append, read, select
from _tables import markdown, means_of, number, wide
from _tried_rows import FEATURES, ROWS, SMOKE_ROWS, Row
from scipy.spatial import KDTree

from h2e._ensemble.programmes import denoise_targets
from h2e._ensemble.training import folds_within
from h2e._ensemble.transforms import fit_transform
from h2e._learners.augmentation import augment
from h2e._learners.folds import Fold
from h2e._learners.texture import Texture
from h2e._slide.tiles import read_views
from h2e._statistics import group_mean
from h2e.metrics import ceiling, score

METRICS = ["pearson", "skill", "variance_ratio"]
COLUMNS = ["split", "row", "group", *METRICS, "cpu_s"]
SPLITS = {"her2st section": ("her2st", "region"), "her2st donor": ("her2st", "donor"), "mob animal": ("mob", "donor")}
PERFECT = "a perfect prediction"


@dataclass
class Data:
    """A data set under a split, and the features that were computed."""

    split: str
    smoke: bool = False
    features: dict[tuple, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name, group_key = SPLITS[self.split]
        self.cohort = cohort_of(load(name, smoke=self.smoke), group_key)
        self.targets = targets_of(self.cohort, 4 if self.smoke else 35)
        self.every = np.arange(len(self.cohort.rows))
        self.folds = folds_within(self.cohort, self.every, ())
        self.values = {fold.name: self.targets.measured(fold.train) for fold in self.folds}

    def features_of(self, name: str, copy: int = 0, *, standardized: bool = False) -> np.ndarray:
        """Compute features of all spots; of a copy with jittered stains, the same jitter for all views of a spot."""
        if " + " in name:
            return np.hstack([self.features_of(part, copy, standardized=standardized) for part in name.split(" + ")])
        if (name, copy) not in self.features:
            spacing_um, parts = self.cohort.spacing_um(self.every), []
            for i, slide in enumerate(self.cohort.slides):
                tiles = read_views(slide, slide.xy, FEATURES[name].views, spacing_um=spacing_um)
                parts.append(FEATURES[name].compute([jittered(t, 100 * i + copy) if copy else t for t in tiles]))
            self.features[name, copy] = np.concatenate(parts)
        x = self.features[name, copy]
        if standardized:
            x = x.copy()
            for slide in np.unique(self.cohort.names):
                rows = self.cohort.names == slide
                x[rows] = (x[rows] - x[rows].mean(0)) / np.maximum(x[rows].std(0), 1e-6)
        return x

    def labels(self, fold: Fold, row: Row) -> np.ndarray:
        """Give what the training spots are learned from."""
        y, slides = self.values[fold.name].to_numpy(np.float32)[fold.train], self.cohort.names[fold.train]
        if not row.smooth:
            genes = self.targets.genes[fold.train]
            return denoise_targets(y, genes, slides, row.n_programmes)
        xy, smoothed = self.cohort.xy_um[fold.train], y.copy()
        for slide in np.unique(slides):
            rows = slides == slide
            smoothed[rows] = y[rows][KDTree(xy[rows]).query(xy[rows], 7)[1]].mean(axis=1)
        return smoothed


def jittered(tiles: np.ndarray, seed: int) -> np.ndarray:
    """Change the stains of tiles."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for start in range(0, len(tiles), 32):
        batch = torch.from_numpy(tiles[start : start + 32])
        parts.append(augment(batch, generator, symmetries=False, stain_jitter=0.15).round().to(torch.uint8))
    return torch.cat(parts).numpy()


def predict(row: Row, data: Data, fold: Fold) -> np.ndarray:
    """Average the predictions of the heads, in the unit of the targets."""
    cohort, copies = data.cohort, range(row.copies + 1)
    y, predictions = data.labels(fold, row), []
    slides, groups = cohort.names[fold.train], cohort.groups[fold.train]
    for name, head in row.heads:
        for transform, standardized in row.standardized:
            z, back = fit_transform(transform, y, slides, groups)
            back = back.within(data.values[fold.name].to_numpy(np.float32)[fold.train])
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
    """Score each group left out, and the mean over groups."""
    start, parts = time.process_time(), []
    for fold in data.folds:
        values = data.values[fold.name]
        baseline = group_mean(values.to_numpy()[fold.train], data.cohort.groups[fold.train])
        labels = {"slides": data.cohort.names[fold.test], "groups": data.cohort.groups[fold.test]}
        prediction = predict(row, data, fold)
        parts.append(score(prediction, values.iloc[fold.test], **labels, baseline=baseline, metrics=METRICS))
    means = wide(means_of(pd.concat(parts, ignore_index=True)), ["group"])
    return means[METRICS].reset_index().assign(row=row.name, cpu_s=round(time.process_time() - start))


def perfect(data: Data) -> pd.DataFrame:
    """Estimate the correlation that counts so shallow allow, averaged over slides, groups and targets like a score."""
    cohort, parts = data.cohort, []
    for fold in data.folds:
        genes = cohort.table.var_names.get_indexer(data.values[fold.name].columns)
        for slide in np.unique(cohort.names[fold.test]):
            rows = cohort.rows[fold.test][cohort.names[fold.test] == slide]
            counts = cohort.table.X[rows]
            highest = np.nanmean(ceiling(counts[:, genes], totals=counts.sum(axis=1)))
            parts.append({"group": fold.name, "slide": slide, "pearson": highest})
    means = pd.DataFrame(parts).groupby("group")["pearson"].mean()
    means = pd.concat([pd.Series({"all": means.mean()}), means]).rename_axis("group").reset_index(name="pearson")
    return means.assign(row=PERFECT)


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


def table(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the Markdown: Pearson and skill of each row under each split."""
    overall = select(measured, group="all").set_index(["row", "split"]).reindex(columns=["pearson", "skill"])
    tried = {row.name: row.what for row in ROWS} | {PERFECT: "what the noise of the counts allows"}
    rows = []
    for name, what in tried.items():
        values = [overall.loc[(name, split)] if (name, split) in overall.index else () for split in SPLITS]
        rows.append([name, what, *(" / ".join(filter(None, map(number, both))) for both in values)])
    yield from markdown(["tried", "what", *SPLITS], rows)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    path = options.results / "tried.csv"
    if not options.table:
        torch.set_num_threads(1)
        # h2e says of each slide which tiles are enlarged.
        warnings.simplefilter("ignore")
        splits, rows = (["her2st donor"], SMOKE_ROWS) if options.smoke else (options.splits, ROWS)
        measure(splits, rows, path, smoke=options.smoke)
    print("\n".join(table(read(path))))


if __name__ == "__main__":
    main()
