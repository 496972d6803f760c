"""What was tried to predict better than the default learners, on the same folds and targets, and how high one can get.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/tried.py   # adds the rows that are missing to
    results/tried.csv python benchmarks/tried.py --table   # prints the table of docs/trust.md, from the file

Each row changes the features, the labels or the heads of the first, the default learners on genes as measured; its
predictions are the plain mean of its heads and are scored as ``h2e.tl.evaluate`` scores them, without anything of the
group that is left out; donors weigh the same. What a row would need in the package (tissue pixels where this script takes spots to
standardize features, say) is not built before it pays. A row takes seconds to two minutes, all of them about half an
hour. One thread.

The second table is about the depth of the spots: targets that are chosen, and models that are trained, without it. The
rule was fixed before anything was measured: a row is proposed for the default if its Pearson correlation at equal depth
is at least 0.01 above that of the same learners as the default has them on the donor split, and below it on no split.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _data import cohort_of, load, targets_of
from _record import CommandLine, append, read, select
from _tables import markdown, means_of, number, wide
from _tried_depth import beyond_depth, thin
from _tried_rows import CHOICES, DEFAULT, DEPTH_ROWS, FEATURES, LEARNERS, ROWS, SMOKE_ROWS, WITHOUT_DEPTH, Row
from scipy import sparse
from scipy.spatial import KDTree

from h2e._ensemble.programmes import denoise_targets
from h2e._ensemble.training import folds_within
from h2e._ensemble.transforms import fit_transform
from h2e._learners.augmentation import augment
from h2e._learners.folds import Fold
from h2e._learners.texture import Texture
from h2e._sdata.expression import gene_names
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._slide.tiles import read_views
from h2e._statistics import center_by_slide, group_mean
from h2e.metrics import ceiling, score

METRICS = ["pearson", "skill", "variance_ratio", "pearson_equal_depth", "pearson_no_biology"]
CEILING = "ceiling_equal_depth"
COLUMNS = ["split", "row", "group", *METRICS, CEILING, "cpu_s"]
SPLITS = {"her2st section": ("her2st", "region"), "her2st donor": ("her2st", "donor"), "mob animal": ("mob", "donor")}
DONOR = "her2st donor"
PERFECT = "a perfect prediction"
GAIN = 0.01
"""By which a row must be ahead with a donor left out, at equal depth."""


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
        self.values = {(chosen, fold.name): self.measured(fold, chosen) for chosen in CHOICES for fold in self.folds}

    @cached_property
    def thinned(self) -> tuple[sparse.csr_array, np.ndarray]:
        """Expression of all genes at one depth within each slide, and which spots are deep enough."""
        return thin(self.cohort.table.X[self.cohort.rows], self.cohort.names)

    def measured(self, fold: Fold, chosen: str) -> pd.DataFrame:
        """Give the measured targets of a fold, which are chosen on expression as measured or thinned."""
        if chosen == "measured":
            return self.targets.measured(fold.train)
        cohort, (genes, deep) = self.cohort, self.thinned
        rows = fold.train[deep[fold.train]]
        names = choose_targets(
            genes[rows], cohort.xy_um[rows], genes=list(gene_names(cohort.table)), slides=cohort.names[rows],
            groups=cohort.groups[rows], n_targets=self.targets.n_targets, symbols=symbols_of(cohort.table),
        )  # fmt: skip
        return replace(self.targets, targets=names).measured(fold.train)

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

    def means_of(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Average scores over the slides of each donor and over donors; metrics are columns."""
        obs = self.cohort.table.obs
        donors = dict(zip(obs["region"].astype(str), obs["donor"].astype(str), strict=True))
        return wide(means_of(scores, donors), ["group"]).reset_index()

    def labels(self, fold: Fold, row: Row) -> np.ndarray:
        """Give what the training spots are learned from."""
        values, genes, slides = self.values[row.chosen, fold.name], self.targets.genes, self.cohort.names[fold.train]
        y = values.to_numpy(np.float32)[fold.train]
        if row.trained == "thinned":
            genes = self.thinned[0]
            thinned = genes[fold.train][:, gene_names(self.cohort.table).get_indexer(values.columns)].toarray()
            # The level of each slide stays, on which its depth has a say, too.
            y = (y + center_by_slide(thinned, slides) - center_by_slide(y, slides)).astype(np.float32)
        if not row.smooth:
            y = denoise_targets(y, genes[fold.train], slides, row.n_programmes)
            totals = np.asarray(self.cohort.table.X[self.cohort.rows[fold.train]].sum(axis=1)).ravel()
            return beyond_depth(y, totals, slides) if row.trained == "rest" else y
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
        parts.append(ceilings(data, fold, row.chosen, equal_depth=True).assign(metric=CEILING))
    means = data.means_of(pd.concat(parts, ignore_index=True))
    return means.assign(row=row.name, cpu_s=round(time.process_time() - start))


def perfect(data: Data) -> pd.DataFrame:
    """Estimate the correlation that counts so shallow allow, averaged over slides, donors and targets like a score."""
    parts = [ceilings(data, fold, "measured", equal_depth=False) for fold in data.folds]
    return data.means_of(pd.concat(parts, ignore_index=True)).assign(row=PERFECT)


def ceilings(data: Data, fold: Fold, chosen: str, *, equal_depth: bool) -> pd.DataFrame:
    """Estimate the highest correlation of each target on each slide of a fold, as a table of scores."""
    cohort, parts = data.cohort, []
    targets = list(data.values[chosen, fold.name])
    counts, totals = data.targets.counts(targets)
    for slide in np.unique(cohort.names[fold.test]):
        rows = fold.test[cohort.names[fold.test] == slide]
        highest = ceiling(counts[rows], totals=totals[rows], equal_depth=equal_depth)
        parts.append(pd.DataFrame({"slide": slide, "target": targets, "value": highest, "n_spots": len(rows)}))
    return pd.concat(parts).assign(group=fold.name, metric="pearson")


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


def table(means: pd.DataFrame) -> Iterator[str]:
    """Yield the Markdown: Pearson and skill of each row under each split."""
    tried = {row.name: row.what for row in ROWS} | {PERFECT: "what the noise of the counts allows"}
    rows = [[name, what, *cells(means, name, "pearson", "skill")] for name, what in tried.items()]
    yield from markdown(["tried", "what", *SPLITS], rows)


def depth_table(means: pd.DataFrame) -> Iterator[str]:
    """Yield the Markdown: scores without depth in targets, which rows are proposed, and what the counts allow."""
    metrics, rows = ("pearson", "pearson_equal_depth", "pearson_no_biology", "skill"), []
    for learners in LEARNERS:
        for name in WITHOUT_DEPTH:
            row, default = f"{learners}: {name}", f"{learners}: {DEFAULT}"
            proposed = "" if name == DEFAULT else "yes" if is_proposed(means, row, default) else "no"
            rows.append([learners, name, *cells(means, row, *metrics), proposed])
    any_of = next(iter(LEARNERS))
    rows += [[PERFECT, name, *cells(means, f"{any_of}: {name}", CEILING), ""] for name in CHOICES.values()]
    yield from markdown(["learners", "targets", *SPLITS, "proposed"], rows)


def is_proposed(means: pd.DataFrame, row: str, default: str) -> bool:
    """Whether a row is ahead of the default by the rule above."""
    of_splits = select(means, group="all").set_index(["row", "split"]).get("pearson_equal_depth", pd.Series())
    gains = [of_splits.get((row, split), np.nan) - of_splits.get((default, split), np.nan) for split in SPLITS]
    return gains[list(SPLITS).index(DONOR)] >= GAIN and min(gains) >= 0


def cells(means: pd.DataFrame, row: str, *metrics: str) -> list[str]:
    """Write metrics of a row, one cell per split."""
    of_row = select(means, group="all", row=row).set_index("split").reindex(list(SPLITS), columns=metrics)
    return [" / ".join(filter(None, map(number, values))) for values in of_row.to_numpy()]


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
        splits, rows = ([DONOR], SMOKE_ROWS) if options.smoke else (options.splits, ROWS + DEPTH_ROWS)
        measure(splits, rows, path, smoke=options.smoke)
    print("\n".join([*table(read(path)), "", *depth_table(read(path))]))


if __name__ == "__main__":
    main()
