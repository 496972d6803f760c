"""What is shared by the rows of what was tried: folds, targets, features, and the labels of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from _data import cohort_of, load, targets_of
from _tables import means_of, wide
from _tried_depth import beyond_depth, thin
from _tried_rows import CHOICES, FEATURES, Row
from scipy import sparse
from scipy.spatial import KDTree

from h2e._ensemble.training import folds_within
from h2e._ensemble.transforms import denoise_targets
from h2e._learners.folds import Fold
from h2e._learners.training import augment
from h2e._sdata.expression import gene_names
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._slide.tiles import read_views
from h2e._statistics import center_by_slide

SPLITS = {"her2st section": ("her2st", "region"), "her2st donor": ("her2st", "donor"), "mob animal": ("mob", "donor")}


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
