"""What is to be predicted: targets that are named, or chosen on the training spots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from h2e._sdata.cohort import Cohort
from h2e._sdata.expression import expression, gene_names
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._sdata.targets import AS_IN_OBS, are_in_obs, measured, resolve_targets
from h2e._statistics import Matrix, is_sparse

log = logging.getLogger(__name__)

EXPECTED, COMMON = 10, 0.1
"""A slide lacks a gene where no spot has it, and so many, and such a share of its spots, should by any other slide."""


@dataclass(frozen=True)
class TargetSpec:
    """Which targets, and where their measured values are; only the training spots have a say in which."""

    cohort: Cohort
    targets: Sequence[str] | str | None
    n_targets: int
    obsm: str | None
    layer: str | None
    log_normalized: bool

    @property
    def chosen(self) -> bool:
        """Whether targets are chosen on the training spots."""
        return self.targets is None and self.obsm is None

    @cached_property
    def in_obs(self) -> bool:
        """Whether the targets are columns of ``obs``."""
        return self.obsm is None and are_in_obs(self.cohort.table, self.targets)

    @property
    def unit(self) -> str:
        """Unit of the predictions."""
        if self.obsm is not None:
            return f"as in obsm[{self.obsm!r}]"
        return AS_IN_OBS if self.in_obs else "log-normalized expression"

    @property
    def settings(self) -> dict[str, Any]:
        """What is stored with an ensemble about its targets."""
        return {
            "unit": self.unit,
            "targets_chosen_on_all_groups": self.chosen,
            "obsm": self.obsm or "",
            "layer": self.layer or "",
            "log_normalized": self.log_normalized,
        }

    @cached_property
    def genes(self) -> Matrix | None:
        """Log-normalized expression of all genes at the spots of the cohort; ``None`` where targets are not genes."""
        if self.obsm is not None or self.in_obs:
            return None
        values = expression(self.cohort.table, layer=self.layer, log_normalized=self.log_normalized)
        return values[self.cohort.rows]

    @property
    def n_empty(self) -> int:
        """How many spots of the cohort have no counts."""
        return 0 if self.genes is None else int((np.asarray(self.genes.sum(axis=1)).ravel() == 0).sum())

    def measured(self, train: np.ndarray) -> pd.DataFrame:
        """The targets of all spots of the cohort, spots × targets; only the training spots have a say in which."""
        cohort, targets = self.cohort, self.targets
        if self.genes is not None and targets is None:
            targets = choose_targets(
                self.genes[train],
                cohort.xy_um[train],
                genes=list(gene_names(cohort.table)),
                slides=cohort.names[train],
                groups=cohort.groups[train],
                n_targets=self.n_targets,
                symbols=symbols_of(cohort.table),
            )
        rows, obs = cohort.table[cohort.rows], self.in_obs
        return measured(rows, targets, obsm=self.obsm, obs=obs, layer=self.layer, log_normalized=self.log_normalized)

    def with_values(self) -> TargetSpec:
        """The same for the spots that have a value of each target: those of ``obsm`` and ``obs`` may have gaps."""
        if self.obsm is None and not self.in_obs:
            return self
        cohort = self.cohort
        table = cohort.table[cohort.rows]
        missing = measured(table, self.targets, obsm=self.obsm, obs=self.in_obs, allow_missing=True).isna()
        gap = missing.any(axis=1).to_numpy()
        if not gap.any():
            return self
        slides, n = np.unique(cohort.names[gap], return_counts=True)
        what = f"{gap.sum()} of {len(gap)} spots on tissue have no value of some target (most of "
        what += f"{missing.sum().idxmax()!r}), by slide {dict(zip(slides.tolist(), n.tolist(), strict=True))}"
        if gap.all():
            msg = f"{what}: name targets with values (targets=)."
            raise ValueError(msg)
        log.warning("%s: they are left out", what)
        return replace(self, cohort=cohort.take(~gap))

    def absent(self, targets: Sequence[str] | str) -> list[str]:
        """Genes that no spot of a slide has, though by each other slide that has them some should; with the numbers."""
        if self.genes is None:
            return []
        cohort, names = self.cohort, resolve_targets(self.cohort.table, targets)
        found = self.genes[:, gene_names(cohort.table).get_indexer_for(names)] > 0
        depth = np.diff(self.genes.indptr) if is_sparse(self.genes) else np.count_nonzero(self.genes, axis=1)
        of_slide, n = (
            [cohort.names == slide.name for slide in cohort.slides],
            np.array([[len(s)] for s in cohort.slides]),
        )
        # Detections of each target on each slide, and as a share of those of all genes: slides differ in depth.
        counts = np.array([np.asarray(found[rows].sum(axis=0)).ravel() for rows in of_slide])
        totals = np.array([[depth[rows].sum()] for rows in of_slide])
        lowest = np.where(counts > 0, counts / np.maximum(totals, 1), np.inf).min(axis=0)
        expected = np.minimum(np.where(np.isfinite(lowest), lowest, 0) * totals, n)
        lacking = (counts == 0) & (expected >= np.maximum(EXPECTED, COMMON * n))
        about = [(names[k], cohort.slides[i].name, n[i, 0], expected[i, k]) for i, k in np.argwhere(lacking)]
        return [f"{name!r} on {slide!r} (0 of {spots} spots, {e:.0f} expected)" for name, slide, spots, e in about]
