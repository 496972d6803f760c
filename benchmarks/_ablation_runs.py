"""How the rows of the ablation are run: the slides as a row wants them, and the models of one fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from _ablation_rows import Row
from _data import cohort_of, load
from spatialdata.transformations import Sequence, Translation, get_transformation, set_transformation

import h2e
from h2e._ensemble.extraction import Features
from h2e._ensemble.mlp import fit_mlp
from h2e._ensemble.transforms import Transform, fit_transform
from h2e._learners.folds import Fold, derive_seed
from h2e._learners.learner import Learner
from h2e._learners.standardization import mean_and_std
from h2e._learners.training import arrays_of, network_of, predict_views, train
from h2e._sdata.cohort import Cohort
from h2e._sdata.keys import Keys
from h2e._sdata.masks import with_tissue
from h2e._sdata.slides import open_slides
from h2e._statistics import group_mean

DISPLACED = 1.6
"""Spot spacings that the slides of the rows ``displaced`` are moved by: what ``docs/preprocessing.md`` shows."""


@dataclass
class Data:
    """The six sections of her2st as the rows want them, and the features that were computed last."""

    smoke: bool = False
    cohorts: dict[tuple, tuple[Cohort, np.ndarray]] = field(default_factory=dict)
    features: dict[tuple, np.ndarray] = field(default_factory=dict)

    def cohort(self, row: Row) -> tuple[Cohort, np.ndarray]:
        """Give the spots of a row, and which of them are scored: those that the filtered row has."""
        key = (row.images, row.spots, row.filtered)
        if key not in self.cohorts:
            sdata = load("her2st", smoke=self.smoke)
            if row.spots.startswith("displaced"):
                displace(sdata)
            if row.spots.endswith("realigned"):
                h2e.pp.realign_spots(sdata)
            if row.images == "normalized":
                h2e.pp.normalize(sdata)
            filtered = cohort_of(sdata, "donor")
            cohort = filtered if row.filtered else unfiltered(filtered, sdata)
            print(f"{key}: {len(cohort.rows)} spots, {len(filtered.rows)} with tissue", flush=True)
            self.cohorts[key] = cohort, np.isin(cohort.rows, filtered.rows)
        return self.cohorts[key]

    def features_of(self, row: Row, fold: Fold) -> np.ndarray:
        """Compute the features of all spots; images are normalized by the training slides of the fold."""
        cohort, _ = self.cohort(row)
        spacing_um = cohort.spacing_um(fold.train)
        by_fold = fold.name if row.images == "normalized" else ""
        key = (row.images, row.spots, row.filtered, by_fold, spacing_um, row.learner.views, row.learner.name)
        if key not in self.features:
            reference = cohort.reference_of(fold.train)
            extractor = Features(cohort, progress=False)
            features = extractor.extract([row.learner], reference=reference, spacing_um=spacing_um)
            # Features of more rows do not fit into the memory of a laptop.
            if len(self.features) > 6:
                self.features.clear()
            (self.features[key],) = features.x.values()
        return self.features[key]


def displace(sdata: object) -> None:
    """Move the spots of each slide by ``DISPLACED`` spacings, in a random direction."""
    rng = np.random.default_rng(0)
    for slide in open_slides(sdata, Keys()):
        angle = rng.uniform(0, 2 * np.pi)
        shapes = sdata.shapes[slide.region]
        xy = np.column_stack([shapes.geometry.x, shapes.geometry.y])
        px_per_unit = np.linalg.norm(np.ptp(slide.xy, axis=0)) / np.linalg.norm(np.ptp(xy, axis=0))
        shift = DISPLACED * slide.spacing_px / px_per_unit * np.array([np.cos(angle), np.sin(angle)])
        for system, transformation in get_transformation(shapes, get_all=True).items():
            set_transformation(shapes, Sequence([Translation(shift, ("x", "y")), transformation]), system)


def unfiltered(cohort: Cohort, sdata: object) -> Cohort:
    """Give the same slides with all spots of the table."""
    slides = with_tissue(sdata, open_slides(sdata, Keys(group_key="donor")))
    return dataclasses.replace(cohort, slides=tuple(slides))


@dataclass(frozen=True)
class Task:
    """One fold of one row: what is trained on, and what is to be predicted."""

    learner: Learner
    transform: str
    x: np.ndarray
    y: np.ndarray
    slides: np.ndarray
    groups: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    slides_test: np.ndarray
    seed: int

    def without(self, slide: str) -> Task:
        """Keep only the training spots of the other slides."""
        keep = self.slides != slide
        kept = {name: getattr(self, name)[keep] for name in ("x", "y", "slides", "groups")}
        return dataclasses.replace(self, seed=derive_seed(self.seed, slide), **kept)

    def transformed(self) -> tuple[np.ndarray, Transform]:
        """Transform the targets; returns what the model is to learn, and the way back."""
        return fit_transform(self.transform, self.y, self.slides, self.groups)

    def fit(self) -> Callable[[np.ndarray], np.ndarray]:
        """Train a model; what is returned predicts in the unit of the targets."""
        z, transform = self.transformed()
        model = self.learner.fit(self.x, z, self.groups, seed=self.seed, progress=False, label="")
        return lambda x: transform.invert(model.predict(x))


def predictions_of(
    row: Row, data: Data, fold: Fold, values: pd.DataFrame, *, epochs: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predict the held-out spots by each method that a row names; returns the mean of the training groups, too."""
    cohort, _ = data.cohort(row)
    x, y = data.features_of(row, fold), values.to_numpy(np.float32)
    learner = dataclasses.replace(row.learner, epochs=epochs) if hasattr(row.learner, "epochs") else row.learner
    task = Task(
        learner, row.transform,
        x[fold.train], y[fold.train], cohort.names[fold.train], cohort.groups[fold.train],
        x[fold.test], y[fold.test], cohort.names[fold.test], derive_seed(seed, fold.name),
    )  # fmt: skip
    predictions = RUNS[row.run](task)
    return dict(zip(row.methods, predictions, strict=True)), group_mean(task.y, task.groups)


def one(task: Task) -> list[np.ndarray]:
    """Predict with one model of all training spots."""
    return [task.fit()(task.x_test)]


def sections(task: Task) -> list[np.ndarray]:
    """Average the models of all training spots but those of one section."""
    return [np.mean([task.without(slide).fit()(task.x_test) for slide in np.unique(task.slides)], axis=0)]


def in_sample(task: Task) -> list[np.ndarray]:
    """Do the same, and stack by a perceptron on predictions of all training spots, most of them trained on."""
    models = [task.without(slide).fit() for slide in np.unique(task.slides)]
    seen, unseen = (np.stack([model(x) for model in models]) for x in (task.x, task.x_test))
    validation = np.random.default_rng(task.seed).random(len(task.y)) < 0.2
    stack = fit_mlp("in_sample", seen, task.y, validation, seed=task.seed)
    return [unseen.mean(axis=0), stack.combine(unseen)]


def epochs(task: Task) -> list[np.ndarray]:
    """Predict with the last epoch, and with the best by Spearman within held-out spots, as in the source."""
    learner = task.learner
    z, transform = task.transformed()
    mean, scale = mean_and_std(z)
    config = learner._config(z.shape[1])
    predictions: list[np.ndarray] = []

    def predict_after_epoch(network: object) -> None:
        copy = network_of(config, arrays_of(network))
        scaled = predict_views(copy, task.x_test, symmetries=learner.symmetries).mean(axis=0)
        predictions.append(transform.invert(scaled * scale + mean))

    scaled = ((z - mean) / scale).astype(np.float32)
    train(config, task.x, scaled, settings=learner, seed=task.seed, progress=False, after_epoch=predict_after_epoch)
    within_spot = [h2e.metrics.spot_rho(prediction, task.y_test).mean() for prediction in predictions]
    return [predictions[-1], predictions[int(np.argmax(within_spot))]]


RUNS: dict[str, Callable[[Task], list[np.ndarray]]] = {
    "one": one,
    "sections": sections,
    "in-sample": in_sample,
    "epochs": epochs,
}
"""What the models of a fold are, in the order of the methods that a row names."""
