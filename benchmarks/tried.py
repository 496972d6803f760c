"""What was tried to predict better than the default learners, on the same slides, folds and targets, and how high one can get.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/tried.py   # adds the rows that are missing to
    results/tried.csv python benchmarks/tried.py --table   # prints the table of docs/trust.md, from the file

Each row changes the features, the labels or the heads of the first, the default learners on genes as measured; its
predictions are the plain mean of its heads and are scored as ``h2e.tl.evaluate`` scores them, without anything of the
group that is left out. What a row would need in the package (tissue pixels where this script takes spots to
standardize features, say) is not built before it pays.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from h2e._ensemble.cohort import open_cohort
from scipy.spatial import KDTree

import h2e
from h2e._ensemble.programmes import denoise_targets
from h2e._ensemble.stack import group_mean
from h2e._ensemble.training import TargetSpec, folds_within
from h2e._ensemble.transforms import fit_transform
from h2e._learners.augmentation import augment
from h2e._learners.embedding import Embedding
from h2e._learners.encoders import shell_features
from h2e._learners.folds import Fold
from h2e._learners.registry import Learner
from h2e._learners.texture import Texture
from h2e._slide.tiles import View, read_views
from h2e.metrics import ceiling, score, summarize

OUT = Path(__file__).parent / "results" / "tried.csv"
METRICS = ("pearson", "skill", "variance_ratio")
HER2ST, MOB = h2e.datasets.her2st, h2e.datasets.mob
SPLITS = {"her2st section": (HER2ST, "region"), "her2st donor": (HER2ST, "donor"), "mob animal": (MOB, "donor")}
PERFECT = "a perfect prediction"


@dataclass(frozen=True)
class Eyes:
    """What is cut from the slide, and what becomes of it."""

    views: tuple[View, ...]
    look: Callable[[list[np.ndarray]], np.ndarray]


def of(learner: Learner) -> Eyes:
    """The eyes of a learner."""
    return Eyes(learner.views, learner.look)


def side_by_side(tiles: list[np.ndarray]) -> np.ndarray:
    """The encoder's features of each view."""
    return np.concatenate([shell_features(view) for view in tiles], axis=1)


DOMAIN_FEATURES = {
    "texture": of(Texture()),
    "encoder": of(Embedding()),
    "encoder, 112 px": of(Embedding(px=112)),
    "encoder, 1 µm": Eyes((View(3, 112), View(1, 200), View(7, 112)), side_by_side),
    "encoder, subtiles": of(Embedding(subtiles=True)),
    "encoder, no surroundings": of(Embedding(surroundings=0)),
}


@dataclass(frozen=True)
class Row:
    """One thing that was tried."""

    name: str
    what: str
    encoder: str = "encoder"
    heads: tuple[tuple[str, str], ...] = (
        ("texture", "ridge"),
        ("texture", "knn"),
        ("texture", "pls"),
        ("encoder", "ridge"),
    )
    copies: int = 0
    """Further copies of each training spot, their stains jittered."""
    predict_copies: bool = False
    standardized: tuple[tuple[str, bool], ...] = (("mixed", False),)
    """For each target transform whether it is learned from features that are standardized on each slide."""
    smooth: bool = False
    """Training labels are averaged with those of the six nearest spots."""
    n_programmes: int = 0


RIDGES = (("texture", "ridge"), ("encoder", "ridge"))
ROWS = (
    Row("genes as measured", "texture with ridge, nearest neighbours and PLS; encoder with ridge; `n_programmes=0`"),
    Row("the default", "training labels averaged with their projection on ten programmes of genes", n_programmes=10),
    Row("5 programmes", "fewer of them", n_programmes=5),
    Row("20 programmes", "more of them", n_programmes=20),
    Row("two ridges", "no nearest neighbours, no PLS", heads=RIDGES),
    Row("one ridge", "of the features of both side by side", heads=(("texture + encoder", "ridge"),)),
    Row("six heads", "nearest neighbours and PLS of the encoder, too",
        heads=tuple((eyes, head) for eyes in ("texture", "encoder") for head in ("ridge", "knn", "pls"))),
    Row("encoder, 112 px", "its images with 112 px in place of 80", encoder="encoder, 112 px"),
    Row("encoder, 1 µm", "its centre at about 1 µm a pixel (200 px), the others with 112 px", encoder="encoder, 1 µm"),
    Row("encoder, subtiles", "the nine subtiles, too", encoder="encoder, subtiles"),
    Row("encoder, no surroundings", "tile and centre only", encoder="encoder, no surroundings"),
    Row("stain jitter", "three more copies of each training spot, its stains jittered (sd 0.15)", copies=3),
    Row("stain jitter twice", "and predictions averaged over such copies", copies=3, predict_copies=True),
    Row("standardized features", "on each slide, also on the one that is predicted", standardized=(("mixed", True),)),
    Row("standardized features, pattern", "for the standardized half of the targets only",
        standardized=(("standardized", True), ("log", False))),
    Row("smooth labels", "training labels averaged with those of the six nearest spots", smooth=True),
)  # fmt: skip


@dataclass
class Data:
    """A data set under a split, and the features that were asked for."""

    split: str
    features: dict[tuple, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        load, group_key = SPLITS[self.split]
        options = dict.fromkeys(("image_key", "tissue_mask_key", "library_key", "um_per_px"))
        self.sdata = load(progress=False)
        self.cohort = open_cohort(self.sdata, table_key="table", group_key=group_key, **options)
        self.truth = TargetSpec(self.cohort.table, None, 35, None, None, log_normalized=False)
        self.every = np.arange(len(self.cohort.rows))
        self.folds = folds_within(self.cohort, self.every, ())
        self.values = {fold.name: self.truth.of(self.cohort, fold.train) for fold in self.folds}

    def extract_features(self, eyes: str, copy: int = 0, *, standardized: bool = False) -> np.ndarray:
        """Features of all spots; those of a copy are of jittered stains, the same jitter for all views of a spot."""
        if " + " in eyes:
            return np.hstack(
                [self.extract_features(part, copy, standardized=standardized) for part in eyes.split(" + ")]
            )
        if (eyes, copy) not in self.features:
            spacing_um, found = self.cohort.spacing_um(self.every), []
            for i, slide in enumerate(self.cohort.slides):
                tiles = read_views(slide, slide.xy, DOMAIN_FEATURES[eyes].views, spacing_um=spacing_um)
                found.append(
                    DOMAIN_FEATURES[eyes].extract_features(
                        [jittered(view, 100 * i + copy) if copy else view for view in tiles]
                    )
                )
            self.features[eyes, copy] = np.concatenate(found)
        x = self.features[eyes, copy]
        if standardized:
            x = x.copy()
            for slide in np.unique(self.cohort.names):
                rows = self.cohort.names == slide
                x[rows] = (x[rows] - x[rows].mean(0)) / np.maximum(x[rows].std(0), 1e-6)
        return x

    def labels(self, fold: Fold, row: Row) -> np.ndarray:
        """Of the training spots."""
        y, slides = self.values[fold.name].to_numpy(np.float32)[fold.train], self.cohort.names[fold.train]
        if not row.smooth:
            genes = self.truth.expression[self.cohort.rows[fold.train]]
            return denoise_targets(y, genes, slides, row.n_programmes)
        xy, smoothed = self.cohort.xy_um[fold.train], y.copy()
        for slide in np.unique(slides):
            rows = slides == slide
            smoothed[rows] = y[rows][KDTree(xy[rows]).query(xy[rows], 7)[1]].mean(axis=1)
        return smoothed


def jittered(tiles: np.ndarray, seed: int) -> np.ndarray:
    """The same spots with other stains."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for start in range(0, len(tiles), 32):
        batch = torch.from_numpy(tiles[start : start + 32])
        parts.append(augment(batch, generator, symmetries=False, stain_jitter=0.15).round().to(torch.uint8))
    return torch.cat(parts).numpy()


def predict(row: Row, data: Data, fold: Fold) -> np.ndarray:
    """The mean of the heads, in the unit of the targets."""
    cohort, copies = data.cohort, range(row.copies + 1)
    y, found = data.labels(fold, row), []
    slides, groups = cohort.names[fold.train], cohort.groups[fold.train]
    for eyes, head in row.heads:
        seen = eyes.replace("encoder", row.encoder)
        for transform, standardized in row.standardized:
            z, back = fit_transform(transform, y, slides, groups)
            back = back.within(data.values[fold.name].to_numpy(np.float32)[fold.train])
            x = [data.extract_features(seen, copy, standardized=standardized) for copy in copies]
            learner = Texture(head=head, k=30 * len(copies))
            train = np.concatenate([of_copy[fold.train] for of_copy in x])
            model = learner.fit(train, np.tile(z, (len(copies), 1)), np.tile(groups, len(copies)))
            asked = x if row.predict_copies else x[:1]
            found.append(np.mean([back.invert(model.predict(of_copy[fold.test])) for of_copy in asked], axis=0))
    return np.mean(found, axis=0)


def one_run(row: Row, data: Data) -> pd.DataFrame:
    """Scores of each group left out, and over groups."""
    start, parts = time.process_time(), []
    for fold in data.folds:
        values, where = data.values[fold.name], {"slides": data.cohort.names, "groups": data.cohort.groups}
        mean = group_mean(values.to_numpy()[fold.train], data.cohort.groups[fold.train])
        of_test = {name: labels[fold.test] for name, labels in where.items()}
        prediction = predict(row, data, fold)
        parts.append(score(prediction, values.iloc[fold.test], **of_test, baseline=mean, metrics=METRICS))
    scores = pd.concat(parts, ignore_index=True)
    both = pd.concat([summarize(scores).assign(group="all"), summarize(scores, by="group")])
    value = both["median"].where(both["metric"] == "skill", both["mean"])  # one target cannot ruin a median
    wide = both.assign(value=value).pivot_table(index="group", columns="metric", values="value", sort=False)
    return wide[list(METRICS)].reset_index().assign(cpu_s=round(time.process_time() - start))


def perfect(data: Data) -> pd.DataFrame:
    """The Pearson correlation that counts so shallow allow, averaged over slides, groups and targets like a score."""
    cohort, parts = data.cohort, []
    for fold in data.folds:
        genes = cohort.table.var_names.get_indexer(data.values[fold.name].columns)
        for slide in np.unique(cohort.names[fold.test]):
            rows = cohort.rows[fold.test][cohort.names[fold.test] == slide]
            counts = cohort.table.X[rows]
            found = ceiling(counts[:, genes], totals=counts.sum(axis=1))
            parts.append({"group": fold.name, "slide": slide, "pearson": np.nanmean(found)})
    means = pd.DataFrame(parts).groupby("group")["pearson"].mean()
    return pd.concat([pd.Series({"all": means.mean()}), means]).rename_axis("group").reset_index(name="pearson")


def read() -> pd.DataFrame:
    """What was measured so far."""
    return pd.read_csv(OUT) if OUT.exists() else pd.DataFrame(columns=["split", "row"])


def measure(splits: list[str]) -> None:
    """Add what is missing to the file."""
    for split in splits:
        data = None
        for name in (PERFECT, *(row.name for row in ROWS)):
            if ((read()["split"] == split) & (read()["row"] == name)).any():
                continue
            data = data or Data(split)
            found = perfect(data) if name == PERFECT else one_run(next(row for row in ROWS if row.name == name), data)
            found = found.reindex(columns=["group", *METRICS, "cpu_s"])
            found.insert(0, "split", split)
            found.insert(1, "row", name)
            OUT.parent.mkdir(exist_ok=True)
            found.to_csv(OUT, mode="a", header=not OUT.exists(), index=False, float_format="%.4f")
            print(found.to_string(index=False, header=False), flush=True)


def table(found: pd.DataFrame) -> Iterator[str]:
    """Lines of Markdown: Pearson and skill of each row under each split."""
    overall = found[found["group"] == "all"].set_index(["row", "split"])
    yield f"| tried | what | {' | '.join(SPLITS)} |"
    yield "|---|---|" + "---|" * len(SPLITS)
    for name, what in {**{row.name: row.what for row in ROWS}, PERFECT: "what the noise of the counts allows"}.items():
        cells = [" / ".join(numbers(overall, (name, split))) for split in SPLITS]
        yield f"| {name} | {what} | {' | '.join(cells)} |"
    yield ""


def numbers(overall: pd.DataFrame, key: tuple[str, str]) -> Iterator[str]:
    """Pearson and, where there is one, skill."""
    if key in overall.index:
        for metric in ("pearson", "skill"):
            if pd.notna(overall.loc[key, metric]):
                yield f"{overall.loc[key, metric]:.3f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write("\n".join(table(read())))
        return
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiles that are enlarged, once a slide
        measure(options.splits)


if __name__ == "__main__":
    main()
